"""Show, with real attack tools and real calls, what sipfw stops and what it leaves alone.

    python examples/demo/demo.py                  needs root, sipp and sipvicious
    python examples/demo/demo.py --without-sipfw  checks the network, the attacks and the calls only

Everything happens in network namespaces that the demo makes and removes; the host's own firewall
is never touched.
"""

from __future__ import annotations

import sys
from pathlib import Path

# The laboratory lives in tests/, which is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from story import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
