"""All text forms of a ruleset by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.lower import nftables
from sipfw.lower.xtables import Family, XPlan
from sipfw.render.nft import nft_text
from sipfw.render.restore import ipset_text, restore_text
from sipfw.render.script import script_text
from sipfw.render.sysctl import sysctl_text

if TYPE_CHECKING:
    from pathlib import Path

    from sipfw.ruleset.model import Ruleset


def rendered(
    ruleset: Ruleset,
    plan: XPlan,
    form: str,
    family: str | None = None,
    template_dir: Path | None = None,
) -> str:
    """Return the `script`, `restore`, `ipset`, `nft` or `sysctl` form."""
    match form:
        case "script":
            return script_text(plan, ruleset.sysctls, ruleset=ruleset, template_dir=template_dir)
        case "restore":
            families = [Family(family)] if family else list(Family)
            return "\n".join(restore_text(plan, item, template_dir) for item in families)
        case "ipset":
            return ipset_text(plan)
        case "nft":
            return nft_text(nftables.lower(ruleset), template_dir)
        case "sysctl":
            return sysctl_text(ruleset.sysctls, template_dir)
        case _:
            raise AssertionError(f"click offers no format {form}")
