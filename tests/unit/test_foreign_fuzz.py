"""Rules of others that nobody has read before: no answer raises, and none claims to know more."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from sipfw.compare.foreign import ForeignChain, Verdict
from sipfw.kernel.nft import foreign_text as nft_text
from sipfw.kernel.nft.text_listing import parse_nft
from sipfw.kernel.xtables import foreign as iptables
from sipfw.lower.xtables import Family
from sipfw.monitor.doctor.rules import XtablesListing
from sipfw.monitor.host_path import nft, xtables
from sipfw.monitor.host_path.fit import Grant
from sipfw.monitor.host_path.ways import End, HookChains, ends
from sipfw.ruleset.match import PortRange

SIP = PortRange(5060, 5060)
PEER = Grant("SIP", Family.IP, "udp", SIP, ip_network("203.0.113.10"))
FITS = (
    "",
    "-p udp",
    "-s 203.0.113.0/24",
    "-p udp -m udp --dport 5060",
    "-m conntrack --ctstate NEW",
)
FITS_NFT = ("", "udp dport 5060", "ip saddr 203.0.113.0/24", "ct state new", "meta l4proto udp")
# Words that no reader knows; iptables-save and nft print lower case, digits and some signs.
WORD = st.from_regex(r"zz[a-z0-9_./:-]{0,12}", fullmatch=True)
UNKNOWN = st.builds(
    lambda name, options: " ".join([f"-m {name}", *options]),
    WORD,
    st.lists(WORD.map(lambda word: f"--{word} {word}"), max_size=2),
)
LISTED = """
    -p -s -d -i -o -m -j -g ! --dport --sports --syn --tcp-flags --ctstate --match-set --mark
    --src-range --dst-type --queue-num --to-ports --to-destination --helper - -- [:] udp tcp
    DROP DNAT NFQUEUE REDIRECT CT 5060 203.0.113.10 0.0.0.0/0 :: @bad { } . vmap map mark/0x
    ip ip6 saddr daddr dport ct state meta mark set queue to jump goto drop accept -> " \\
"""
KNOWN = [*LISTED.split(), "9" * 20, "\x00", "\x1b[2J"]
JUNK = st.lists(st.one_of(st.sampled_from(KNOWN), st.text(max_size=9)), max_size=14)


def in_iptables(*rules: str) -> list[End]:
    read = tuple(iptables.foreign_rule(f"-A INPUT {rule}", ()) for rule in rules)
    chains = (ForeignChain("INPUT", read),)
    (way,) = xtables.ways(XtablesListing("iptables-legacy", Family.IP, "filter", chains))
    return _both(way)


def in_nft(*rules: str) -> list[End]:
    lines = "".join(f"\t\t{rule}\n" for rule in rules)
    hook = "\t\ttype filter hook input priority filter; policy accept;\n"
    blocks = parse_nft(f"table ip theirs {{\n\tchain in {{\n{hook}{lines}\t}}\n}}\n")
    (way,) = nft.ways(blocks, ())
    return _both(way)


def _both(way: HookChains) -> list[End]:
    found = ends(way, PEER, guess=True)
    assert ends(way, PEER)
    return found


@given(st.sampled_from(FITS), UNKNOWN)
def test_what_iptables_may_drop_is_never_said_to_pass(fits: str, unknown: str) -> None:
    found = in_iptables(f"{fits} {unknown} -j DROP".strip())
    assert {item.accepted for item in found} == {True, False}
    # What may accept hides no rule behind it.
    found = in_iptables(f"{fits} {unknown} -j ACCEPT".strip(), "-j DROP")
    assert not found[-1].accepted
    assert {item.accepted for item in found} == {True, False}


@given(st.sampled_from(FITS), st.from_regex(r"ZZ[A-Z0-9]{0,12}", fullmatch=True))
def test_a_target_that_nobody_knows_may_drop(fits: str, target: str) -> None:
    assert {end.accepted for end in in_iptables(f"{fits} -j {target}".strip())} == {True, False}


@given(st.sampled_from(FITS_NFT), st.lists(WORD, min_size=1, max_size=4))
def test_what_nft_may_drop_is_never_said_to_pass(fits: str, unknown: list[str]) -> None:
    found = in_nft(f"{fits} {' '.join(unknown)} drop".strip())
    assert {item.accepted for item in found} == {True, False}


@given(JUNK)
def test_no_text_makes_a_reader_raise(words: list[str]) -> None:
    line = " ".join(words)
    for rule in (iptables.foreign_rule(f"-A INPUT {line}", {"MORE"}), nft_text.foreign_rule(line)):
        assert rule.verdict in Verdict
        assert all(isinstance(text, str) for text in rule.asks.unsure)
    nft_text.foreign_rule(line, lambda _: line)
    in_iptables(line)
