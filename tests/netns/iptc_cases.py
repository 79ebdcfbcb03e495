"""The matches and targets that rules may use: each as a person types it and as lowering says it."""

from __future__ import annotations

from dataclasses import dataclass, field

from sipfw.lower.xtables import Family, XMatch, XParam, XRule, XTarget

V4, V6 = Family.IP, Family.IP6


@dataclass(frozen=True)
class Case:
    """One rule twice: `cli` as a person would type it, the rest as the lowering would."""

    name: str
    cli: str
    rule: XRule
    table: str = "filter"
    families: tuple[Family, ...] = (V4, V6)


def options(words: tuple[str | tuple[str, ...], ...]) -> tuple[XParam, ...]:
    """`"!dport 5060"` is a negated option; a tuple holds words with blanks in them."""
    params = []
    for word in words:
        name, *values = word.split() if isinstance(word, str) else word
        params.append(XParam(name.removeprefix("!"), tuple(values), name.startswith("!")))
    return tuple(params)


def m(name: str, *words: str | tuple[str, ...]) -> XMatch:
    return XMatch(name, options(words))


def j(name: str, *words: str | tuple[str, ...], goto: bool = False) -> XTarget:
    return XTarget(name, options(words), goto)


@dataclass
class Matrix:
    """Collects cases and gives each rule its comment."""

    cases: list[Case] = field(default_factory=list)

    def __call__(
        self,
        cli: str,
        *matches: XMatch,
        proto: str | None = None,
        target: XTarget | None = None,
        table: str = "filter",
        families: tuple[Family, ...] = (V4, V6),
        **selectors: str,
    ) -> None:
        name = f"{len(self.cases):03d}"
        comment = f"sipfw:m.{name}#0badcafe"
        rule = XRule(comment, proto, matches=matches, target=target, **selectors)
        self.cases.append(Case(name, cli, rule, table, families))


add = Matrix()
UDP, TCP, DROP = {"proto": "udp"}, {"proto": "tcp"}, {"target": j("DROP")}

