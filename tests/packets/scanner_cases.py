"""Cases about what is sent: methods, lengths, signatures, and what attack tools really send."""

from __future__ import annotations

from packets.cases import LEGITIMATE, Case, attack, raw, request

SCANNER_CASES = [
    Case("options-over-udp", (request("OPTIONS"),), 0, "scanner.options-udp", 5, repeat=5),
    Case(
        "options-over-tcp", (request("OPTIONS"),), 0, "scanner.options-tcp", (1, 9), transport="tcp"
    ),
    Case(
        "options-where-the-policy-lets-them-in",
        (request("OPTIONS"),),
        5,
        "rate.accept",
        5,
        policy={"scanners": {"block_options": False}},
        repeat=5,
    ),
    Case("empty-datagram", (raw(b""),), 0, "scanner.not-sip", 5, repeat=5),
    Case("keep-alive-of-a-stranger", (raw(b"\r\n\r\n"),), 0, "scanner.not-sip", 5, repeat=5),
    Case(
        "keep-alive-of-a-learned-phone",
        (raw(b"\r\n\r\n"),),
        5,
        "learned.accept",
        5,
        repeat=5,
        members=("learned",),
    ),
    Case("ten-bytes", (raw(b"BYE sip:a@"),), 0, "scanner.short", 1),
    Case("eleven-bytes", (raw(b"BYE sip:a@b"),), 1, "rate.accept", 1),
    Case("unknown-method", (request("HACKME"),), 0, "scanner.not-sip", 5, repeat=5),
    Case("method-in-lower-case", (request("register"),), 0, "scanner.not-sip", 1),
    Case("garbage", (raw(bytes(range(256))),), 0, "scanner.not-sip", 5, repeat=5),
    Case("method-behind-a-blank", (raw(b" REGISTER sip:x SIP/2.0"),), 0, "scanner.not-sip", 1),
    Case(
        "garbage-where-the-policy-lets-it-in",
        (raw(bytes(range(256))),),
        5,
        "rate.accept",
        5,
        policy={"scanners": {"block_unknown_methods": False}},
        repeat=5,
    ),
    Case(
        "every-method-of-a-phone",
        tuple(
            request(method)
            for method in (
                "REGISTER", "INVITE", "ACK", "BYE", "CANCEL", "SUBSCRIBE", "NOTIFY", "MESSAGE",
                "PUBLISH", "INFO", "PRACK", "UPDATE", "REFER",
            )
        ),
        13,
        "rate.bare",
        11,
    ),
]  # fmt: skip

SIGNATURE_CASES = [
    Case(name, (request("REGISTER", agent),), 0, rule, 3, repeat=3)
    for name, agent, rule in (
        ("contained-text", "friendly-scanner", "scanner.ua.friendly-scanner"),
        ("contained-text-inside-a-name", "my friendly-scanner/2", "scanner.ua.friendly-scanner"),
        ("contained-text-in-capitals", "FRIENDLY-SCANNER", "scanner.ua.friendly-scanner"),
        ("contained-text-in-lower-case", "nmap nse", "scanner.ua.nmap-nse"),
        ("prefix", "VaxSIPUserAgent/3.1", "scanner.ua.vax-sip-user-agent"),
        ("prefix-in-lower-case", "vaxsipuseragent/3.1", "scanner.ua.vax-sip-user-agent"),
        ("prefix-that-ends-in-a-slash", "sipcli/v1.8", "scanner.ua.sipcli"),
        ("whole-name", "sip-scan", "scanner.ua.sip-scan"),
        ("whole-name-in-capitals", "SIP-SCAN", "scanner.ua.sip-scan"),
    )
]
SIGNATURE_CASES += [
    Case(
        name,
        (request("REGISTER", agent),),
        delivered,
        rule,
        1,
        policy={"scanners": {"user_agents": {"optional": ["voip-exact"]}}},
    )
    for name, agent, delivered, rule in (
        ("exact", "VOIP", 0, "scanner.ua.voip-exact"),
        ("exact-in-lower-case", "voip", 0, "scanner.ua.voip-exact"),
        ("exact-with-more-behind-it", "VOIP Phone", 1, "rate.accept"),
        ("exact-with-more-before-it", "My VOIP", 1, "rate.accept"),
    )
]
SIGNATURE_CASES += [
    Case(name, (request("REGISTER", agent),), 1, "rate.accept", 1)
    for name, agent in (
        ("prefix-text-not-at-the-start", "a sipcli/v1.8"),
        ("name-that-begins-like-sipcli", "sipclient-lite/2.1"),
        ("name-that-begins-like-sip-scan", "sip-scania/3"),
        ("name-that-begins-like-iwar", "iWarehouse 2"),
    )
]
SIGNATURE_CASES += [
    Case(
        "text-that-the-policy-adds",
        (request("REGISTER", "evildialer 7"),),
        0,
        "scanner.ua.user-evildialer",
        1,
        policy={"scanners": {"user_agents": {"add": ["EvilDialer"]}}},
    ),
    Case(
        "text-that-the-policy-removes",
        (request("REGISTER", "friendly-scanner"),),
        1,
        "rate.accept",
        1,
        policy={"scanners": {"user_agents": {"remove": ["friendly-scanner"]}}},
    ),
    Case(
        "scanner-name-of-a-learned-phone",
        (request("REGISTER", "friendly-scanner"),),
        1,
        "learned.accept",
        1,
        members=("learned",),
    ),
    Case(
        "scanner-name-of-a-learned-phone-that-logs-in",
        (request("REGISTER", "friendly-scanner", extra_headers=[("Authorization", "Digest x=1")]),),
        0,
        "scanner.ua.friendly-scanner",
        1,
        members=("learned",),
    ),
    Case(
        "contained-text-over-tcp",
        (request("REGISTER", "friendly-scanner"),),
        0,
        "stream.ua.friendly-scanner",
        (1, 9),
        transport="tcp",
    ),
]

