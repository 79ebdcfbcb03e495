"""Who gets in while a flood of spoofed REGISTERs goes on: unknown phones, known ones, carriers.

    python bench/flood.py                                        all of it, about ten minutes
    python bench/flood.py --scenario random --rate 4000          one flood, another rate
    python bench/flood.py --against ../other-checkout            two versions, one after the other

Needs root, iptables, ipset, nft. Everything happens in network namespaces that it makes and
removes; the host's own firewall is never touched. A Markdown table goes to stdout. The exit code
is 1 when a bar is missed.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Neither the checkout's sources nor the laboratory in tests/ need be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from flooding import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