# ports, flags
add("-p udp -j DROP", **UDP, **DROP)
add("! -p udp -j DROP", proto="!udp", **DROP)
add("-p udp -m udp --dport 5060 -j DROP", m("udp", "dport 5060"), **UDP, **DROP)
add("-p udp -m udp --dport 5060:5069", m("udp", "dport 5060:5069"), **UDP)
add("-p udp -m udp ! --dport 5060", m("udp", "!dport 5060"), **UDP)
add("-p udp -m udp --sport 5060 ! --dport 1:9", m("udp", "sport 5060", "!dport 1:9"), **UDP)
add("-p tcp -m tcp --dport 5060 --syn", m("tcp", "dport 5060", "syn"), **TCP)
add("-p tcp -m tcp ! --syn", m("tcp", "!syn"), **TCP)
add("-p tcp -m tcp --tcp-flags SYN,RST SYN", m("tcp", "tcp-flags SYN,RST SYN"), **TCP)
add("-p tcp -m tcp ! --tcp-flags ALL NONE", m("tcp", "!tcp-flags ALL NONE"), **TCP)
add("-p udp -m multiport --dports 5060,5061", m("multiport", "dports 5060,5061"), **UDP)
add("-p tcp -m multiport ! --ports 22,5060:5069", m("multiport", "!ports 22,5060:5069"), **TCP)
add(
    "-p udp -m multiport --sports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    m("multiport", "sports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"),
    **UDP,
)
# addresses, interfaces
add("-s 203.0.113.9", source="203.0.113.9", families=(V4,))
add(
    "-s 203.0.113.9/24 ! -d 192.0.2.1",
    source="203.0.113.9/24",
    destination="!192.0.2.1",
    families=(V4,),
)
add("! -s 203.0.113.0/25", source="! 203.0.113.0/25", families=(V4,))
add("-s 2001:db8::1", source="2001:db8::1", families=(V6,))
add(
    "-s 2001:db8:5::9/61 ! -d 2001:db8::2",
    source="2001:db8:5::9/61",
    destination="!2001:db8::2",
    families=(V6,),
)
add("-i eth2", in_interface="eth2")
add("! -i lo -j DROP", in_interface="!lo", **DROP)
add("-i ppp+", in_interface="ppp+")
add("-o eth2.100", out_interface="eth2.100")
add("-i a23456789012345 ! -o veth+", in_interface="a23456789012345", out_interface="!veth+")
# state, address type, marks, lengths
add("-m conntrack --ctstate NEW", m("conntrack", "ctstate NEW"))
add("-m conntrack ! --ctstate INVALID", m("conntrack", "!ctstate INVALID"))
add("-m conntrack --ctstate RELATED,ESTABLISHED", m("conntrack", "ctstate RELATED,ESTABLISHED"))
add("-m conntrack --ctstate UNTRACKED", m("conntrack", "ctstate UNTRACKED"))
add("-m addrtype --dst-type LOCAL", m("addrtype", "dst-type LOCAL"))
add("-m addrtype ! --src-type UNICAST", m("addrtype", "!src-type UNICAST"))
add("-m mark --mark 0x51/0xff", m("mark", "mark 0x51/0xff"))
add("-m mark ! --mark 7", m("mark", "!mark 7"))
add(
    '-m u32 --u32 "28=0x4f505449&&32=0x4f4e5320"', m("u32", ("u32", "28=0x4f505449&&32=0x4f4e5320"))
)
add("-m length --length 0:39", m("length", "length 0:39"))
add("-m length ! --length 1500", m("length", "!length 1500"))
add(
    "-m iprange --src-range 192.0.2.1-192.0.2.9",
    m("iprange", "src-range 192.0.2.1-192.0.2.9"),
    families=(V4,),
)
add(
    "-m iprange ! --dst-range 2001:db8::1-2001:db8::9",
    m("iprange", "!dst-range 2001:db8::1-2001:db8::9"),
    families=(V6,),
)
add("-m limit --limit 5/sec", m("limit", "limit 5/sec"))
add(
    "-m limit --limit 1000/sec --limit-burst 1000", m("limit", "limit 1000/sec", "limit-burst 1000")
)
# string
KMP = "algo kmp"
add('-m string --algo bm --string "sipcli"', m("string", "algo bm", "string sipcli"))
add(
    '-m string --algo kmp --string "OPTIONS " --from 28 --to 36',
    m("string", KMP, ("string", "OPTIONS "), "from 28", "to 36"),
)
add(
    "-m string --algo kmp --icase --string friendly-scanner",
    m("string", KMP, "icase", "string friendly-scanner"),
)
add(
    '-m string --algo kmp --icase --hex-string "|66 72|iendly"',
    m("string", KMP, "icase", ("hex-string", "|66 72|iendly")),
)
add('-m string --algo kmp --hex-string "|0d0a0d0a|"', m("string", KMP, "hex-string |0d0a0d0a|"))
add('-m string --algo kmp ! --string "REGISTER "', m("string", KMP, ("!string", "REGISTER ")))
add(
    '-m string --algo bm --icase ! --hex-string "|5349502f|"',
    m("string", "algo bm", "icase", "!hex-string |5349502f|"),
)
add(
    '-m string --algo kmp --from 48 --string "@1.1.1.1>"',
    m("string", KMP, "from 48", "string @1.1.1.1>"),
)
add("-m string --algo kmp --hex-string '|21|bang'", m("string", KMP, "string !bang"))
add("-m string --algo kmp --hex-string '|2d2d|dashes'", m("string", KMP, "string --dashes"))
add("-m string --algo kmp --hex-string '|22|q|5c27|'", m("string", KMP, "string \"q\\'"))
add("-m string --algo kmp --hex-string '|7c|x|7c|'", m("string", KMP, "string |x|"))
add(
    f"-m string --algo kmp --hex-string '|{'61' * 127}|'",
    m("string", KMP, f"hex-string |{'61' * 127}|"),
)
add(f"-m string --algo kmp --string {'a' * 128}", m("string", KMP, f"string {'a' * 128}"))
add(
    "-m string --algo kmp --string a -m string --algo bm --string b",
    m("string", KMP, "string a"),
    m("string", "algo bm", "string b"),
)
# recent
add("-m recent --set --name s1 --rsource", m("recent", "set", "name s1", "rsource"))
add(
    "-m recent --update --seconds 60 --hitcount 20 --name s1",
    m("recent", "update", "seconds 60", "hitcount 20", "name s1"),
)
add(
    "-m recent --rcheck --seconds 60 --hitcount 20 --name s2",
    m("recent", "rcheck", "seconds 60", "hitcount 20", "name s2"),
)
add(
    "-m recent --rcheck --seconds 60 --reap --name s2",
    m("recent", "rcheck", "seconds 60", "reap", "name s2"),
)
add(
    "-m recent --update --rttl --name s3 --rdest", m("recent", "update", "rttl", "name s3", "rdest")
)
add("-m recent ! --rcheck --name s4", m("recent", "!rcheck", "name s4"))
add("-m recent --remove --name s4", m("recent", "remove", "name s4"))
add("-m recent ! --set --name s5", m("recent", "!set", "name s5"))
add(
    "-m recent --set --name s6 --mask 255.255.255.0",
    m("recent", "set", "name s6", "mask 255.255.255.0"),
    families=(V4,),
)
add(
    "-m recent --set --name s7 --mask ffff:ffff:ffff:ffff::",
    m("recent", "set", "name s7", "mask ffff:ffff:ffff:ffff::"),
    families=(V6,),
)
# hashlimit
for number, (rate, burst, mode, extra) in enumerate(
    (
        ("above 10/sec", "20", "srcip", ""),
        ("above 5/min", "5", "srcip", "htable-expire 60000"),  # EINVAL unpatched: expire = quantum
        ("above 20/sec", "40", "srcip", "htable-expire 1000"),  # same
        ("upto 100/hour", "3", "srcip", "htable-expire 3600000"),  # same
        ("above 60/min", "40", "srcip,srcport", "htable-expire 10000"),
        ("upto 3/day", "1", "dstip", ""),
        ("above 1000/sec", "400", "srcip", "htable-max 65536"),
        ("above 1/sec", "3", "srcip,dstip,dstport", "htable-size 2048"),
        ("above 9/sec", "9", "srcip", "htable-gcinterval 500"),
        ("above 10000/sec", "10000", "srcport", "htable-expire 30000"),
    )
):
    words = [f"hashlimit-{rate}", f"hashlimit-burst {burst}", f"hashlimit-mode {mode}"]
    words += [f"hashlimit-name h{number}", *([f"hashlimit-{extra}"] if extra else [])]
    add("-m hashlimit " + " ".join(f"--{word}" for word in words), m("hashlimit", *words))
