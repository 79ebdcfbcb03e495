"""Measure what sipfw costs: CPU time per packet, growth with long lists, time to load them.

    python bench/bench.py            everything, about ten minutes
    python bench/bench.py --quick    a smoke test of the benchmark; its numbers mean little
    python bench/bench.py --only packets --against ../other-checkout    two versions in one run

Needs root, iptables-legacy, ipset and conntrack. Everything happens in network namespaces that
the benchmark makes and removes; the host's own firewall is never touched. Tables go to stdout.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Neither the checkout's sources nor the laboratory in tests/ need be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
