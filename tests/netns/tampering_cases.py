"""Ways to tamper with a live ruleset, the same for every backend, and what must be named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from tampering_hands import Family, Hand

STRANGER = "198.51.100.66"


@dataclass(frozen=True, slots=True)
class Named:
    """One difference that must be named; `origin` and `detail` are parts of what is said."""

    kind: str
    what: str
    where: str
    origin: str = ""
    detail: str = ""


Tampering: TypeAlias = "Callable[[Hand], list[Named]]"
SHARED: list[Tampering] = []


def shared(tampering: Tampering) -> Tampering:
    """Have every backend suffer it."""
    SHARED.append(tampering)
    return tampering


def rule(
    hand: Hand, kind: str, place: str, origin: str, detail: str = "", *, family: Family = "ip"
) -> Named:
    """Name a rule by `CHAIN id`."""
    chain, _, rule_id = place.partition(" ")
    return Named(kind, "rule", f"{hand.place(chain, family)} {rule_id}", origin, detail)


def edit(hand: Hand, rule_id: str, old: str, new: str, family: Family = "ip") -> None:
    """Change a rule under its comment."""
    spot = hand.spot(rule_id, family)
    assert old in spot.text, spot.text
    hand.rewrite(spot, spot.text.replace(old, new), family)


@shared
def a_deleted_rule(hand: Hand) -> list[Named]:
    hand.delete(hand.spot("rate.hashlimit"))
    return [rule(hand, "missing", "SIP_RATE_LIMIT rate.hashlimit", "limits.hashlimit")]


@shared
def a_deleted_rule_of_ipv6(hand: Hand) -> list[Named]:
    hand.delete(hand.spot("rate.hashlimit", "ip6"), "ip6")
    place = "SIP_RATE_LIMIT rate.hashlimit"
    return [rule(hand, "missing", place, "limits.hashlimit", family="ip6")]


@shared
def a_rule_put_first(hand: Hand) -> list[Named]:
    hand.insert(hand.spot("trusted.tiers"), hand.rule(STRANGER, "ACCEPT"))
    return [Named("extra", "rule", hand.place("SIP_TRUSTED"), detail=STRANGER)]


@shared
def a_rule_put_last(hand: Hand) -> list[Named]:
    hand.append("SIP_LEARN", hand.rule("", "DROP"))
    return [Named("extra", "rule", hand.place("SIP_LEARN"), detail=hand.verdict("drop")[-4:])]


@shared
def two_rules_swapped(hand: Hand) -> list[Named]:
    first, second = hand.spot("rate.hashlimit"), hand.spot("rate.per-subnet")
    hand.rewrite(first, second.text)
    hand.rewrite(second, first.text)
    return [rule(hand, "moved", "SIP_RATE_LIMIT rate.per-subnet", "limits")]


@shared
def a_rule_moved_to_the_end(hand: Hand) -> list[Named]:
    spot = hand.spot("banned.registered")
    hand.delete(spot)
    hand.append("SIP_BANNED", spot.text)
    return [rule(hand, "moved", "SIP_BANNED banned.registered", "learning")]


@shared
def an_edited_port(hand: Hand) -> list[Named]:
    edit(hand, "entry.udp", "dport 5060", "dport 5070")
    return [rule(hand, "changed", "SIPFW_PREROUTING entry.udp", "signalling", "5070")]


@shared
def an_edited_address_of_a_peer(hand: Hand) -> list[Named]:
    edit(hand, "trusted.accept", "203.0.113.10", "203.0.113.99")
    return [rule(hand, "changed", "SIP_TRUSTED trusted.accept", "trusted_peers", "203.0.113.99")]


@shared
def a_widened_network_of_a_peer(hand: Hand) -> list[Named]:
    edit(hand, "trusted.accept", "2001:db8:5::/64", "2001:db8::/32", "ip6")
    place = "SIP_TRUSTED trusted.accept"
    return [rule(hand, "changed", place, "trusted_peers", "2001:db8::", family="ip6")]


@shared
def an_edited_verdict(hand: Hand) -> list[Named]:
    edit(hand, "guesses.shut", hand.verdict("drop"), hand.verdict("accept"))
    place = "SIP_GUESSES guesses.shut"
    return [rule(hand, "changed", place, "bans", hand.verdict("accept")[-6:])]


@shared
def a_verdict_taken_away(hand: Hand) -> list[Named]:
    edit(hand, "scanner.not-sip", hand.verdict("drop"), "")
    return [rule(hand, "changed", "SIP_SCANNER_BLOCK scanner.not-sip", "scanners")]


@shared
def a_goto_made_a_jump(hand: Hand) -> list[Named]:
    old, new = ("goto", "jump") if hand.is_nft else ("-g", "-j")
    edit(hand, "entry.udp", f"{old} SIP_TRUSTED", f"{new} SIP_TRUSTED")
    return [rule(hand, "changed", "SIPFW_PREROUTING entry.udp", "signalling", "SIP_TRUSTED")]


@shared
def a_goto_that_leads_elsewhere(hand: Hand) -> list[Named]:
    edit(hand, "entry.udp", "SIP_TRUSTED", "SIP_LEARNED")
    return [rule(hand, "changed", "SIPFW_PREROUTING entry.udp", "signalling", "SIP_LEARNED")]


@shared
def a_faster_rate(hand: Hand) -> list[Named]:
    edit(hand, "rate.hashlimit", "10/sec", "99/sec")
    return [rule(hand, "changed", "SIP_RATE_LIMIT rate.hashlimit", "limits.hashlimit", "99")]


@shared
def a_larger_burst(hand: Hand) -> list[Named]:
    edit(hand, "aggregate.within", "burst 1000", "burst 9999")
    return [rule(hand, "changed", "SIP_CROWD aggregate.within", "limits.aggregate", "9999")]


@shared
def more_connections(hand: Hand) -> list[Named]:
    old, new = ("count over 10 ", "count over 99 ") if hand.is_nft else ("above 10 ", "above 99 ")
    edit(hand, "connlimit.per-source", old, new)
    place = "SIP_CONNECTIONS connlimit.per-source"
    return [rule(hand, "changed", place, "limits.connlimit", "99")]


@shared
def a_lookup_in_another_set(hand: Hand) -> list[Named]:
    edit(hand, "identity.banned", "banned4", "asked4")
    return [rule(hand, "changed", "SIP_SOURCES identity.banned", "bans", "asked4")]


@shared
def a_test_turned_round(hand: Hand) -> list[Named]:
    old, new = ("saddr @", "saddr != @") if hand.is_nft else ("--match-set", "! --match-set")
    edit(hand, "identity.banned", old, new)
    return [rule(hand, "changed", "SIP_SOURCES identity.banned", "bans")]


@shared
def a_test_left_out(hand: Hand) -> list[Named]:
    edit(
        hand,
        "host.ssh",
        "ip saddr @admin-nets4 " if hand.is_nft else "-m set --match-set sipfw-admin4 src ",
        "",
    )
    return [rule(hand, "changed", "SIP_HOST host.ssh", "admin")]


@shared
def a_ban_of_somebody_else(hand: Hand) -> list[Named]:
    old, new = ("saddr }", "daddr }") if hand.is_nft else ("banned4 src", "banned4 dst")
    edit(hand, "ban.add", old, new)
    return [rule(hand, "changed", "SIP_BAN ban.add", "bans")]


@shared
def another_digest(hand: Hand) -> list[Named]:
    text = hand.spot("ban.drop").text
    digest = text.partition("ban.drop#")[2][:8]
    edit(hand, "ban.drop", digest, "00000000")
    return [rule(hand, "changed", "SIP_BAN ban.drop", "bans")]


@shared
def a_comment_taken_off(hand: Hand) -> list[Named]:
    spot = hand.spot("ban.drop")
    hand.rewrite(spot, hand.rule("", "DROP"))
    return [
        rule(hand, "missing", "SIP_BAN ban.drop", "bans"),
        Named("extra", "rule", hand.place("SIP_BAN")),
    ]


@shared
def a_twin_before_the_rule(hand: Hand) -> list[Named]:
    spot = hand.spot("ban.drop")
    mark = spot.text.partition('"')[2].partition('"')[0]
    hand.insert(spot, hand.rule(STRANGER, "ACCEPT", mark))
    return [rule(hand, "extra", "SIP_BAN ban.drop", "bans", STRANGER)]


@shared
def a_rule_of_an_id_that_nobody_gave(hand: Hand) -> list[Named]:
    hand.append("SIP_BAN", hand.rule(STRANGER, "ACCEPT", "sipfw:ban.forged#01234567"))
    return [rule(hand, "extra", "SIP_BAN ban.forged", "", STRANGER)]


@shared
def a_flushed_chain(hand: Hand) -> list[Named]:
    hand.flush("SIP_BAN")
    return [rule(hand, "missing", f"SIP_BAN {name}", "bans") for name in ("ban.add", "ban.drop")]


@shared
def a_deleted_chain(hand: Hand) -> list[Named]:
    hand.delete(hand.spot("scanner.probe"))
    hand.drop_chain("SIP_SCANNER_BLOCK")
    return [
        rule(hand, "missing", "SIP_TRUSTED scanner.probe", "scanners"),
        Named("missing", "chain", hand.place("SIP_SCANNER_BLOCK"), "learning"),
    ]


@shared
def a_renamed_chain(hand: Hand) -> list[Named]:
    hand.rename_chain("SIP_GUESSES", "SIP_GUESSED")
    text = "_text" if hand.is_nft else ""
    return [
        rule(hand, "changed", f"SIP_PROBATION{text} banned.login", "bans", "SIP_GUESSED"),
        rule(hand, "changed", f"SIP_PORT_LOGIN{text} port.login", "bans", "SIP_GUESSED"),
        Named("missing", "chain", hand.place("SIP_GUESSES"), "bans"),
        Named("extra", "chain", hand.place("SIP_GUESSED")),
    ]


@shared
def a_removed_signature(hand: Hand) -> list[Named]:
    hand.delete(hand.spot("scanner.ua.user-evildialer"))
    chain = "SIP_TEXTS_text" if hand.is_nft else "SIP_TEXTS"
    return [rule(hand, "missing", f"{chain} scanner.ua.user-evildialer", "scanners.user_agents")]


@shared
def a_removed_jump(hand: Hand) -> list[Named]:
    hand.delete(hand.spot("hook.raw.output/1" if hand.is_nft else "hook.raw.output"))
    return [Named("missing", "jump", hand.place("OUTPUT"), detail="no packet reaches sipfw here")]


@shared
def a_removed_jump_of_ipv6(hand: Hand) -> list[Named]:
    rule_id = "hook.raw.prerouting/2" if hand.is_nft else "hook.raw.prerouting"
    hand.delete(hand.spot(rule_id, "ip6"), "ip6")
    return [Named("missing", "jump", hand.place("PREROUTING", "ip6"))]


@shared
def an_edited_jump(hand: Hand) -> list[Named]:
    rule_id = "hook.raw.prerouting/1" if hand.is_nft else "hook.raw.prerouting"
    spot = hand.spot(rule_id)
    text = f"ip saddr != {STRANGER} {spot.text}" if hand.is_nft else f"! -s {STRANGER} {spot.text}"
    hand.rewrite(spot, text)
    return [Named("changed", "jump", hand.place("PREROUTING"), detail=STRANGER)]


@shared
def a_jump_that_stands_twice(hand: Hand) -> list[Named]:
    rule_id = "hook.raw.prerouting/1" if hand.is_nft else "hook.raw.prerouting"
    spot = hand.spot(rule_id)
    hand.insert(spot, spot.text)
    return [Named("extra", "jump", hand.place("PREROUTING"))]


@shared
def an_element_more(hand: Hand) -> list[Named]:
    hand.elements("add", "trusted4", STRANGER)
    return [Named("extra", "set element", f"{hand.set('trusted4')} {STRANGER}", "trusted_peers")]


@shared
def an_element_less(hand: Hand) -> list[Named]:
    hand.elements("delete", "trusted4", "203.0.113.10")
    where = f"{hand.set('trusted4')} 203.0.113.10"
    return [Named("missing", "set element", where, "trusted_peers")]


@shared
def a_flushed_set(hand: Hand) -> list[Named]:
    name = "admin-nets6" if hand.is_nft else "admin6"
    hand.flush_set(name)
    where = f"{hand.set(name)} 2001:db8:ad::/64"
    return [Named("missing", "set element", where, "admin.networks")]


@shared
def a_set_with_another_timeout(hand: Hand) -> list[Named]:
    old, new = ("timeout 1h", "timeout 2h") if hand.is_nft else ("timeout 3600", "timeout 7200")
    hand.remake_set("banned4", old, new)
    return [Named("changed", "set", hand.set("banned4"), "bans", "timeout 7200, not 3600")]


@shared
def a_smaller_set(hand: Hand) -> list[Named]:
    hand.remake_set("learned4", "65536", "16")
    return [Named("changed", "set", hand.set("learned4"), "learning", "maxelem 16, not 65536")]
