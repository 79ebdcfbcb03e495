"""Run inside a namespace: load the pickled ruleset on stdin, since text rules go by netlink."""

import base64
import pickle
import sys

from sipfw.kernel.nft.engine import NftablesBackend
from sipfw.lower.nftables import lower

NftablesBackend().apply(lower(pickle.loads(base64.b64decode(sys.stdin.read()))))  # noqa: S301 - our own
