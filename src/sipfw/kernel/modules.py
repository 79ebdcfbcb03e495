"""Which module of the kernel stands behind each part of a rule, and what others call it.

Names are those of net/netfilter/Makefile and Kconfig in Linux, and of OpenWrt's
include/netfilter.mk.
"""

from __future__ import annotations

from sipfw.lower.xtables import Family

# Extensions whose module is not `xt_` and their name.
_MODULES = {
    "ipset": "ip_set",
    "tcp": "xt_tcpudp",
    "udp": "xt_tcpudp",
    "SET": "xt_set",
    "MARK": "xt_mark",
}
_REJECT = {Family.IP: "ipt_REJECT", Family.IP6: "ip6t_REJECT"}
_TABLES = {Family.IP: "iptable", Family.IP6: "ip6table"}
_SYMBOLS = {
    "xt_tcpudp": "NETFILTER_XTABLES",
    "xt_set": "NETFILTER_XT_SET",
    "xt_mark": "NETFILTER_XT_MARK",
    "ipt_REJECT": "IP_NF_TARGET_REJECT",
    "ip6t_REJECT": "IP6_NF_TARGET_REJECT",
    "nfnetlink_log": "NETFILTER_NETLINK_LOG",
}
_OPENWRT = {
    "ip_set": "kmod-ipt-ipset",
    "iptable_raw": "kmod-ipt-raw",
    "ip6table_raw": "kmod-ipt-raw6",
    "ip6t_REJECT": "kmod-ip6tables",
    "nfnetlink_log": "kmod-nfnetlink-log",
    "nft_compat": "kmod-nft-compat",
    "nft_connlimit": "kmod-nft-connlimit",
    "xt_CT": "kmod-ipt-conntrack",
    "xt_NFLOG": "kmod-ipt-nflog",
    "xt_bpf": "kmod-ipt-filter",
    "xt_connlimit": "kmod-ipt-conntrack-extra",
    "xt_conntrack": "kmod-ipt-conntrack",
    "xt_hashlimit": "kmod-ipt-hashlimit",
    "xt_length": "kmod-ipt-ipopt",
    "xt_recent": "kmod-ipt-conntrack-extra",
    "xt_set": "kmod-ipt-ipset",
    "xt_string": "kmod-ipt-filter",
    "xt_u32": "kmod-ipt-u32",
}


def module_of(part: str, family: Family) -> str:
    """Return the module of a match, a target, `table raw`, `ipset` or a set type (`hash:ip`)."""
    kind, _, rest = part.partition(" ")
    if kind == "table":
        return f"{_TABLES[family]}_{rest or 'filter'}"
    if ":" in part:
        return f"ip_set_{part.replace(':', '_').replace(',', '')}"
    if part == "REJECT":
        return _REJECT[family]
    return _MODULES.get(part, f"xt_{part}")


def config_of(module: str) -> str:
    """Return the symbol of the kernel's configuration."""
    if module in _SYMBOLS:
        return f"CONFIG_{_SYMBOLS[module]}"
    if module.startswith("xt_"):
        name = module.removeprefix("xt_")
        kind = "TARGET" if name.isupper() else "MATCH"
        return f"CONFIG_NETFILTER_XT_{kind}_{name.upper()}"
    for prefix, symbol in (("iptable_", "IP_NF_"), ("ip6table_", "IP6_NF_")):
        if module.startswith(prefix):
            return f"CONFIG_{symbol}{module.removeprefix(prefix).upper()}"
    return f"CONFIG_{module.upper()}"


def openwrt_package_of(module: str) -> str:
    """Return the package that has it on OpenWrt."""
    if module.startswith("ip_set"):
        return _OPENWRT["ip_set"]
    if module in _OPENWRT:
        return _OPENWRT[module]
    return "kmod-nft-core" if module.startswith(("nf_", "nft_")) else "kmod-ipt-core"