for family, mask in ((V4, "24"), (V6, "64")):
    add(
        f"-m hashlimit --hashlimit-above 90/sec --hashlimit-mode srcip --hashlimit-name hm"
        f" --hashlimit-srcmask {mask} --hashlimit-burst 200",
        m(
            "hashlimit",
            "hashlimit-above 90/sec",
            "hashlimit-mode srcip",
            "hashlimit-name hm",
            f"hashlimit-srcmask {mask}",
            "hashlimit-burst 200",
        ),
        families=(family,),
    )
    # connlimit
    add(
        f"-p tcp --syn -m connlimit --connlimit-above 30 --connlimit-mask {mask} --connlimit-saddr",
        m("tcp", "syn"),
        m("connlimit", "connlimit-above 30", f"connlimit-mask {mask}", "connlimit-saddr"),
        families=(family,),
        **TCP,
    )
add("-m connlimit --connlimit-above 10", m("connlimit", "connlimit-above 10"))
add(
    "-m connlimit --connlimit-upto 4 --connlimit-daddr",
    m("connlimit", "connlimit-upto 4", "connlimit-daddr"),
)
# set match and target; the sets exist in both families under one name each
for family, name in ((V4, "four"), (V6, "six")):
    only = {"families": (family,)}
    add(f"-m set --match-set {name} src", m("set", f"match-set {name} src"), **only)
    add(f"-m set ! --match-set {name} dst", m("set", f"!match-set {name} dst"), **only)
    add(
        f"-m set --match-set {name} dst --packets-gt 9",
        m("set", f"match-set {name} dst", "packets-gt 9"),
        **only,
    )
    add(
        f"-m set ! --match-set {name} dst ! --update-counters",
        m("set", f"!match-set {name} dst", "!update-counters"),
        **only,
    )
    add(
        f"-m set --match-set {name} src ! --update-counters --packets-gt 3",
        m("set", f"match-set {name} src", "!update-counters", "packets-gt 3"),
        **only,
    )
    add(
        f"-m set --match-set {name} src --return-nomatch",
        m("set", f"match-set {name} src", "return-nomatch"),
        **only,
    )
    add(
        f"-p udp -m set --match-set {name}p src,src",
        m("set", f"match-set {name}p src,src"),
        **UDP,
        **only,
    )
    add(f"-j SET --add-set {name} src", target=j("SET", f"add-set {name} src"), **only)
    add(
        f"-j SET --add-set {name} src --exist",
        target=j("SET", f"add-set {name} src", "exist"),
        **only,
    )
    add(
        f"-j SET --add-set {name} dst --exist --timeout 600",
        target=j("SET", f"add-set {name} dst", "exist", "timeout 600"),
        **only,
    )
    add(f"-j SET --del-set {name} dst", target=j("SET", f"del-set {name} dst"), **only)
