"""Ways to tamper that only nftables knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tampering_cases import STRANGER, Named, edit, rule

from sipfw.kernel.netlink.rules import fill_chain, read_chain

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from tampering_hands import NftHand

    Tampering: TypeAlias = Callable[[NftHand], list[Named]]

NFTABLES: list[Tampering] = []
HOOK = "type filter hook prerouting priority -300; policy accept;"


def nftables(tampering: Tampering) -> Tampering:
    NFTABLES.append(tampering)
    return tampering


def hooks(kind: str, name: str, detail: str = "") -> list[Named]:
    """Name the jumps of both families."""
    return [
        Named(kind, "jump", f"{family} sipfw {name}", detail=detail) for family in ("IPv4", "IPv6")
    ]


@nftables
def a_dormant_table(hand: NftHand) -> list[Named]:
    hand.nft("table inet sipfw {\n\tflags dormant\n}\n")
    return [Named("changed", "table", "inet sipfw", detail="dormant: no packet reaches sipfw")]


@nftables
def an_accept_before_our_rules(hand: NftHand) -> list[Named]:
    hand.nft(f"insert rule inet sipfw raw_prerouting ip saddr {STRANGER} accept\n")
    return [
        *hooks("extra", "raw_prerouting", STRANGER),
        *hooks("moved", "raw_prerouting", "a rule before it lets packets pass: "),
    ]


@nftables
def a_rule_behind_ours_in_a_hook(hand: NftHand) -> list[Named]:
    hand.nft(f"add rule inet sipfw raw_prerouting ip saddr {STRANGER} drop\n")
    return hooks("extra", "raw_prerouting", STRANGER)


@nftables
def rules_in_another_order_in_a_hook(hand: NftHand) -> list[Named]:
    """Each family has its own, so their order changes nothing, and nothing is named."""
    spot = hand.spot("hook.raw.output/1")
    hand.delete(spot)
    hand.append("OUTPUT", spot.text)
    return []


def rehook(hand: NftHand, line: str) -> None:
    """Put another base chain with the same rules in the place of ours."""
    rules = [hand.spot(f"hook.raw.prerouting/{number}").text for number in (1, 2)]
    name = "chain inet sipfw raw_prerouting"
    lines = [f"flush {name}", f"delete {name}", f"add {name} {{ {line} }}"]
    lines += [f"add rule inet sipfw raw_prerouting {text}" for text in rules]
    hand.nft("\n".join([*lines, ""]))


@nftables
def a_later_priority(hand: NftHand) -> list[Named]:
    line = HOOK.replace("-300", "300")
    rehook(hand, line)
    return [
        *hooks("missing", "raw_prerouting", "its chain is hooked otherwise"),
        *hooks("extra", f"raw_prerouting ({line})"),
    ]


@nftables
def another_hook(hand: NftHand) -> list[Named]:
    line = HOOK.replace("hook prerouting", "hook forward")
    rehook(hand, line)
    return [
        *hooks("missing", "raw_prerouting", "its chain is hooked otherwise"),
        *hooks("extra", f"raw_prerouting ({line})"),
    ]


@nftables
def a_policy_that_drops(hand: NftHand) -> list[Named]:
    hand.nft("chain inet sipfw filter_input { policy drop; }\n")
    line = "type filter hook input priority 0; policy drop;"
    return [
        *hooks("missing", "filter_input", "its chain is hooked otherwise"),
        *hooks("extra", f"filter_input ({line})"),
    ]


@nftables
def a_hook_without_rules(hand: NftHand) -> list[Named]:
    hand.nft("chain inet sipfw wall { type filter hook input priority 5; policy drop; }\n")
    return [Named("extra", "chain", "inet sipfw wall")]


@nftables
def a_strange_chain(hand: NftHand) -> list[Named]:
    hand.nft("table inet sipfw { chain theirs { drop; }; }\n")
    return [Named("extra", "chain", "inet sipfw theirs")]


@nftables
def a_namesake_of_our_searches(hand: NftHand) -> list[Named]:
    hand.nft("add chain inet sipfw SIP_TEXTS4_text_00000000\n")
    return [Named("extra", "chain", "IPv4 sipfw SIP_TEXTS_text")]


@nftables
def a_copy_of_our_rule_in_a_chain_of_theirs(hand: NftHand) -> list[Named]:
    hand.nft("table inet sipfw { chain THEIRS4 { accept; }; }\n")
    hand.append("THEIRS", hand.spot("ban.drop").text)
    return [Named("extra", "rule", "IPv4 sipfw THEIRS ban.drop", detail="drop")]


@nftables
def a_flushed_hook(hand: NftHand) -> list[Named]:
    hand.nft("flush chain inet sipfw raw_prerouting\n")
    return hooks("missing", "raw_prerouting", "no packet reaches sipfw here")


@nftables
def a_rule_that_no_longer_counts(hand: NftHand) -> list[Named]:
    edit(hand, "ban.drop", "counter packets 0 bytes 0 ", "")
    return [rule(hand, "changed", "SIP_BAN ban.drop", "bans")]


def search(hand: NftHand, old: bytes, new: bytes) -> list[Named]:
    """Fill a chain of searches anew, one of them for something else under its old comment."""
    chain = hand.spot("scanner.ua.user-evildialer").chain

    def refill() -> None:
        found = read_chain(chain)
        rules = [
            type(each)(each.comment, each.pattern.replace(old, new), each.from_offset, each.verdict)
            for each in found
        ]
        assert {each.pattern for each in rules} != {each.pattern for each in found}
        fill_chain(chain, rules)

    hand.inside.submit(refill).result()
    place = "SIP_TEXTS_text scanner.ua.user-evildialer"
    detail = f"searches {repr(new)[1:]} from byte 28, not {repr(old)[1:]} from byte 28"
    return [rule(hand, "changed", place, "scanners.user_agents", detail)]


@nftables
def a_changed_signature(hand: NftHand) -> list[Named]:
    return search(hand, b"EvilDialer", b"NiceDialer")


@nftables
def a_set_too_many(hand: NftHand) -> list[Named]:
    hand.nft("add set inet sipfw spare4 { type ipv4_addr; }\n")
    return [Named("extra", "set", "spare4")]


@nftables
def a_deleted_set(hand: NftHand) -> list[Named]:
    hand.flush("SIP_REPEATED")
    hand.nft("delete set inet sipfw tried4\n")
    ids = ("again", "first", "drop")
    return [
        *(rule(hand, "missing", f"SIP_REPEATED repeated.{name}", ": ") for name in ids),
        Named("missing", "set", "tried4", "learning"),
    ]


@nftables
def a_network_that_holds_one_of_ours(hand: NftHand) -> list[Named]:
    hand.elements("delete", "admin-nets4", "192.0.2.0/28")
    hand.elements("add", "admin-nets4", "192.0.2.0/24")
    return [
        Named("missing", "set element", "admin-nets4 192.0.2.0/28", "admin.networks"),
        Named("extra", "set element", "admin-nets4 192.0.2.0/24", "admin.networks"),
    ]
