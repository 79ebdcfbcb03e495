"""One lowered rule to the bytes that libiptc wants, without python-iptables' lossy rewriting.

`Chain.append_rule` prints every parameter and parses it again through a 1024-byte pipe, and
`iptc.easy` leaves out what it cannot parse and so installs a wider rule. Here every parameter is
given exactly once, and any failure is an exception.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sipfw.kernel.xtables.libiptc.limits import VERDICTS, network
from sipfw.kernel.xtables.libiptc.patches import fix_ipv6_entry
from sipfw.lower.xtables import Family, XMatch, XParam

if TYPE_CHECKING:
    from types import ModuleType

    from sipfw.lower.xtables import XRule, XTarget


class BuildError(Exception):
    """libxtables refused a part of a rule; the process is damaged and must end."""


class RuleBuilder:
    """Builds rules of one table; `chains` are the user chains that rules may jump to."""

    def __init__(self, iptc: ModuleType, family: Family, chains: frozenset[str]) -> None:
        self._iptc = iptc
        self._family = family
        self._chains = chains

    def build(self, rule: XRule, counters: tuple[int, int] = (0, 0)) -> Any:
        """Return the kernel entry of `rule`, starting with `counters` (packets, bytes)."""
        result = self._iptc.Rule() if self._family is Family.IP else self._iptc.Rule6()
        self._select(result, rule)
        for match in rule.matches:
            self._add(result.create_match, rule, match)
        comment = XMatch("comment", (XParam("comment", (rule.comment,)),))
        self._add(result.create_match, rule, comment)
        self._set_target(result, rule, rule.target)
        if self._family is Family.IP6:
            fix_ipv6_entry(result)
        result.counters = counters
        return result.rule

    def _select(self, result: Any, rule: XRule) -> None:
        for attribute, value in (("src", rule.source), ("dst", rule.destination)):
            if value is not None:
                negate, address = network(value, self._family)
                setattr(result, attribute, f"!{address}" if negate else address)
        for attribute, word in (
            ("in_interface", rule.in_interface),
            ("out_interface", rule.out_interface),
            ("protocol", rule.protocol),
        ):
            if word is not None:
                setattr(result, attribute, word.replace("! ", "!"))

    def _add(self, create: Any, rule: XRule, part: XMatch | XTarget) -> None:
        """Create one extension and set all its parameters.

        libxtables holds the state of the extension parsed last in globals: a second one of the
        same name may be created only when the first is complete.
        """
        at = f"rule {rule.comment!r}: {part.name}"
        try:
            extension = create(part.name)
        except Exception as error:
            raise BuildError(f"{at}: xtables plugin or kernel module not found") from error
        for param in part.params:
            try:
                extension.set_parameter(*_parameter(param))
            except Exception as error:
                said = " ".join(param.values)
                raise BuildError(f"{at}: --{param.name} {said} refused: {error}") from error
        try:
            extension._final_check()  # noqa: SLF001 - the public final_check rewrites parameters
        except Exception as error:
            raise BuildError(f"{at}: incomplete: {error}") from error

    def _set_target(self, result: Any, rule: XRule, target: XTarget | None) -> None:
        if target is None:
            result.create_target("")
        elif target.name in self._chains or target.name in VERDICTS:
            # The name is set afterwards: python-iptables would look for the chain in all tables.
            created = result.create_target("", goto=target.goto)
            created.standard_target = target.name
        else:
            self._add(result.create_target, rule, target)


def _parameter(param: XParam) -> tuple[str, str | list[str]]:
    """Return name and value in python-iptables' form.

    Values always go in as a list: a plain string that begins with "!" would be read as negation.
    """
    if not param.values:
        return param.name, "!" if param.negate else ""
    return param.name, ["!", *param.values] if param.negate else [*param.values]
