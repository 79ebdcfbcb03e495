"""The commands that open what a rule of somebody else takes away, and nothing more."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipfw.compare.foreign import Verdict
from sipfw.lower.xtables import Family
from sipfw.monitor.doctor.stricter.loss import short
from sipfw.monitor.host_path.removal import removal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sipfw.monitor.doctor.stricter.loss import Loss
    from sipfw.ruleset.match import PortRange

# xt_multiport takes 15 ports, and a range is two.
_MOST_RANGES = 7


@dataclass(frozen=True, slots=True)
class _Opening:
    """Ports of one protocol; `family` is None where both are meant, no source is everybody."""

    proto: str
    family: Family | None
    ports: tuple[PortRange, ...]
    sources: tuple[str, ...]
    answer: bool = False


def commands(loss: Loss) -> tuple[str, ...]:
    """Return them in the words of the program that keeps these rules.

    Where the rule stands before our jump it has to go: what is accepted there passes us by as well.
    """
    if not loss.behind:
        gone = None if loss.step is None else removal(loss.way, loss.step)
        return () if gone is None else (gone,)
    found = _of_tool(loss)
    if found is None:
        found = tuple(_xtables(loss) if loss.way.xtables else _nft(loss))
    return (*(item for item in found if item.isprintable()), *_forgetting(loss))


def in_order(losses: Sequence[Loss]) -> tuple[str, ...]:
    """Return the commands for all of them, so that none moves a rule that a later one counts.

    Rules are counted from the front of their chain, so the last one of a chain is done first.
    """
    later = sorted(losses, key=_place, reverse=True)
    return tuple(dict.fromkeys(word for item in later for word in commands(item)))


def _place(loss: Loss) -> tuple[str, int]:
    if not loss.behind and loss.step is not None:
        return f"{loss.way.where} {loss.step.chain}", loss.step.number
    return f"{loss.way.where} {loss.way.base}", 0 if loss.place is None else loss.place


def _forgetting(loss: Loss) -> tuple[str, ...]:
    """Return what ends the connections that a translation has been made for, if any stand."""
    if loss.step is None or loss.step.rule.verdict not in {Verdict.SEND, Verdict.REDIRECT}:
        return ()
    ports = {
        (item.proto, port)
        for item in loss.lost
        for port in range(item.ports.first, min(item.ports.last, item.ports.first + 9) + 1)
    }
    return tuple(forgetting(proto, port) for proto, port in sorted(ports))


def forgetting(proto: str, port: int) -> str:
    """Return what ends the connections to a port as it was asked for, if any stand."""
    return f"(conntrack -D -p {proto} --orig-port-dst {port} || true)"


def _openings(loss: Loss) -> list[_Opening]:
    """Return what was lost, the ports of everybody and of the same sources together."""
    both: dict[tuple[str, PortRange], set[Family]] = {}
    for item in loss.lost:
        if item.source is None:
            both.setdefault((item.proto, item.ports), set()).add(item.family)
    ports: dict[tuple[str, Family | None, str], dict[PortRange, None]] = {}
    for item in loss.lost:
        source = "" if item.source is None else short(str(item.source))
        alike = not source and both[item.proto, item.ports] >= loss.way.families
        key = item.proto, None if alike else item.family, source
        ports.setdefault(key, {})[item.ports] = None
    sources: dict[tuple[str, Family | None, tuple[PortRange, ...]], list[str]] = {}
    for (proto, family, source), ranges in ports.items():
        sources.setdefault((proto, family, tuple(ranges)), []).append(source)
    return [
        _Opening(
            proto,
            family,
            ranges,
            tuple(item for item in found if item),
            any(item.answer for item in loss.lost),
        )
        for (proto, family, ranges), found in sources.items()
    ]


def _xtables(loss: Loss) -> Iterator[str]:
    where = ["-A", loss.way.base]
    if loss.place is not None:
        where = ["-I", loss.way.base, str(loss.place + 1)]
    for item in _openings(loss):
        end, side = ("-d", "--sport") if item.answer else ("-s", "--dport")
        whom = [end, ",".join(item.sources)] if item.sources else []
        for at in range(0, len(item.ports), _MOST_RANGES):
            ports = [str(each).replace("-", ":") for each in item.ports[at : at + _MOST_RANGES]]
            match = [side, *ports] if len(ports) == 1 else []
            match = match or ["-m", "multiport", f"{side}s", ",".join(ports)]
            words = [*loss.way.tool, *where, *whom, "-p", item.proto, *match, "-j", "ACCEPT"]
            yield shlex.join(words)


def _nft(loss: Loss) -> Iterator[str]:
    _, family, table, chain = loss.way.tool
    where = ["nft", "add", "rule", family, table, chain]
    if loss.place is not None:
        where = ["nft", "insert", "rule", family, table, chain, "index", str(loss.place)]
    for item in _openings(loss):
        words = []
        if item.sources:
            family_word = "ip6" if item.family is Family.IP6 else "ip"
            words = [family_word, "daddr" if item.answer else "saddr", _set(item.sources)]
        elif item.family is not None and family == "inet":
            words = ["meta", "nfproto", "ipv4" if item.family is Family.IP else "ipv6"]
        ports = _set([str(each) for each in item.ports])
        side = "sport" if item.answer else "dport"
        yield shlex.join([*where, *words, item.proto, side, ports, "accept"])


def _set(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"{{ {', '.join(values)} }}"


def _of_tool(loss: Loss) -> tuple[str, ...] | None:
    """Return the words of the program that keeps these rules, which would undo others."""
    openings = _openings(loss)
    if any(item.answer for item in openings) or loss.way.kind == "nat":
        return None
    if {"ufw-before-input", "ufw6-before-input"} & loss.way.chains.keys():
        # Behind a rule that denies, one that allows would never be asked.
        verb = "allow" if loss.rule is None else "prepend allow"
        return tuple(
            f"ufw {verb} proto {item.proto} from {source} to any port "
            + ",".join(str(each).replace("-", ":") for each in item.ports)
            for item in openings
            for source in item.sources or ("any",)
        )
    firewalld = loss.way.where.startswith("nft inet firewalld")
    if (firewalld or "INPUT_ZONES" in loss.way.chains) and not any(i.sources for i in openings):
        opened = [f"--add-port={each}/{item.proto}" for item in openings for each in item.ports]
        return (shlex.join(["firewall-cmd", "--permanent", *opened]), "firewall-cmd --reload")
    return None
