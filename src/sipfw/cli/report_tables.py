"""The tables of the report: layers, sources, rules, sets, peers, drift, settings, generations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.cli.numbers import bytes_text, count_text, rate_text, share_text
from sipfw.compare.drift import DriftKind
from sipfw.monitor.health import NEARLY_FULL
from sipfw.render.report import Cell, Column, ReportTable
from sipfw.ruleset.model import Layer
from sipfw.words import format_duration, format_stored_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sipfw.compare.drift import Drift
    from sipfw.deploy.history import HistoryEntry
    from sipfw.monitor.page import Facts, PeerFacts
    from sipfw.monitor.report import Report, RuleReport, SetReport
    from sipfw.monitor.series import Series
    from sipfw.monitor.summary import LayerSummary
    from sipfw.monitor.top.source import DroppedSource

MOST_SOURCES = 15
_MOST_RULES = 20
# The same layer has the same colour in every chart and table.
COLOURS = {layer.value: number for number, layer in enumerate(Layer, 1)}
_MEANING = {
    Layer.ENTRY: "bans by hand, packets that cannot be what they say",
    Layer.TRUSTED: "peers of the policy; dropped is what is above a peer's tier",
    Layer.LEARNED: "sources whose login or call the switch accepted",
    Layer.BANNED: "sources that misbehaved before",
    Layer.SCANNER: "OPTIONS of strangers, garbage, texts of attack tools, block lists",
    Layer.RATE: "more than a stranger may send",
    Layer.REPLIES: "what the switch's answers teach",
    Layer.MEDIA: "RTP, by whom the switch knows or speaks to",
    Layer.HOST: "the rest of the host",
}


def layers_table(layers: Iterable[LayerSummary], series: Series | None) -> ReportTable:
    """Return what each layer dropped and let through."""
    counted = {} if series is None else series.counted
    return ReportTable(
        "Packets by layer, in the order in which a packet meets them",
        (
            Column("layer"),
            Column("what it is"),
            Column("dropped", "number"),
            Column("share", "bar"),
            Column("bytes", "number"),
            Column("lately", "number"),
            Column("now, per s", "number"),
            Column("let through", "number"),
        ),
        tuple(
            (
                Cell(item.layer, colour=COLOURS.get(item.layer, 0)),
                Cell(_MEANING.get(Layer(item.layer), "")),
                Cell(count_text(item.dropped)),
                Cell(share_text(item.share), item.share or None, colour=COLOURS.get(item.layer, 0)),
                Cell(bytes_text(item.dropped_bytes)),
                Cell(count_text(counted[item.layer]) if item.layer in counted else "-"),
                Cell(rate_text(item.rate)),
                Cell(count_text(item.passed)),
            )
            for item in layers
        ),
        "no layer decides anything",
    )


def sources_table(facts: Facts) -> ReportTable:
    """Return who is being dropped."""
    head = ["source", "layer", "packets", "last seen", "first seen", "lasts", "reason"]
    kinds = {"source": "code", "packets": "number", "reason": ""}
    return ReportTable(
        "Sources that were dropped, those with the most packets seen first",
        tuple(Column(title, kinds.get(title, "short")) for title in head),
        tuple(
            _source(item, facts.names.get(str(item.network)), facts.made)
            for item in facts.sources.sources[:MOST_SOURCES]
        ),
        "nobody was dropped, as far as seen",
    )


def _source(item: DroppedSource, name: str | None, now: float) -> tuple[Cell, ...]:
    network = item.network
    place = network.network_address if network.num_addresses == 1 else network
    return (
        Cell(str(place), note=name or ""),
        Cell(item.layer, colour=COLOURS.get(item.layer, 0)),
        Cell("-" if item.packets is None else count_text(item.packets)),
        Cell(_ago(item.last, now)),
        Cell(_ago(item.first, now)),
        Cell("-" if item.left is None else format_duration(item.left)),
        Cell(item.reason, note=item.rule),
    )


def _ago(moment: float | None, now: float) -> str:
    if moment is None:
        return "-"
    return "now" if now - moment < 3 else f"{format_duration(now - moment)} ago"


def rules_table(rules: Sequence[RuleReport]) -> ReportTable:
    """Return the rules that dropped or let through the most."""
    deciding = [rule for rule in rules if rule.action in {"drop", "pass"} and rule.packets]
    busiest = sorted(deciding, key=lambda rule: -rule.packets)[:_MOST_RULES]
    most = max((rule.packets for rule in busiest), default=1)
    return ReportTable(
        "Rules that dropped or let through the most packets",
        (
            Column("rule", "code"),
            Column("what it is"),
            Column("does", "short"),
            Column("packets", "bar"),
            Column("bytes", "number"),
            Column("policy", "code"),
        ),
        tuple(
            (
                Cell(rule.id),
                Cell(rule.summary),
                Cell(
                    "drops" if rule.action == "drop" else "lets through",
                    tone="bad" if rule.action == "drop" else "good",
                ),
                Cell(
                    count_text(rule.packets),
                    rule.packets / most,
                    colour=COLOURS.get(rule.layer, 0),
                ),
                Cell(bytes_text(rule.bytes)),
                Cell(rule.origin),
            )
            for rule in busiest
        ),
        "no rule has counted a packet yet",
    )


def sets_table(sets: Iterable[SetReport]) -> ReportTable:
    """Return the sets that hold something, and how full those are that packets fill."""
    return ReportTable(
        "Sets that are not empty",
        (
            Column("set", "code"),
            Column("what it holds"),
            Column("entries", "number"),
            Column("room", "number"),
            Column("full", "bar"),
        ),
        tuple(_set(item) for item in sets if item.entries != 0),
        "all sets are empty",
    )


def _set(item: SetReport) -> tuple[Cell, ...]:
    if item.entries is None:
        return (
            Cell(item.name),
            Cell(item.summary),
            Cell("missing", tone="bad"),
            Cell("-"),
            Cell("-"),
        )
    share = item.entries / item.size if item.size and item.dynamic else None
    full = share is not None and share > NEARLY_FULL and not item.notes
    tone = "bad" if full else ""
    return (
        Cell(item.name),
        Cell(item.summary),
        Cell(count_text(item.entries)),
        Cell("-" if item.size is None else count_text(item.size)),
        Cell("-" if share is None else share_text(share), share, tone),
    )


def peers_table(peers: Iterable[PeerFacts]) -> ReportTable:
    """Return the trusted peers of the policy."""
    heads = ("peer", "signalling", "media", "tier")
    return ReportTable(
        "Trusted peers of the policy",
        (
            *(Column(title, "code" if title in {"signalling", "media"} else "") for title in heads),
            Column("packets", "number"),
            Column("bytes", "number"),
            Column("dropped"),
        ),
        tuple(
            (
                Cell(peer.name),
                Cell(_listed(peer.signalling)),
                Cell(_listed(peer.media)),
                Cell(peer.tier or "-"),
                Cell("-" if peer.count is None else count_text(peer.count.packets)),
                Cell("-" if peer.count is None else bytes_text(peer.count.bytes)),
                _lost(peer),
            )
            for peer in peers
        ),
        "the policy trusts nobody",
    )


def _lost(peer: PeerFacts) -> Cell:
    if peer.traffic is None:
        return Cell("-")
    told = "; ".join(peer.traffic.sentences()).replace(f"{peer.name}: ", "")
    return Cell(count_text(peer.traffic.dropped), tone="bad", note=told)


def _listed(items: Sequence[str], most: int = 6) -> str:
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return (", ".join(items[:most]) or "-") + more


def drift_table(items: Iterable[Drift]) -> ReportTable:
    """Return every difference from what was applied."""
    return ReportTable(
        "Differences between the live firewall and the applied one",
        (
            Column("how", "short"),
            Column("what", "short"),
            Column("where", "code"),
            Column("detail", "code"),
            Column("policy", "code"),
        ),
        tuple(
            (
                Cell(item.kind.value, tone="bad" if item.kind is DriftKind.MISSING else "warn"),
                Cell(item.what),
                Cell(item.where),
                Cell(item.detail or "-"),
                Cell(item.origin or "-"),
            )
            for item in items
        ),
        "none: the live firewall is the applied one",
    )


def kernel_table(report: Report) -> ReportTable:
    """Return kernel settings as they are and as the policy wants them."""
    return ReportTable(
        "Kernel settings of the policy",
        (
            Column("setting", "code"),
            Column("now", "number"),
            Column("the policy says", "number"),
            Column("verdict"),
            Column("policy", "code"),
        ),
        tuple(
            (
                Cell(item.name),
                Cell("absent" if item.actual is None else str(item.actual)),
                Cell(str(item.wanted)),
                Cell("as wanted", tone="good")
                if item.agrees
                else Cell("only the host of this container can set it", tone="warn")
                if item.fixed
                else Cell("differs", tone="bad"),
                Cell(item.origin),
            )
            for item in report.sysctls
        ),
        "the policy sets none",
    )


def generations_table(entries: Sequence[HistoryEntry]) -> ReportTable:
    """Return what was applied, newest first."""
    return ReportTable(
        "What was applied, newest first",
        (
            Column("generation", "number"),
            Column("state"),
            Column("when", "short"),
            Column("who"),
            Column("backend", "short"),
            Column("policy", "code"),
        ),
        tuple(_generation(item) for item in reversed(entries)),
        "nothing is kept",
    )


def _generation(item: HistoryEntry) -> tuple[Cell, ...]:
    made = item.generation
    state = Cell("live" if item.live else item.state, tone="good" if item.live else "")
    if item.live and item.state != "confirmed":
        state = Cell(f"live, {item.state}", tone="warn")
    known = ("-",) * 4
    if made is not None:
        known = (format_stored_timestamp(made.time), made.who, made.backend, made.source)
    return (Cell(str(item.number)), state, *(Cell(text) for text in known))
