from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from pydantic import ValidationError

from sipfw.diagnostics import Severity
from sipfw.policy.common_texts import why_common
from sipfw.policy.signatures import (
    Anchor,
    Risk,
    Signature,
    Tier,
    Where,
    check_text,
    select,
    shipped_signatures,
)

DATA = Path(__file__).parents[1] / "data"
PACKAGE = Path(str(files("sipfw"))) / "data"
SHIPPED = shipped_signatures()
BLOCK = [signature for signature in SHIPPED if signature.tier is Tier.BLOCK]
BY_ID = {signature.id: signature for signature in SHIPPED}
USER_AGENTS = [
    line
    for line in (PACKAGE / "legitimate_user_agents.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
LEGITIMATE = sorted((DATA / "legitimate_messages").glob("*.sip"))
ATTACKS = sorted((DATA / "attack_messages").glob("*.sip"))
COMMON = (
    "SIP/2.0",
    "sip/2.0",
    "INVITE",
    "REGISTER",
    "Via:",
    "v:",
    "CSeq",
    "From",
    "sip:",
    "User-Agent",
    "User-Agent: ",
    "branch=z9hG4bK",
    "Max-Forwards: 70",
    "m=audio",
    "PCMU/8000",
    "a",
    " ",
)
CAUGHT_BY = {
    "erase-registrations": {"hacker"},
    "modified-sipvicious-options": {"sipvicious-svmap-target"},
    "mr-sip-invite": {"mr-sip-sdp"},
    "nmap-nse-options": {"nmap-nse"},
    "nmap-nse-register": {"nmap-nse"},
    "nmap-version-probe": {"nmap-version-probe"},
    "nmap-version-probe-tcp": {"nmap-version-probe"},
    "sipcli-invite": {"sipcli"},
    "sippts-invite-changed-agent": {"sippts-session-name"},
    "sippts-register": {"pplsip"},
    "sipsak-options": {"sipsak", "sipsak-uri"},
    "sipsak-register": {"sipsak"},
    "sivus-discovery": {"sivus-uri"},
    "sivus-options": {"sivus"},
    "smap-options": {"smap-uri"},
    "sundayddr-options": {"sundayddr"},
    "svcrack-register": {"friendly-scanner", "sipvicious-svcrack-contact"},
    "svmap-invite": {"friendly-scanner", "sipvicious-svmap-name", "sipvicious-svmap-target"},
    "svmap-options": {"friendly-scanner", "sipvicious-svmap-name", "sipvicious-svmap-target"},
    "svwar-register": {"friendly-scanner"},
    "vax-invite": {"vax-sip-user-agent"},
    "viproy-options": {"viproy"},
}

# Names that begin, end or look like the name of a tool. Some are real, the others may be tomorrow.
NEAR_NAMES = [
    "sipclient-lite/2.1",
    "sipclipper 3",
    "SIPClient-macOS/0.1.0",
    "SoftphoneSIPClient 2.2",
    "sipp-gateway/1.0",
    "SIPPing",
    "SIPPTSoft 2",
    "vicious-sip",
    "sipscanada",
    "SIPScanner Gateway 1.0",
    "sip-scania/3",
    "sip-scanner-app",
    "scanSIPhone",
    "sipsakura",
    "sip-sak",
    "sundayd/1",
    "SundayDrive",
    "friendly-phone",
    "user-friendly-request",
    "VaxPhone 2",
    "VaxSIPPhone",
    "Vaxtor 3",
    "SIPUserAgent/1",
    "pplsipphone",
    "applsip",
    "smapp",
    "smapp-sdk-go/1.4",
    "Smappen 1.0",
    "iWarehouse 2",
    "iWarranty",
    "iWarp 9",
    "Gulper",
    "Gulpener Phone",
    "sivusto",
    "Sivusto 1.0",
    "SIVuSoft",
    "siparmy",
    "Viproyal",
    "Hackerspace Phone 1",
    "HackerOne",
    "Hackers 95",
    "nsaudit",
    "NmapPhone",
    "Nmapper 1",
    "CensysInspector",
    "SipRegistrar 5",
    "Custom SIP Gateway",
    "customsip",
    "Test Agent Desktop",
    "TestAgents",
    "SIP Caller 1",
    "SIP Call Center 4",
    "SimpleSIPPhone",
    "VoIPSecure",
    "China Telecom IMS",
    "PBX 2000",
    "Trixbox CE",
    "eyeBeam-next 2",
    "eyeBeam release 3006o",
    "Cisco-SIPGateway/IOS-17.6.5",
    "Ozeki Phone System XE",
    "FourCatsCafe",
    "A_B_C_D",
    "dr.pesticide",
]
# The names of the tools themselves, where somebody else may write them.
TOOLS = [
    "sipcli",
    "sipvicious",
    "sundayddr",
    "smap",
    "sivus",
    "iwar",
    "gulp",
    "pplsip",
    "sip-scan",
    "sipscan",
    "hacker",
    "viproy",
    "nsauditor",
    "siparmyknife",
    "friendly-request",
    "vaxsipuseragent",
    "vaxuseragent",
]
NEAR_LINES = [
    "s=SIPPTS Conference",
    "s=sippts-soft",
    f"Contact: <sip:123@1.1.1.1{0}>",
    f"Contact: sip:123@1.1.1.1{2}",
    f"To: <sip:100@1.1.1.1{0}>",
    "To: <sip:1100@1.1.1.1>",
    "To: <sip:smap@pbx.example.com>",
    "To: <sip:smapp@localhost>",
    "To: <sip:sivusto@pbx.example.com>",
    "To: <sip:sipsakura@pbx.example.com>",
    'From: "sipvicious fan" <sip:7@pbx.example.com>',
    "From: <sip:sipp@pbx.example.com>",
    "Via: SIP/2.0/UDP nm;branch=z9hG4bKfoo",
    "Via: SIP/2.0/UDP 192.0.2.1;branch=foobar",
    "Subject: Performance Testing next week",
    "Subject: to-be!sure",
]


def hits(signature: Signature, datagram: bytes) -> bool:
    """Match as the kernel does: fixed offset byte for byte, search with --icase."""
    if signature.offset_zero:
        return datagram.startswith(signature.pattern)
    return signature.pattern.lower() in datagram.lower()


def hit_ids(datagram: bytes, signatures: list[Signature] = BLOCK) -> set[str]:
    return {signature.id for signature in signatures if hits(signature, datagram)}


def catches_all_of(outer: Signature, inner: Signature) -> bool:
    """Tell whether every packet that `inner` hits is hit by `outer` too."""
    if outer.offset_zero:
        return inner.offset_zero and inner.pattern.startswith(outer.pattern)
    return outer.pattern.lower() in inner.pattern.lower()


def message(*lines: str, body: str = "") -> bytes:
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode("ascii")


def register(user_agent: str, display_name: str = "Alice") -> bytes:
    return message(
        "REGISTER sip:pbx.example.com SIP/2.0",
        "Via: SIP/2.0/UDP 198.51.100.20:5060;branch=z9hG4bK-3a7f9c1e;rport",
        "Max-Forwards: 70",
        f'From: "{display_name}" <sip:100@pbx.example.com>;tag=1c1f0e9d',
        f'To: "{display_name}" <sip:100@pbx.example.com>',
        "Call-ID: 2f6b7c8d-1a2b3c4d@198.51.100.20",
        "CSeq: 1 REGISTER",
        "Contact: <sip:100@198.51.100.20:5060;transport=udp>;expires=3600",
        f"User-Agent: {user_agent}",
    )


def invite(user_agent: str) -> bytes:
    return message(
        "INVITE sip:00441632960123@pbx.example.com SIP/2.0",
        "Via: SIP/2.0/UDP 198.51.100.20:5060;branch=z9hG4bK-3a7f9c1e;rport",
        "Max-Forwards: 70",
        "From: <sip:100@pbx.example.com>;tag=1c1f0e9d",
        "To: <sip:00441632960123@pbx.example.com>",
        "Call-ID: 2f6b7c8d-1a2b3c4e@198.51.100.20",
        "CSeq: 1 INVITE",
        "Contact: <sip:100@198.51.100.20:5060>",
        f"User-Agent: {user_agent}",
        "Content-Type: application/sdp",
        body="v=0\r\no=- 1700000000 1 IN IP4 198.51.100.20\r\ns=-\r\nc=IN IP4 198.51.100.20\r\n"
        "t=0 0\r\nm=audio 11780 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n",
    )


def between(name: str) -> bytes:
    """Return an INVITE that has the name as user, host, domain, Call-ID, tag, header and text."""
    return message(
        f"INVITE sip:{name}@{name}.example.com SIP/2.0",
        f"Via: SIP/2.0/UDP {name}.example.com:5060;branch=z9hG4bK{name};rport",
        "Max-Forwards: 70",
        f'From: "the {name}" <sip:{name}@my{name}.example.com>;tag={name}',
        f"To: <sip:{name}@{name}>",
        f"Call-ID: {name}@{name}.example.com",
        "CSeq: 1 INVITE",
        f"Contact: <sip:{name}@198.51.100.20:5060>",
        f"X-Route: {name}",
        f"Subject: about {name}",
        "User-Agent: Acme 1.0",
        "Content-Type: application/sdp",
        body=f"v=0\r\no={name} 1 1 IN IP4 198.51.100.20\r\ns={name}\r\n",
    )


def built_from(signature: Signature) -> bytes:
    """Put the text where its tool puts it, written apart from `Signature.pattern`."""
    match signature.where:
        case Where.USER_AGENT:
            return register(signature.text)
        case Where.MARK if signature.anchor is Anchor.ENDS:
            return invite("Mozilla").replace(b"s=-", signature.text.encode("ascii"))
        case Where.MARK:
            return register("Mozilla", display_name=signature.text)
        case Where.REQUEST_LINE:
            return signature.text.encode("ascii") + b"\r\nVia: SIP/2.0/UDP nm\r\n\r\n"


def made(**fields: object) -> Signature:
    entry = {"id": "x", "text": "EvilDialer", "where": "user_agent", "tier": "block"}
    return Signature.model_validate({**entry, "risk": "none", "source": "test", **fields})


class TestShippedData:
    def test_ids_are_unique(self) -> None:
        assert len(BY_ID) == len(SHIPPED)
        assert not [name for name in BY_ID if name.startswith("user-")]

    def test_patterns_are_unique(self) -> None:
        patterns = [(s.offset_zero, s.pattern.lower()) for s in SHIPPED]
        assert len(set(patterns)) == len(patterns)

    @pytest.mark.parametrize("signature", SHIPPED, ids=lambda s: s.id)
    def test_pattern_is_what_the_kernel_takes(self, signature: Signature) -> None:
        assert 1 <= len(signature.pattern) <= 128
        assert signature.text.isascii()
        assert signature.text.isprintable()

    def test_no_block_entry_is_made_redundant_by_another(self) -> None:
        redundant = [
            (inner.id, outer.id)
            for outer in BLOCK
            for inner in BLOCK
            if inner is not outer and catches_all_of(outer, inner)
        ]
        assert redundant == []

    def test_block_tier_stays_small_and_safe(self) -> None:
        assert 20 <= len(BLOCK) <= 30
        assert [s.id for s in BLOCK if s.risk is Risk.HIGH] == []

    @pytest.mark.parametrize("signature", BLOCK, ids=lambda s: s.id)
    def test_short_block_texts_are_anchored(self, signature: Signature) -> None:
        if len(signature.text) < 6:
            assert signature.anchor is not Anchor.CONTAINS

    @pytest.mark.parametrize("signature", SHIPPED, ids=lambda s: s.id)
    def test_danger_is_explained(self, signature: Signature) -> None:
        if signature.tier is Tier.NEVER or signature.id == "sipsak":
            assert signature.note

    @pytest.mark.parametrize(
        "user_agent",
        [
            "friendly-scanner",
            "VaxSIPUserAgent",
            "VaxSIPUserAgent/3.5",
            "sipvicious",
            "sipvicious 0.3.3",
            "SIPScan",
            "sipcli",
            "sipcli/v1.8",
        ],
    )
    def test_published_list_is_on_by_default(self, user_agent: str) -> None:
        assert hit_ids(register(user_agent))

    @pytest.mark.parametrize("signature", SHIPPED, ids=lambda s: s.id)
    def test_a_short_word_is_never_searched_alone(self, signature: Signature) -> None:
        """A word of a few letters begins other words; the end of the line, or a sign, bounds it."""
        if signature.tier is Tier.NEVER or signature.anchor in (Anchor.EXACT, Anchor.ENDS):
            return
        assert len(signature.text) > 6 or not signature.text.isalpha()


class TestLegitimateTraffic:
    def test_corpus_is_large(self) -> None:
        assert len(set(USER_AGENTS)) == len(USER_AGENTS) >= 390
        assert len(LEGITIMATE) >= 5

    @pytest.mark.parametrize("user_agent", USER_AGENTS)
    def test_real_user_agent_passes(self, user_agent: str) -> None:
        assert hit_ids(register(user_agent)) == set()
        assert hit_ids(invite(user_agent)) == set()

    def test_only_a_pose_or_an_sdk_is_real_and_optional(self) -> None:
        """What an operator switches on may hit a product, and says so; nothing else does."""
        optional = [s for s in SHIPPED if s.tier is Tier.OPTIONAL]
        hit = {s.id for s in optional for ua in USER_AGENTS if hits(s, register(ua))}
        assert hit == {"eyebeam-stamp-17551", "eyebeam-stamp-17816", "ozeki"}
        assert not [s.id for s in optional if s.id in hit and not s.note]

    @pytest.mark.parametrize("name", NEAR_NAMES)
    def test_near_name_passes_as_any_part_of_a_message(self, name: str) -> None:
        """No tier but `never`: an optional entry that hits a near name is as wrong."""
        searched = [signature for signature in SHIPPED if signature.tier is not Tier.NEVER]
        user = name.lower().replace(" ", "-").replace("/", "-")
        assert hit_ids(register(name), searched) == set()
        assert hit_ids(register(f"Acme {name} 7"), searched) == set()
        assert hit_ids(register("Acme", display_name=name), searched) == set()
        assert hit_ids(between(user), searched) == set()

    @pytest.mark.parametrize("name", TOOLS)
    def test_the_name_of_a_tool_passes_where_the_tool_does_not_write_it(self, name: str) -> None:
        """A user, a domain and a Call-ID may carry the very word; who wrote it is not the tool."""
        assert hit_ids(between(name)) == set()

    @pytest.mark.parametrize("line", NEAR_LINES)
    def test_near_line_passes(self, line: str) -> None:
        searched = [signature for signature in SHIPPED if signature.tier is not Tier.NEVER]
        datagram = invite("Acme").replace(b"s=-", line.encode("ascii"))
        assert hit_ids(datagram, searched) == set()

    @pytest.mark.parametrize("path", LEGITIMATE, ids=lambda p: p.stem)
    def test_real_message_passes(self, path: Path) -> None:
        assert hit_ids(path.read_bytes()) == set()

    @pytest.mark.parametrize(
        "name", [s.text for s in BLOCK if s.anchor is not Anchor.CONTAINS], ids=str
    )
    def test_anchored_text_elsewhere_passes(self, name: str) -> None:
        assert hit_ids(register(f"Acme {name}Phone 1.0", display_name=name)) == set()

    def test_never_entries_would_hurt(self) -> None:
        names = [s for s in SHIPPED if s.tier is Tier.NEVER and s.where is Where.USER_AGENT]
        unproved = [s.id for s in names if not any(hits(s, register(ua)) for ua in USER_AGENTS)]
        # bots write these two; the real products send longer or other names
        assert unproved == ["never-cisco-ucm", "never-xlite"]


class TestAttacks:
    @pytest.mark.parametrize("path", ATTACKS, ids=lambda p: p.stem)
    def test_attack_is_hit(self, path: Path) -> None:
        assert hit_ids(path.read_bytes()) == CAUGHT_BY[path.stem]

    def test_every_recorded_attack_is_there(self) -> None:
        assert {path.stem for path in ATTACKS} == set(CAUGHT_BY)

    @pytest.mark.parametrize("path", ATTACKS, ids=lambda p: p.stem)
    def test_line_ends_survived_the_checkout(self, path: Path) -> None:
        datagram = path.read_bytes()
        assert datagram.count(b"\r\n") == datagram.count(b"\n") > 5

    @pytest.mark.parametrize("signature", SHIPPED, ids=lambda s: s.id)
    def test_entry_hits_a_message_built_from_it(self, signature: Signature) -> None:
        datagram = built_from(signature)
        assert hits(signature, datagram)
        if not signature.offset_zero:
            assert hits(signature, datagram.swapcase())

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("svmap-options", {"sipvicious-svmap-name", "sipvicious-svmap-target"}),
            ("svcrack-register", {"sipvicious-svcrack-contact"}),
            ("sipsak-options", {"sipsak-uri"}),
            ("smap-options", {"smap-uri"}),
            ("nmap-nse-options", {"nmap-nse"}),
            ("nmap-version-probe", {"nmap-version-probe"}),
            ("nmap-version-probe-tcp", {"nmap-version-probe"}),
            ("sivus-options", {"sivus"}),
            ("sippts-invite-changed-agent", {"sippts-session-name"}),
        ],
    )
    def test_tool_is_hit_with_its_user_agent_changed(self, name: str, expected: set[str]) -> None:
        lines = (DATA / "attack_messages" / f"{name}.sip").read_bytes().split(b"\r\n")
        disguised = [
            b"User-Agent: Yealink SIP-T46S" if line.startswith(b"User-Agent:") else line
            for line in lines
        ]
        assert hit_ids(b"\r\n".join(disguised)) == expected

    def test_exact_needs_the_end_of_the_line(self) -> None:
        assert hits(BY_ID["voip-exact"], register("VOIP"))
        assert not hits(BY_ID["voip-exact"], register("VOIP Gateway 3"))

    def test_request_line_needs_the_first_byte(self) -> None:
        probe = b"OPTIONS sip:nm SIP/2.0\r\n"
        assert hits(BY_ID["nmap-version-probe"], probe)
        assert not hits(BY_ID["nmap-version-probe"], b"\r\n" + probe)


