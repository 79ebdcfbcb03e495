"""Kinds of rules that others write, each with what it does to packets of IPv4 or IPv6.

`T` stands for iptables and `6` for ip6tables. foreign_cases.py has what most hosts have; here is
the rest of what the two packet filters can do.
"""

from __future__ import annotations

from foreign_cases import DROP, INPUT, MORE, ON_SIP, SIP, UDP, harmless, hooked, takes, unsure

NAT = "prerouting priority -100"
EARLY = "prerouting priority -450"
INGRESS = 'ingress device "carrier" priority 0'
LED_AWAY = "[2001:db8:66::66]:5060"
A_SET = "set bad { type %s; elements = { %s }; };"
A_MAP = "map bad { type %s : verdict; elements = { %s : drop }; };"
SYN_ONLY = "T -t raw -A PREROUTING -p tcp --dport 22 --syn -j CT --notrack"

IPV6 = [
    takes("6 rejected", SIP, f"6 -I INPUT {ON_SIP} -j REJECT"),
    takes("6 raw", SIP, f"6 -t raw -A PREROUTING {ON_SIP} -j DROP"),
    takes("6 source", UDP, "6 -A INPUT -s 2001:db8:5::/64 -p udp -j DROP"),
    takes(
        "6 range",
        UDP,
        "6 -A INPUT -p udp -m iprange --src-range 2001:db8:5::9-2001:db8:5::b -j DROP",
    ),
    takes("6 destination", UDP, "6 -A INPUT -d 2001:db8:5::1 -p udp -j DROP"),
    takes(
        "6 set",
        UDP,
        "ipset create bad hash:net family inet6; ipset add bad 2001:db8:5::/64;"
        " 6 -A INPUT -p udp -m set --match-set bad src -j DROP",
    ),
    takes("6 chain", SIP, f"6 -N MORE; 6 -A MORE {ON_SIP} -j DROP; 6 -I INPUT -j MORE"),
    takes("6 policy", f"{UDP} ssh", "6 -A INPUT -p icmpv6 -j ACCEPT; 6 -P INPUT DROP"),
    takes("6 output", "answers", "6 -A OUTPUT -p udp --sport 5060 -j DROP"),
    takes("6 redirect", SIP, f"6 -t nat -A PREROUTING {ON_SIP} -j REDIRECT --to-ports 9999"),
    takes("6 dnat", SIP, f"6 -t nat -A PREROUTING {ON_SIP} -j DNAT --to-destination {LED_AWAY}"),
    takes(
        "6 dnat without a port",
        SIP,
        f"6 -t nat -A PREROUTING {ON_SIP} -j DNAT --to-destination 2001:db8:66::66",
    ),
    takes("6 local", SIP, f"6 -A INPUT {ON_SIP} -m addrtype --dst-type LOCAL -j DROP"),
    unsure("6 unicast", f"6 -A INPUT {ON_SIP} -m addrtype --dst-type UNICAST -j DROP", SIP),
    unsure("6 hops", f"6 -A INPUT {ON_SIP} -m hl --hl-lt 255 -j DROP", SIP),
    unsure("6 routing header", "6 -A INPUT -m srh -j DROP"),
    harmless("6 other family", "T -A INPUT -p udp -j DROP"),
    harmless("6 pings", "6 -A INPUT -p icmpv6 --icmpv6-type 128 -j DROP"),
    takes("6 nft table", SIP, hooked(INPUT, DROP, family="ip6")),
    takes("6 nft inet", SIP, hooked(INPUT, f"meta nfproto ipv6 {DROP}")),
    takes("6 nft source", UDP, hooked(INPUT, "ip6 saddr 2001:db8:5::/64 meta l4proto udp drop")),
    takes(
        "6 nft set",
        UDP,
        hooked(
            INPUT,
            "ip6 saddr @bad meta l4proto udp drop",
            more="set bad { type ipv6_addr; flags interval,timeout;"
            " elements = { 2001:db8:5::/64 timeout 1h }; };",
        ),
    ),
    takes("6 nft map", f"{UDP} ssh", hooked(INPUT, "ip6 saddr vmap { 2001:db8:5::a : drop }")),
    takes("6 nft ingress", SIP, hooked(INGRESS, f"meta protocol ip6 {DROP}", family="netdev")),
    takes("6 nft dnat", SIP, hooked(NAT, "udp dport 5060 dnat ip6 to 2001:db8:66::66", kind="nat")),
    takes("6 nft answers", "answers", hooked("output priority 0", "udp sport 5060 drop")),
    unsure(
        "6 nft two at once",
        hooked(INPUT, "ip6 saddr . udp dport { 2001:db8:5::a . 5060 } drop"),
        SIP,
    ),
    harmless("6 nft other family", hooked(INPUT, f"meta nfproto ipv4 {DROP}", "ip saddr 0/0 drop")),
]