# targets
for verdict in ("ACCEPT", "DROP", "RETURN"):
    add(f"-j {verdict}", target=j(verdict))
add("-p udp", **UDP)
add("-j TGT", target=j("TGT"))
add("-g TGT", target=j("TGT", goto=True))
add("-p udp -m udp --dport 5060 -g TGT", m("udp", "dport 5060"), target=j("TGT", goto=True), **UDP)
add("-j REJECT", target=j("REJECT"))
add("-p tcp -j REJECT --reject-with tcp-reset", target=j("REJECT", "reject-with tcp-reset"), **TCP)
add(
    "-j REJECT --reject-with icmp-admin-prohibited",
    target=j("REJECT", "reject-with icmp-admin-prohibited"),
    families=(V4,),
)
add(
    "-j REJECT --reject-with icmp6-adm-prohibited",
    target=j("REJECT", "reject-with icmp6-adm-prohibited"),
    families=(V6,),
)
add("-j LOG", target=j("LOG"))
add(
    '-j LOG --log-prefix "sip ua: " --log-level warning',
    target=j("LOG", ("log-prefix", "sip ua: "), "log-level warning"),
)
add("-j NFLOG --nflog-group 5", target=j("NFLOG", "nflog-group 5"))
add(
    '-j NFLOG --nflog-prefix "sip ua" --nflog-group 5 --nflog-size 256 --nflog-threshold 20',
    target=j(
        "NFLOG", ("nflog-prefix", "sip ua"), "nflog-group 5", "nflog-size 256", "nflog-threshold 20"
    ),
)
add("-j CT --notrack", target=j("CT", "notrack"), table="raw")
add(
    "-p udp -m udp --dport 10000:20000 -j CT --notrack",
    m("udp", "dport 10000:20000"),
    target=j("CT", "notrack"),
    table="raw",
    **UDP,
)
add("-j CT --zone 7", target=j("CT", "zone 7"), table="raw")
add("-j MARK --set-xmark 0x51/0xff", target=j("MARK", "set-xmark 0x51/0xff"), table="mangle")
add("-j MARK --set-mark 7", target=j("MARK", "set-mark 7"), table="mangle")
add("-p icmp -m icmp --icmp-type 8", m("icmp", "icmp-type 8"), proto="icmp", families=(V4,))
add(
    "-p icmpv6 -m icmp6 --icmpv6-type 135",
    m("icmp6", "icmpv6-type 135"),
    proto="icmpv6",
    families=(V6,),
)

CASES = [(case, family) for case in add.cases for family in case.families]