class TestModel:
    def test_patterns(self) -> None:
        assert made().pattern == b"EvilDialer"
        assert made(anchor="prefix").pattern == b"User-Agent: EvilDialer"
        assert made(anchor="exact").pattern == b"User-Agent: EvilDialer\r\n"
        assert made(where="mark", anchor="ends").pattern == b"EvilDialer\r\n"
        assert not made().offset_zero
        assert made(where="request_line").offset_zero

    @pytest.mark.parametrize(
        "fields",
        [
            {"where": "mark", "anchor": "prefix"},
            {"where": "mark", "anchor": "exact"},
            {"where": "user_agent", "anchor": "ends"},
            {"where": "request_line", "anchor": "exact"},
            {"where": "request_line", "anchor": "ends"},
            {"where": "mark", "anchor": "ends", "text": "x" * 127},
            {"text": "x" * 129},
            {"text": "x" * 117, "anchor": "prefix"},
            {"text": "x" * 115, "anchor": "exact"},
            {"text": ""},
            {"source": ""},
            {"id": "Upper"},
            {"colour": "red"},
            {"tier": "score"},
        ],
        ids=str,
    )
    def test_bad_entry_is_refused(self, fields: dict[str, object]) -> None:
        with pytest.raises(ValidationError):
            made(**fields)

    def test_longest_pattern_is_accepted(self) -> None:
        assert len(made(text="x" * 116, anchor="prefix").pattern) == 128

    def test_is_frozen(self) -> None:
        signature = made()
        with pytest.raises(ValidationError):
            signature.text = "other"


