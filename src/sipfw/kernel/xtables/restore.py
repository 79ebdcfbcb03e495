"""The engine where iptables is the nf_tables flavour: ipset and iptables-restore."""

from __future__ import annotations

from sipfw.host.runner import Runner, SubprocessRunner
from sipfw.kernel.xtables.engine import Engine
from sipfw.kernel.xtables.loaders.restore import RestoreLoader
from sipfw.kernel.xtables.nft_tools import NftFlavourTools

# nf_tables frees the rules of a finished transaction in a work queue, and their sets with them.
_SETS_IN_USE_SECONDS = 2.0


class RestoreBackend(Engine):
    """Applies, removes and reads rules of iptables-nft through its restore programs."""

    def __init__(self, runner: Runner | None = None) -> None:
        runner = runner or SubprocessRunner()
        loader = RestoreLoader(runner, NftFlavourTools(runner))
        super().__init__(runner, loader, patience=_SETS_IN_USE_SECONDS)