IPV4 = [
    takes("a queue that nobody reads", SIP, f"T -A INPUT {ON_SIP} -j NFQUEUE --queue-num 7"),
    harmless("or bypasses", f"T -A INPUT {ON_SIP} -j NFQUEUE --queue-num 7 --queue-bypass"),
    takes("no mark", SIP, f"T -A INPUT {ON_SIP} -m mark --mark 0 -j DROP"),
    takes("no mark of a connection", SIP, f"T -A INPUT {ON_SIP} -m connmark ! --mark 1 -j DROP"),
    harmless("a mark that nobody writes", f"T -A INPUT {ON_SIP} -m mark --mark 7 -j DROP"),
    unsure(
        "a mark that somebody writes",
        f"T -t mangle -A PREROUTING -p udp -j MARK --set-mark 7;"
        f" T -A INPUT {ON_SIP} -m mark --mark 7 -j DROP",
        SIP,
    ),
    unsure(
        "a set of destinations",
        "ipset create bad hash:ip; ipset add bad 203.0.113.1;"
        " T -A INPUT -p udp -m set --match-set bad dst -j DROP",
        SIP,
    ),
    takes(
        "destination range",
        SIP,
        f"T -A INPUT {ON_SIP} -m iprange --dst-range 203.0.113.1-203.0.113.2 -j DROP",
    ),
    takes("another source", SIP, f"T -A INPUT {ON_SIP} ! -s 198.51.100.0/24 -j DROP"),
    takes("all but tcp", UDP, "T -A INPUT ! -p tcp -j DROP"),
    harmless("resets", "T -A OUTPUT -p tcp --tcp-flags SYN,FIN SYN,FIN -j DROP"),
    unsure("resets out", "T -A OUTPUT -p tcp --tcp-flags RST RST -j DROP"),
    unsure("net map", f"T -t nat -A PREROUTING {ON_SIP} -j NETMAP --to 198.51.100.0/24", SIP),
    unsure("transparent", f"T -t mangle -A PREROUTING {ON_SIP} -j TPROXY --on-port 5060", SIP),
    unsure(
        "syn proxy",
        f"{SYN_ONLY}; T -A INPUT -p tcp --dport 22 -m conntrack --ctstate INVALID,UNTRACKED"
        " -j SYNPROXY --mss 1460; T -A INPUT -m conntrack --ctstate INVALID -j DROP",
        "ssh",
    ),
    unsure("once seen", f"T -A INPUT {ON_SIP} -m recent --set --name seen -j DROP", SIP),
    unsure(
        "always, by chance",
        f"T -A INPUT {ON_SIP} -m statistic --mode random --probability 1 -j DROP",
        SIP,
    ),
    unsure("connections", f"T -A INPUT {ON_SIP} -m connlimit --connlimit-above 0 -j DROP", SIP),
    unsure("bridged", f"T -A INPUT {ON_SIP} -m physdev --physdev-is-bridged -j DROP"),
    unsure("a socket", f"T -A INPUT {ON_SIP} -m socket --nowildcard -j DROP", SIP),
    unsure("way back", f"T -t raw -A PREROUTING {ON_SIP} -m rpfilter -j DROP", SIP),
    unsure("new calls out", "T -A OUTPUT -p udp --dport 5060 -j DROP"),
    harmless("a helper", f"T -t raw -A PREROUTING {ON_SIP} -j CT --helper sip"),
    takes("left by a goto", f"{UDP} ssh", "T -P INPUT DROP; T -N A; T -A INPUT -g A"),
    takes(
        "nft named map",
        SIP,
        hooked(INPUT, "udp dport vmap @bad", more=A_MAP % ("inet_service", "5060")),
    ),
    takes(
        "nft named ports",
        SIP,
        hooked(INPUT, "udp dport @bad drop", more=A_SET % ("inet_service", "5060")),
    ),
    unsure(
        "nft named interfaces",
        hooked(INPUT, f"iifname @bad {DROP}", more=A_SET % ("ifname", '"carrier"')),
        SIP,
    ),
    takes(
        "nft forwarded at once", f"{UDP} ssh", hooked(INGRESS, 'fwd to "carrier"', family="netdev")
    ),
    takes("nft dnat", SIP, hooked(NAT, "udp dport 5060 dnat ip to 198.51.100.66", kind="nat")),
    takes(
        "nft dnat to several",
        SIP,
        hooked(NAT, "udp dport 5060 dnat to 198.51.100.6-198.51.100.8", kind="nat", family="ip"),
    ),
    unsure("nft port is written", hooked(EARLY, "udp dport 5060 udp dport set 9999"), SIP),
    unsure(
        "nft address is written", hooked(EARLY, "udp dport 5060 ip daddr set 198.51.100.9"), SIP
    ),
    unsure("nft mask of states", hooked(INPUT, "ct state & new == new udp dport 5060 drop"), SIP),
    unsure("nft not of a state", hooked(INPUT, "ct state ! established udp dport 5060 drop"), SIP),
    unsure("nft chain without a name", hooked(INPUT, "udp dport 5060 jump { drop; }"), SIP),
    takes("nft no mark", SIP, hooked(INPUT, "udp dport 5060 meta mark 0 drop")),
    takes("nft of the link", SIP, hooked(INGRESS, f"ether type ip {DROP}", family="netdev")),
    unsure("nft time", hooked(INPUT, "meta day 0-6 udp dport 5060 drop"), SIP),
    unsure("nft chance", hooked(INPUT, "udp dport 5060 numgen random mod 1 0 drop"), SIP),
    harmless("nft off", hooked(INPUT, MORE)),
]
