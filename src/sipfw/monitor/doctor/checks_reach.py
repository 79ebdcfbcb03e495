"""What besides rules keeps packets of the policy from the switch, and its answers from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.deploy.lockout.openings import names_of_containers
from sipfw.host.proc_net import lines_of
from sipfw.monitor.doctor.findings import Diagnosis, DiagnosisState
from sipfw.monitor.doctor.record import applied_ruleset
from sipfw.monitor.doctor.rules import published_ports
from sipfw.monitor.doctor.stricter.grants import members_of_peers
from sipfw.monitor.host_path.around import Around, loosened
from sipfw.ruleset.doors import doors_of
from sipfw.ruleset.match import Interface

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sipfw.monitor.doctor.host import HostView
    from sipfw.ruleset.addresses import IpAddress
    from sipfw.ruleset.model import Ruleset

_SHOWN = 3
# A question to the kernel each.
_MOST_ASKED = 64
_NOTHING_APPLIED = "no policy is applied"


def unheard(host: HostView, ruleset: Ruleset) -> str | None:
    """Say why no program gets the policy's SIP; None where one does, or runs behind this host."""
    found = Around(host.proc, host.runner).unheard_of_all(doors_of(ruleset))
    if found is None or names_of_containers(ruleset) or published_ports(host.rules):
        return None
    return found


def peers_of(ruleset: Ruleset) -> list[IpAddress]:
    """Return one address of each network of a trusted peer, at most 64."""
    found = dict.fromkeys(item.network_address for item in members_of_peers(ruleset))
    return list(found)[:_MOST_ASKED]


def no_way_back(host: HostView, ruleset: Ruleset) -> tuple[tuple[str, ...], str | None]:
    """Say to which trusted peers no answer can be sent; where that is all of them, say it apart.

    A host without a network is none that takes calls, whatever its firewall does.
    """
    lost, peers = _lost(host, ruleset)
    if lost and lost == peers:
        return (), "no route leads back to any trusted peer: see ip route"
    return ((_no_route(lost),) if lost else ()), None


def _lost(host: HostView, ruleset: Ruleset) -> tuple[list[IpAddress], list[IpAddress]]:
    around, peers = Around(host.proc, host.runner), peers_of(ruleset)
    return [peer for peer in peers if _is_lost(around, peer)], peers


def _no_route(lost: Iterable[IpAddress]) -> str:
    return f"no route leads back to {_some(map(str, lost))}: it gets no answer; see ip route"


def _is_lost(around: Around, peer: IpAddress) -> bool:
    back = around.way_back(peer)
    return back.none or back.everywhere


def ways_back(host: HostView) -> Diagnosis:
    """Tell whether answers to trusted peers leave, and whether rp_filter lets their packets in."""
    name = "ways-back"
    ruleset = applied_ruleset(host)
    if ruleset is None:
        return Diagnosis(name, DiagnosisState.OK, _NOTHING_APPLIED)
    lost, _ = _lost(host, ruleset)
    if lost:
        return Diagnosis(name, DiagnosisState.PROBLEM, _no_route(lost))
    around = Around(host.proc, host.runner)
    refused: dict[str, list[str]] = {}
    for peer in peers_of(ruleset):
        for link in around.way_back(peer).refusing:
            refused.setdefault(link, []).append(str(peer))
    if not refused:
        return Diagnosis(name, DiagnosisState.OK, "answers leave where questions come in")
    sentence = "; ".join(
        f"what {_some(peers)} sends through {link} is dropped: rp_filter is 1 there, and the way "
        "back is another"
        for link, peers in refused.items()
    )
    fix = " && ".join(loosened(link) for link in refused)
    return Diagnosis(name, DiagnosisState.WARNING, sentence, fix)


def listeners(host: HostView) -> Diagnosis:
    """Tell whether a program gets what the policy lets in."""
    name = "listeners"
    ruleset = applied_ruleset(host)
    if ruleset is None:
        return Diagnosis(name, DiagnosisState.OK, _NOTHING_APPLIED)
    text = unheard(host, ruleset)
    if text is not None:
        # Without a peer nobody is promised a call: the switch may be installed next.
        state = DiagnosisState.PROBLEM if peers_of(ruleset) else DiagnosisState.WARNING
        return Diagnosis(name, state, f"{text}: no call is answered")
    around = Around(host.proc, host.runner)
    idle = [
        f"{door.proto.value} {door.port}"
        for door in doors_of(ruleset)
        if around.unheard(door.proto.value, door.port) is not None
    ]
    more = f"; by nobody: {_some(idle)}" if idle else ""
    return Diagnosis(name, DiagnosisState.OK, f"the SIP ports of the policy are listened on{more}")


def interfaces(host: HostView) -> Diagnosis:
    """Tell whether the interfaces that the policy names exist: rules for others fit nothing."""
    name = "interfaces"
    ruleset = applied_ruleset(host)
    if ruleset is None:
        return Diagnosis(name, DiagnosisState.OK, _NOTHING_APPLIED)
    rows = lines_of(host.proc / "net/dev")[2:]
    there = [row.partition(":")[0].strip() for row in rows]
    gone = [item.name for item in _named(ruleset) if not any(item.fits(each) for each in there)]
    if not gone or not there:
        return Diagnosis(name, DiagnosisState.OK, "those that the policy names are there")
    sentence = f"the policy names {_some(gone)}, which this host does not have now: see ip link"
    return Diagnosis(name, DiagnosisState.WARNING, sentence)


def _named(ruleset: Ruleset) -> Iterator[Interface]:
    seen = dict.fromkeys(
        match
        for chain in ruleset.chains
        for rule in chain.rules
        for match in rule.matches
        if isinstance(match, Interface) and match.name != "lo"
    )
    yield from {match.name: match for match in seen}.values()


def not_read(host: HostView) -> Diagnosis:
    """Name what drops packets and is no rule that anybody here can read."""
    name = "not-read"
    host.require_root()
    found = [*Around(host.proc, host.runner).programs, *_bridged(host)]
    if not found:
        return Diagnosis(name, DiagnosisState.OK, "all that judges packets here is read")
    return Diagnosis(name, DiagnosisState.UNKNOWN, f"{'; '.join(found)}: what it drops is not seen")


def _bridged(host: HostView) -> Iterator[str]:
    tables = (block.table for block in host.rules.nft if block.family == "bridge" and block.hook)
    for table in dict.fromkeys(tables):
        yield f"nft table bridge {table} is not walked"


def _some(found: Iterable[str]) -> str:
    texts = list(found)
    more = len(texts) - _SHOWN
    return f"{', '.join(texts[:_SHOWN])}{f' and {more} more' if more > 0 else ''}"