class TestCheckText:
    @pytest.mark.parametrize("text", ["EvilDialer", 'a "quoted" \\ |41| text', "x" * 128, " "])
    def test_good(self, text: str) -> None:
        assert check_text(text) is None

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "empty"),
            ("x" * 129, "129 bytes"),
            ("two\nlines", "control characters"),
            ("nul\0", "control characters"),
            ("del\x7f", "control characters"),
            ("caf\u00e9", "outside ASCII"),
            ("next\u0085line", "outside ASCII"),
        ],
    )
    def test_bad(self, text: str, problem: str) -> None:
        found = check_text(text)
        assert found is not None
        assert problem in found


class TestSelect:
    def test_default_is_the_block_tier(self) -> None:
        selection = select(SHIPPED)
        assert selection.signatures == tuple(BLOCK)
        assert selection.notes == ()

    @pytest.mark.parametrize("name", ["sipsak", "SIPSAK"])
    def test_remove_by_text_or_id_without_regard_to_case(self, name: str) -> None:
        selection = select(SHIPPED, remove=[name])
        assert not {"sipsak", "sipsak-uri"} & {s.id for s in selection.signatures}
        assert len(selection.signatures) == len(BLOCK) - 2
        assert selection.notes == ()
        sipsak = (DATA / "attack_messages" / "sipsak-options.sip").read_bytes()
        assert hit_ids(sipsak, list(selection.signatures)) == set()

    @pytest.mark.parametrize(
        ("name", "gone"),
        [
            ("sipcli", {"sipcli", "sipcli-name"}),
            ("sipvicious", {"sipvicious", "sipvicious-svmap-name"}),
            ("sip:sivus", {"sivus", "sivus-uri"}),
            ("sip:100@1.1.1.1", {"sipvicious-svmap-target"}),
            ("<sip:smap@", {"smap-uri"}),
            ("Viproy", {"viproy"}),
        ],
    )
    def test_remove_by_the_name_of_the_tool_or_an_earlier_text(
        self, name: str, gone: set[str]
    ) -> None:
        selection = select(SHIPPED, remove=[name])
        assert {s.id for s in BLOCK} - {s.id for s in selection.signatures} == gone
        assert selection.notes == ()

    @pytest.mark.parametrize("name", ["branch=foo", "CensysInspect", "Custom SIP", "Ozeki", "smap"])
    def test_optional_by_an_earlier_text(self, name: str) -> None:
        selection = select(SHIPPED, optional=[name])
        assert len(selection.signatures) == len(BLOCK) + 1
        assert selection.notes == ()

    def test_remove_unknown_suggests_the_nearest(self) -> None:
        selection = select(SHIPPED, remove=["pplsip", "sip-sak"])
        (note,) = selection.notes
        assert (note.field, note.index, note.severity) == ("remove", 1, Severity.ERROR)
        assert note.message == "'sip-sak' is not a shipped signature; did you mean 'sipsak'?"
        assert len(selection.signatures) == len(BLOCK) - 1

    def test_remove_unknown_names_all_that_are_near(self) -> None:
        (note,) = select(SHIPPED, remove=["vax-usr-agent"]).notes
        assert note.severity is Severity.ERROR
        assert note.message.endswith("did you mean 'vax-user-agent' or 'vax-ip-user-agent'?")

    def test_remove_of_something_that_is_off_is_noted(self) -> None:
        (note,) = select(SHIPPED, remove=["CensysInspect"]).notes
        assert note.severity is Severity.NOTE
        assert "not on" in note.message

    def test_optional_by_id_and_by_text(self) -> None:
        selection = select(SHIPPED, optional=["censys", "voip"])
        switched_on = {s.id for s in selection.signatures} - {s.id for s in BLOCK}
        assert switched_on == {"censys", "voip-exact"}
        assert selection.notes == ()

    def test_optional_can_be_removed_again(self) -> None:
        selection = select(SHIPPED, optional=["censys"], remove=["CensysInspect"])
        assert selection.signatures == tuple(BLOCK)
        assert selection.notes == ()

    @pytest.mark.parametrize(
        ("name", "severity"), [("nonsense-zzz", Severity.WARNING), ("sipsak", Severity.NOTE)]
    )
    def test_optional_that_is_not_optional(self, name: str, severity: Severity) -> None:
        selection = select(SHIPPED, optional=[name])
        assert [note.severity for note in selection.notes] == [severity]
        assert selection.signatures == tuple(BLOCK)

    def test_add(self) -> None:
        selection = select(SHIPPED, add=["EvilDialer", "Evil/Dialer", "evil dialer"])
        added = selection.signatures[len(BLOCK) :]
        slugs = ["user-evildialer", "user-evil-dialer", "user-evil-dialer-2"]
        assert [s.id for s in added] == slugs
        assert [s.pattern for s in added] == [b"EvilDialer", b"Evil/Dialer", b"evil dialer"]
        assert selection.notes == ()

    def test_add_without_letters_and_very_long(self) -> None:
        added = select(SHIPPED, add=["<<>>", "x" * 128]).signatures[len(BLOCK) :]
        assert [s.id for s in added] == ["user-text", "user-" + "x" * 40]

    @pytest.mark.parametrize("name", ["Asterisk PBX", "asterisk", "Zoiper", "FPBX"])
    def test_add_of_legitimate_name_is_an_error_with_the_reason(self, name: str) -> None:
        selection = select(SHIPPED, add=[name])
        (note,) = selection.notes
        assert (note.field, note.index, note.severity) == ("add", 0, Severity.ERROR)
        assert "block legitimate traffic" in note.message
        assert selection.signatures[-1].text == name

    @pytest.mark.parametrize("text", COMMON)
    def test_add_of_what_every_message_holds_is_an_error(self, text: str) -> None:
        (note,) = select(SHIPPED, add=[text]).notes
        assert note.severity is Severity.ERROR
        assert "stands in the messages of every phone" in note.message

    @pytest.mark.parametrize("path", ATTACKS, ids=lambda path: path.stem)
    def test_what_tells_a_tool_is_no_common_text(self, path: Path) -> None:
        for found in CAUGHT_BY.get(path.stem, ()):
            assert why_common(BY_ID[found].text) is None

    def test_add_of_short_text_warns(self) -> None:
        (note,) = select(SHIPPED, add=["qzx"]).notes
        assert note.severity is Severity.WARNING
        assert "short" in note.message

    @pytest.mark.parametrize(
        ("add", "reason"),
        [
            (["SIPCLI"], "already shipped"),
            (["friendly-scanner/2"], "already caught by 'friendly-scanner'"),
            (["EvilDialer", "evildialer"], "already shipped"),
        ],
    )
    def test_add_of_what_is_on_changes_nothing(self, add: list[str], reason: str) -> None:
        selection = select(SHIPPED, add=add)
        assert [s.id for s in selection.signatures if s.id.startswith("user-")] == (
            ["user-evildialer"] if "EvilDialer" in add else []
        )
        (note,) = selection.notes
        assert note.severity is Severity.NOTE
        assert reason in note.message

    def test_add_of_optional_text_takes_the_anchored_entry(self) -> None:
        selection = select(SHIPPED, add=["PBX"])
        assert selection.signatures[-1].id == "pbx-exact"
        assert "shipped as 'pbx-exact'" in selection.notes[0].message

    def test_add_of_bad_text_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="empty"):
            select(SHIPPED, add=[""])
