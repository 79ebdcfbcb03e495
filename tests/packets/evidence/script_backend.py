"""The rendered shell script as one more form of the firewall."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packets.firewall import Iptables
from sipfw.lower.iptables import lower
from sipfw.render.script import script_text

if TYPE_CHECKING:
    from pathlib import Path

    from lab import Node
    from sipfw.ruleset.model import Ruleset


class Script(Iptables):
    """`sh firewall.sh apply` on legacy tables; it leaves as it came, kernel settings included."""

    def __init__(self, node: Node, lock_file: Path, folder: Path) -> None:
        super().__init__(node, "legacy", lock_file)
        self._path = folder / "firewall.sh"
        self._environment = {
            "IPTABLES": "iptables-legacy",
            "SIPFW_ROOT": str(folder / "root"),
            "XTABLES_LOCKFILE": str(lock_file),
        }

    def load(self, ruleset: Ruleset) -> None:
        self._path.write_text(script_text(lower(ruleset, ipset=True), ruleset.sysctls))
        self._sh("apply")

    def clear(self) -> None:
        if self._path.exists():
            self._sh("remove")
        super().clear()

    def _sh(self, word: str) -> None:
        self._node.run(["sh", str(self._path), word], env=self._environment)
