"""What happens to a live ruleset every day: nothing of it is a difference."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, TypeAlias

from neighbours import CROWDSEC, DOCKER, FAIL2BAN, FIREWALLD, FREEPBX, UFW
from tampering_cases import STRANGER
from tampering_hands import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from neighbours import Neighbour
    from tampering_hands import Hand, IptablesHand, NftHand

Change: TypeAlias = "Callable[[Hand], None]"
IptablesChange: TypeAlias = "Callable[[IptablesHand], None]"
NftChange: TypeAlias = "Callable[[NftHand], None]"

EVERYWHERE: list[Change] = []
IPTABLES: list[IptablesChange] = []
NFTABLES: list[NftChange] = []

LIBVIRT = """\
*filter
:LIBVIRT_INP - [0:0]
-I INPUT 1 -j LIBVIRT_INP
-A LIBVIRT_INP -i virbr0 -p udp -m udp --dport 53 -j ACCEPT
-A LIBVIRT_INP -i virbr0 -p udp -m udp --dport 67 -j ACCEPT
COMMIT
"""
SEND = """\
import socket
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        for _ in range(20):
            sender.sendto(b"OPTIONS sip:a SIP/2.0\\r\\n\\r\\n", (address, 5060))
"""


def everywhere(change: Change) -> Change:
    EVERYWHERE.append(change)
    return change


def iptables(change: IptablesChange) -> IptablesChange:
    IPTABLES.append(change)
    return change


def nftables(change: NftChange) -> NftChange:
    NFTABLES.append(change)
    return change


def appears(hand: Hand, neighbour: Neighbour, *, first: bool = False) -> None:
    """Load what another tool makes; `first` puts it before everything in a built-in chain."""
    if neighbour.ipset:
        hand.host.run("ipset", "restore", text=neighbour.ipset)
    for command, text in neighbour.restore.items():
        lines = re.sub(r"^-A (INPUT|PREROUTING) ", r"-I \1 1 ", text, flags=re.MULTILINE)
        hand.host.tool(f"{command}-restore", "--noflush", text=lines if first else text)
    if neighbour.nft:
        hand.host.run("nft", "-f", "-", text=neighbour.nft)


@everywhere
def traffic(hand: Hand) -> None:
    hand.host.run("python3", "-c", SEND)
    assert hand.counted("entry.loopback") > 0


@everywhere
def docker_starts(hand: Hand) -> None:
    appears(hand, DOCKER)


@everywhere
def docker_guards_a_container_before_us(hand: Hand) -> None:
    appears(hand, DOCKER, first=True)


@everywhere
def fail2ban_starts(hand: Hand) -> None:
    appears(hand, FAIL2BAN, first=True)


@everywhere
def crowdsec_starts(hand: Hand) -> None:
    appears(hand, CROWDSEC)


@everywhere
def ufw_starts(hand: Hand) -> None:
    appears(hand, UFW)
    for command in COMMANDS.values():
        hand.host.tool(command, "-P", "INPUT", "DROP")


@everywhere
def freepbx_starts(hand: Hand) -> None:
    appears(hand, FREEPBX)


@everywhere
def firewalld_starts(hand: Hand) -> None:
    appears(hand, FIREWALLD)


@everywhere
def libvirt_starts(hand: Hand) -> None:
    hand.host.tool("iptables-restore", "--noflush", text=LIBVIRT)


@everywhere
def somebody_has_sets_and_tables_of_his_own(hand: Hand) -> None:
    hand.host.run("ipset", "create", "blocked", "hash:ip")
    hand.host.run("nft", "add", "table", "ip", "sipfw2")
    hand.host.run("nft", "add", "set", "ip", "sipfw2", "banned4", "{ type ipv4_addr; }")


@everywhere
def somebody_is_banned(hand: Hand) -> None:
    hand.elements("add", "banned4", STRANGER)


@everywhere
def a_ban_expires(hand: Hand) -> None:
    hand.elements("add", "banned4", f"198.51.100.67 timeout {'1s' if hand.is_nft else '1'}")
    time.sleep(1.1)


@everywhere
def somebody_is_learned(hand: Hand) -> None:
    hand.elements("add", "learned6", "2001:db8:66::", "2001:db8:67::")


@everywhere
def failures_are_counted(hand: Hand) -> None:
    limit = "" if hand.is_nft else " packets 5 bytes 500"
    hand.elements("add", "failures4", f"{STRANGER}{limit}")


@everywhere
def all_bans_are_lifted(hand: Hand) -> None:
    hand.flush_set("banned4")


@everywhere
def connections_are_forgotten(hand: Hand) -> None:
    hand.host.run("conntrack", "-F")


@everywhere
def an_interface_comes(hand: Hand) -> None:
    hand.host.run("ip", "link", "add", "name", "eth7", "type", "bridge")
    hand.host.run("ip", "link", "set", "eth7", "up")
    hand.host.run("ip", "link", "delete", "eth7")


@everywhere
def a_rule_is_written_as_it_was(hand: Hand) -> None:
    spot = hand.spot("rate.hashlimit")
    hand.rewrite(spot, spot.text)


@everywhere
def the_same_firewall_is_restored(hand: Hand) -> None:
    hand.host.must("restore")


@iptables
def counters_are_zeroed(hand: IptablesHand) -> None:
    for command in COMMANDS.values():
        for table in ("raw", "filter"):
            hand.host.tool(command, "-t", table, "-Z")


@iptables
def a_saved_listing_is_restored(hand: IptablesHand) -> None:
    for command in COMMANDS.values():
        for options in ((), ("-c",)):
            saved = hand.host.tool(f"{command}-save", *options)
            hand.host.tool(f"{command}-restore", *options, text=saved)


@iptables
def saved_sets_are_restored(hand: IptablesHand) -> None:
    hand.host.run("ipset", "restore", "-exist", text=hand.host.run("ipset", "save"))


@iptables
def a_set_grows(hand: IptablesHand) -> None:
    hand.remake_set("learned4", "hashsize 16384", "hashsize 65536")


@iptables
def recent_sources_are_kept(hand: IptablesHand) -> None:
    hand.elements("add", "recent4", f"{STRANGER} packets 5 bytes 500")


@iptables
def loopback_is_accepted_before_us(hand: IptablesHand) -> None:
    hand.load("raw", "-I PREROUTING -i lo -j ACCEPT")
    hand.load("filter", "-I INPUT -i lo -j ACCEPT")


@iptables
def rules_before_us_that_let_nothing_past(hand: IptablesHand) -> None:
    hand.load(
        "raw",
        ":BLOCK - [0:0]",
        f"-A BLOCK -s {STRANGER} -j RETURN",
        "-A BLOCK -j DROP",
        "-I PREROUTING -p udp -m udp --dport 53 -j CT --notrack",
        f'-I PREROUTING -s {STRANGER} -m comment --comment "no -j ACCEPT here" -j DROP',
        "-I PREROUTING -s 203.0.113.99 -g BLOCK",
        "-I PREROUTING -m limit --limit 1/min -j TRACE",
    )


@iptables
def rules_behind_us(hand: IptablesHand) -> None:
    hand.load("raw", f"-A PREROUTING -s {STRANGER} -j ACCEPT", "-A OUTPUT -j ACCEPT")
    hand.load("filter", "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT")


@iptables
def input_is_shut(hand: IptablesHand) -> None:
    hand.load("filter", ":INPUT DROP [0:0]")


@nftables
def another_table_accepts_before_us(hand: NftHand) -> None:
    hook = "type filter hook prerouting priority -310; policy accept;"
    hand.nft(f"table ip early {{ chain c {{ {hook}\n accept; }}; }}\n")


@nftables
def an_element_has_a_comment(hand: NftHand) -> None:
    hand.elements("delete", "trusted4", "203.0.113.10")
    hand.elements("add", "trusted4", '203.0.113.10 comment "carrier a"')


@nftables
def named_counters_are_reset(hand: NftHand) -> None:
    hand.nft("add counter inet sipfw theirs { packets 5 bytes 6; }\n")
    hand.host.run("nft", "reset", "counters", "table", "inet", "sipfw")
