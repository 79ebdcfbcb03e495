"""Ways to tamper that only iptables and ipset know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tampering_cases import STRANGER, Named, edit, rule

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from tampering_hands import IptablesHand

    Tampering: TypeAlias = Callable[[IptablesHand], list[Named]]

IPTABLES: list[Tampering] = []
PAST = "a rule before it lets packets pass: "


def iptables(tampering: Tampering) -> Tampering:
    IPTABLES.append(tampering)
    return tampering


def passed(hand: IptablesHand, detail: str, hook: str = "PREROUTING") -> list[Named]:
    """Name a jump that packets get past."""
    return [Named("moved", "jump", hand.place(hook), detail=PAST + detail)]


@iptables
def a_jump_moved_behind_an_accept(hand: IptablesHand) -> list[Named]:
    spot = hand.spot("hook.raw.prerouting")
    hand.load("raw", "-D PREROUTING 1", "-A PREROUTING -j ACCEPT", f"-A PREROUTING {spot.text}")
    return passed(hand, "-A PREROUTING -j ACCEPT")


@iptables
def an_accept_of_one_source_before_the_jump(hand: IptablesHand) -> list[Named]:
    hand.load("raw", f"-I PREROUTING -s {STRANGER} -j ACCEPT")
    return passed(hand, f"-A PREROUTING -s {STRANGER}/32 -j ACCEPT")


@iptables
def an_accept_before_the_jump_of_the_host_part(hand: IptablesHand) -> list[Named]:
    hand.load("filter", "-I INPUT -p tcp -m tcp --dport 3306 -j ACCEPT")
    return passed(hand, "-A INPUT -p tcp -m tcp --dport 3306 -j ACCEPT", "INPUT")


@iptables
def a_return_before_the_jump(hand: IptablesHand) -> list[Named]:
    hand.load("raw", f"-I OUTPUT -d {STRANGER} -j RETURN")
    return passed(hand, f"-A OUTPUT -d {STRANGER}/32 -j RETURN", "OUTPUT")


@iptables
def an_accept_that_hides_in_a_chain(hand: IptablesHand) -> list[Named]:
    hand.load(
        "raw",
        ":OUTER - [0:0]",
        ":INNER - [0:0]",
        "-A OUTER -p udp -j INNER",
        f"-A INNER -s {STRANGER} -j ACCEPT",
        "-I PREROUTING -j OUTER",
    )
    return passed(hand, f"-A PREROUTING -j OUTER and there -A INNER -s {STRANGER}/32 -j ACCEPT")


@iptables
def an_accept_that_hides_behind_a_comment(hand: IptablesHand) -> list[Named]:
    line = f'-s {STRANGER}/32 -m comment --comment "only -i lo , see there" -j ACCEPT'
    hand.load("raw", f"-I PREROUTING {line}")
    return passed(hand, f"-A PREROUTING {line}")


@iptables
def a_goto_before_the_jump(hand: IptablesHand) -> list[Named]:
    hand.load("raw", ":THEIRS - [0:0]", f"-I PREROUTING -s {STRANGER} -g THEIRS")
    return passed(hand, f"-A PREROUTING -s {STRANGER}/32 -g THEIRS")


@iptables
def a_queue_before_the_jump(hand: IptablesHand) -> list[Named]:
    hand.load("raw", "-I PREROUTING -p udp -j NFQUEUE --queue-num 7 --queue-bypass")
    return passed(hand, "-A PREROUTING -p udp -j NFQUEUE --queue-num 7 --queue-bypass")


@iptables
def a_second_jump_without_our_comment(hand: IptablesHand) -> list[Named]:
    hand.load("raw", "-A PREROUTING -j SIPFW_PREROUTING")
    return [Named("extra", "jump", hand.place("PREROUTING"), detail="-j SIPFW_PREROUTING")]


@iptables
def a_way_into_our_chain_from_a_foreign_one(hand: IptablesHand) -> list[Named]:
    hand.load("raw", ":THEIRS - [0:0]", "-A THEIRS -p udp -g SIP_BAN")
    return [Named("extra", "jump", "IPv4 raw THEIRS", detail="-A THEIRS -p udp -g SIP_BAN")]


@iptables
def our_comment_in_a_foreign_chain(hand: IptablesHand) -> list[Named]:
    text = hand.spot("ban.drop").text
    hand.load(
        "filter", ":DOCKER-USER - [0:0]", "-A DOCKER-USER -j RETURN", f"-A DOCKER-USER {text}"
    )
    return [rule_in(hand, "DOCKER-USER", "ban.drop", text)]


def rule_in(hand: IptablesHand, chain: str, rule_id: str, text: str) -> Named:
    del hand
    return Named("extra", "rule", f"IPv4 filter {chain} {rule_id}", detail=text)


@iptables
def our_chain_in_another_table(hand: IptablesHand) -> list[Named]:
    text = hand.spot("ban.drop").text
    hand.load("mangle", ":SIP_BAN - [0:0]", f"-A SIP_BAN {text}")
    return [Named("extra", "chain", "IPv4 mangle SIP_BAN")]


@iptables
def our_jump_in_another_hook(hand: IptablesHand) -> list[Named]:
    text = hand.spot("hook.filter.input").text
    hand.load("filter", f"-A FORWARD {text}")
    return [Named("extra", "jump", "IPv4 filter FORWARD", detail="-j SIPFW_INPUT")]


@iptables
def open_connections_accepted_before_us(hand: IptablesHand) -> list[Named]:
    """What is said on them is judged behind our jump, and nowhere else."""
    hand.load("filter", "-I INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
    detail = "a rule before it lets packets pass: -A INPUT -m conntrack --ctstate RELATED"
    return [Named("moved", "jump", hand.place("INPUT"), detail=detail)]


@iptables
def a_changed_signature(hand: IptablesHand) -> list[Named]:
    edit(hand, "scanner.ua.user-evildialer", "EvilDialer", "NiceDialer")
    place = "SIP_TEXTS scanner.ua.user-evildialer"
    return [rule(hand, "changed", place, "scanners.user_agents", "NiceDialer")]


@iptables
def a_search_that_ends_early(hand: IptablesHand) -> list[Named]:
    edit(hand, "scanner.ua.user-evildialer", "--from 28", "--from 28 --to 29")
    place = "SIP_TEXTS scanner.ua.user-evildialer"
    return [rule(hand, "changed", place, "scanners.user_agents", "--to 29")]


@iptables
def more_hits_allowed(hand: IptablesHand) -> list[Named]:
    edit(hand, "recent.exceeded", "--packets-gt 20", "--packets-gt 99")
    place = "SIP_RECENT recent.exceeded"
    return [rule(hand, "changed", place, "limits.recent", "--packets-gt 99")]


@iptables
def a_policy_that_drops_what_sipfw_lets_through(hand: IptablesHand) -> list[Named]:
    hand.load("raw", ":PREROUTING DROP [0:0]")
    detail = "policy DROP, which was ACCEPT at the apply"
    return [Named("changed", "chain", hand.place("PREROUTING"), detail=detail)]


@iptables
def a_set_that_counts(hand: IptablesHand) -> list[Named]:
    hand.remake_set("pending4", "timeout 32", "timeout 32 counters")
    return [Named("changed", "set", "sipfw-pending4", "learning", "counters")]


@iptables
def a_set_of_another_type(hand: IptablesHand) -> list[Named]:
    """No set in use can change its type: the rules go before it and come back behind it."""
    tables = ("raw", "filter")
    saved = "".join(hand.host.tool("iptables-save", "-t", table) for table in tables)
    for table in tables:
        hand.host.tool("iptables-restore", text=f"*{table}\nCOMMIT\n")
    hand.destroy("sipfw-learned4")
    hand.host.run("ipset", "create", "sipfw-learned4", "hash:net", "timeout", "3600")
    hand.host.tool("iptables-restore", text=saved)
    return [Named("changed", "set", "sipfw-learned4", "learning", "type hash:net, not hash:ip")]


@iptables
def a_set_of_wider_addresses(hand: IptablesHand) -> list[Named]:
    hand.remake_set("learned4", "timeout 3600", "timeout 3600 netmask 8")
    return [Named("changed", "set", "sipfw-learned4", "learning", "netmask 8, not absent")]


@iptables
def a_set_too_many(hand: IptablesHand) -> list[Named]:
    hand.host.run("ipset", "create", "sipfw-spare4", "hash:ip")
    return [Named("extra", "set", "sipfw-spare4")]


@iptables
def an_exception_in_a_set_of_networks(hand: IptablesHand) -> list[Named]:
    hand.host.run("ipset", "add", "sipfw-admin4", "192.0.2.4/30", "nomatch")
    return [Named("extra", "set element", "sipfw-admin4 192.0.2.4/30 nomatch", "admin.networks")]


@iptables
def everything_flushed(hand: IptablesHand) -> list[Named]:
    hand.host.tool("iptables-restore", text="*filter\nCOMMIT\n")
    streams = "DATA TEXTS TOOL HEARD BANNED REGISTERED NOTES REGISTER PIPELINED REQUEST LOGIN"
    chains = ["SIPFW_INPUT", "SIP_CONNECTIONS", "SIP_COMPLETED", "SIP_HOST", "SIP_LOST"]
    chains += ["SIP_STREAM", *(f"SIP_STREAM_{name}" for name in streams.split())]
    return [
        *(Named("missing", "chain", hand.place(name), ": ") for name in chains),
        Named("missing", "jump", hand.place("INPUT"), detail="no packet reaches sipfw here"),
    ]
