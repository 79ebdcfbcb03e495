"""Rules in another form, where the kernel lacks a match that has one; and what is lost by that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.compiler.without_string_match import without_string_match
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.kernel.module_help import System
from sipfw.kernel.xtables.parts import missing_forms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sipfw.ruleset.model import Ruleset
    from sipfw.ruleset.rule import Family

# As `text_searches` and the lines below name what the kernel lacks.
_LACKED = re.compile(r"the kernel has no (\w+)")


@dataclass(frozen=True, slots=True)
class Possible:
    """A ruleset that the host can run, how to lower it, and what to say about it."""

    ruleset: Ruleset
    u32: bool = True
    remarks: tuple[Diagnostic, ...] = ()


def in_iptables(ruleset: Ruleset, programs: Mapping[Family, str]) -> Possible:
    """Return what these restore programs and the kernel can do of a ruleset."""
    lacked = missing_forms(tuple(programs.items()))
    # Without either the rules themselves are refused, and the refusal names u32.
    u32 = "u32" not in lacked or "bpf" in lacked
    remarks = []
    if not u32:
        message = (
            "xt_u32 does not work here (RHEL, Alma and Rocky 9 have none): the same bytes are "
            "compared by xt_bpf, at the same price"
        )
        remarks.append(Diagnostic(message, "backend", severity=Severity.NOTE))
    if "string" not in lacked:
        return Possible(ruleset, u32, tuple(remarks))
    missing = "iptables" if lacked["string"].library else "the kernel"
    possible = in_nftables(ruleset, f"{missing} has no xt_string")
    return Possible(possible.ruleset, u32, (*remarks, *possible.remarks))


def in_nftables(ruleset: Ruleset, reason: str | None) -> Possible:
    """Return what is left of a ruleset where texts cannot be searched for this reason."""
    if reason is None:
        return Possible(ruleset)
    message = (
        f"no text searches on this kernel ({reason}): scanner signatures are left out, the "
        "switch's replies teach nothing, and a ban is a wall"
    )
    found = _LACKED.match(reason)
    if found is not None:
        help_ = System().help_for([found[1]])
        message += f"; {help_.cause}" if help_.cause else ""
        message += f"; run: {help_.command}" if help_.command else ""
    warning = Diagnostic(message, "scanners.signatures", severity=Severity.WARNING)
    return Possible(without_string_match(ruleset), remarks=(warning,))