_ATTACK_RULES = {
    "erase-registrations": "scanner.ua.hacker",
    "modified-sipvicious-options": "scanner.options-udp",
    "mr-sip-invite": "scanner.ua.mr-sip-sdp",
    "nmap-nse-options": "scanner.options-udp",
    "nmap-nse-register": "scanner.ua.nmap-nse",
    "nmap-version-probe": "scanner.options-udp",
    "sipcli-invite": "scanner.ua.sipcli",
    "sippts-invite-changed-agent": "scanner.ua.sippts-session-name",
    "sippts-register": "scanner.ua.pplsip",
    "sipsak-options": "scanner.options-udp",
    "sipsak-register": "scanner.ua.sipsak",
    "sivus-discovery": "scanner.options-udp",
    "sivus-options": "scanner.options-udp",
    "smap-options": "scanner.options-udp",
    "sundayddr-options": "scanner.options-udp",
    "svcrack-register": "scanner.ua.friendly-scanner",
    "svmap-invite": "scanner.ua.friendly-scanner",
    "svmap-options": "scanner.options-udp",
    "svwar-register": "scanner.ua.friendly-scanner",
    "vax-invite": "scanner.ua.vax-sip-user-agent",
    "viproy-options": "scanner.options-udp",
}
ATTACK_CASES = [
    Case(f"recorded-{name}", (attack(name),), 0, rule, 3, repeat=3)
    for name, rule in _ATTACK_RULES.items()
]
ATTACK_CASES += [
    Case(
        "recorded-nmap-version-probe-tcp",
        (attack("nmap-version-probe-tcp"),),
        0,
        "scanner.options-tcp",
        (1, 9),
        transport="tcp",
    ),
]

# Where OPTIONS are let in, the signatures must do the work.
_OPTIONS_RULES = {
    "modified-sipvicious-options": "scanner.ua.sipvicious-svmap-target",
    "nmap-nse-options": "scanner.ua.nmap-nse",
    "nmap-version-probe": "scanner.line.nmap-version-probe",
    "sipsak-options": "scanner.ua.sipsak",
    "sivus-discovery": "scanner.ua.sivus-uri",
    "sivus-options": "scanner.ua.sivus",
    "smap-options": "scanner.ua.smap-uri",
    "sundayddr-options": "scanner.ua.sundayddr",
    "svmap-options": "scanner.ua.friendly-scanner",
    "viproy-options": "scanner.ua.viproy",
}
ATTACK_CASES += [
    Case(
        f"let-in-{name}",
        (attack(name),),
        0,
        rule,
        3,
        policy={"scanners": {"block_options": False}},
        repeat=3,
    )
    for name, rule in _OPTIONS_RULES.items()
]

LEGITIMATE_CASES = [
    Case(
        f"legitimate-{path.stem}",
        (raw(path.read_bytes()),),
        3,
        "login.accept" if "digest" in path.stem else "rate.accept",
        3,
        policy={"scanners": {"block_options": "options" not in path.stem}},
        repeat=3,
    )
    for path in sorted(LEGITIMATE.glob("*.sip"))
]
