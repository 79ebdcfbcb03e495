"""A missing module: why it is missing, and the command that helps on this very system."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sipfw.kernel.distribution import Distribution, read_distribution
from sipfw.kernel.lacking import Lack, LackingError, lack_of, modules_error, what_matters
from sipfw.kernel.module_help import System
from sipfw.kernel.modules import config_of, module_of, openwrt_package_of
from sipfw.lower.xtables import Family

if TYPE_CHECKING:
    from pathlib import Path

RELEASE = "6.1.0-13-amd64"
SYSTEMS = {
    "rhel7": 'ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="7"\n',
    "rhel8": 'ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="8.9"\n',
    "rhel9": 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n',
    "rhel10": 'ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="10.2"\n',
    "debian": 'ID=debian\nVERSION_ID="12"\n',
    "ubuntu": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n',
    "mint": 'ID=linuxmint\nID_LIKE="ubuntu debian"\n',
    "alpine": "ID=alpine\nVERSION_ID=3.20.1\n",
    "openwrt": 'ID="openwrt"\nID_LIKE="lede openwrt"\nVERSION_ID="23.05.2"\n',
    "suse": 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.6"\n',
    "arch": "ID=arch\n",
    "other": "ID=gentoo\n",
    "hostile": 'ID="$(reboot)"\nVERSION_ID="`x`"\n',
}
EXTRA = "dnf install kernel-modules-extra-$(uname -r)"


@pytest.fixture
def system(tmp_path: Path) -> System:
    for name in ("root/etc", "proc/sys/kernel", "root/sbin", f"modules/{RELEASE}"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root/sbin/modprobe").touch()
    (tmp_path / "proc/sys/kernel/modprobe").write_text("/sbin/modprobe\n")
    (tmp_path / "proc/sys/kernel/modules_disabled").write_text("0\n")
    (tmp_path / f"modules/{RELEASE}/modules.dep").write_text(
        "kernel/net/netfilter/xt_hashlimit.ko.xz: kernel/net/netfilter/x_tables.ko.xz\n"
    )
    return System(tmp_path / "root", tmp_path / "proc", tmp_path / "modules", RELEASE)


def is_a(system: System, name: str) -> System:
    system.root.joinpath("etc/os-release").write_text(SYSTEMS[name])
    return system


@pytest.mark.parametrize(
    ("name", "module", "command"),
    [
        ("rhel7", "xt_u32", "yum install kernel && reboot"),
        ("rhel8", "xt_u32", EXTRA),
        ("rhel9", "xt_u32", None),
        ("rhel9", "xt_string", EXTRA),
        ("rhel10", "xt_u32", None),
        ("rhel10", "nft_compat", EXTRA),
        ("debian", "xt_u32", "apt install linux-image-"),
        ("ubuntu", "xt_u32", "apt install linux-modules-extra-$(uname -r)"),
        ("mint", "xt_u32", "apt install linux-modules-extra-$(uname -r)"),
        ("alpine", "xt_u32", "apk add linux-lts && reboot"),
        ("openwrt", "xt_u32", "opkg install kmod-ipt-u32"),
        ("openwrt", "ip_set_hash_net", "opkg install kmod-ipt-ipset"),
        ("suse", "xt_u32", "zypper install kernel-default && reboot"),
        ("arch", "xt_u32", "pacman -S linux && reboot"),
        ("other", "xt_u32", None),
        ("hostile", "xt_u32", None),
    ],
)
def test_each_system_has_its_command(
    name: str, module: str, command: str | None, system: System
) -> None:
    found = is_a(system, name).help_for([module]).command
    assert found == command or (command and found and found.startswith(command))


def test_where_a_module_is_known_to_be_missing_is_said(system: System) -> None:
    assert "8 keeps it in kernel-modules-extra" in str(system.help_for(["xt_u32"]).cause)
    assert str(system.help_for(["nft_compat", "xt_CT"]).cause).startswith("RHEL, Alma and Rocky 10")
    assert system.help_for(["nft_quota"]).cause == "it takes a kernel with CONFIG_NFT_QUOTA"


def test_a_module_that_is_there_is_loaded_first(system: System) -> None:
    wanted = ["xt_hashlimit", "xt_u32"]
    assert is_a(system, "debian").help_for(wanted).command == "modprobe -a xt_hashlimit"


def test_loading_is_switched_off(system: System) -> None:
    (system.proc / "sys/kernel/modules_disabled").write_text("1\n")
    found = system.help_for(["xt_hashlimit"])
    assert "kernel.modules_disabled=1" in str(found.cause)
    assert str(found.command).endswith("xt_hashlimit >/etc/modules-load.d/sipfw.conf && reboot")


@pytest.mark.parametrize("module", ["xt_hashlimit", "xt_u32"])
def test_a_container_cannot_load_modules(module: str, system: System) -> None:
    (system.proc / "self").mkdir()
    (system.proc / "self/status").write_text("Name:\tsipfw\nCapEff:\t00000000a80c35fb\n")
    found = system.help_for([module])
    assert found.command == f"on the host: modprobe -a {module}"
    (system.proc / "self/status").write_text("Name:\tsipfw\nCapEff:\t000001ffffffffff\n")
    assert system.help_for(["xt_hashlimit"]).command == "modprobe -a xt_hashlimit"


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("blacklist xt-hashlimit", "modprobe -a xt_hashlimit"),
        ("install xt_hashlimit /bin/true", "take that line out; modprobe xt_hashlimit"),
    ],
)
def test_modprobe_is_told_to_leave_it(line: str, command: str, system: System) -> None:
    folder = system.root / "etc/modprobe.d"
    folder.mkdir()
    (folder / "a.conf").write_bytes(b"# xt_hashlimit\n\xff\xfe\nblacklist xt_hashlimits\n")
    (folder / "b.conf").write_text(f"options xt_recent ip_list_tot=1000\n{line}\n")
    (folder / "c.conf").mkdir()
    found = system.help_for(["xt_hashlimit"])
    assert "/etc/modprobe.d/b.conf:2" in str(found.cause)
    assert found.command == command


def test_without_modprobe_it_is_installed(system: System) -> None:
    (system.root / "sbin/modprobe").unlink()
    found = is_a(system, "alpine").help_for(["xt_hashlimit"])
    assert (found.cause, found.command) == ("there is no /sbin/modprobe", "apk add kmod")


def test_after_an_update_of_the_kernel(system: System) -> None:
    gone = System(system.root, system.proc, system.modules, "5.10.0-1-amd64")
    assert gone.help_for(["xt_u32"]).command == "reboot"


def test_a_system_without_any_file_is_answered(tmp_path: Path) -> None:
    nothing = System(tmp_path, tmp_path, tmp_path, RELEASE)
    assert read_distribution(tmp_path) == Distribution()
    assert nothing.help_for(["xt_hashlimit"]).command is None


NAMES = {
    "u32": ("xt_u32", "CONFIG_NETFILTER_XT_MATCH_U32", "kmod-ipt-u32"),
    "SET": ("xt_set", "CONFIG_NETFILTER_XT_SET", "kmod-ipt-ipset"),
    "NFLOG": ("xt_NFLOG", "CONFIG_NETFILTER_XT_TARGET_NFLOG", "kmod-ipt-nflog"),
    "REJECT": ("ipt_REJECT", "CONFIG_IP_NF_TARGET_REJECT", "kmod-ipt-core"),
    "udp": ("xt_tcpudp", "CONFIG_NETFILTER_XTABLES", "kmod-ipt-core"),
    "table raw": ("iptable_raw", "CONFIG_IP_NF_RAW", "kmod-ipt-raw"),
    "hash:ip,port": ("ip_set_hash_ipport", "CONFIG_IP_SET_HASH_IPPORT", "kmod-ipt-ipset"),
    "ipset": ("ip_set", "CONFIG_IP_SET", "kmod-ipt-ipset"),
}


@pytest.mark.parametrize("part", NAMES)
def test_names(part: str) -> None:
    module, config, package = NAMES[part]
    assert module_of(part, Family.IP) == module
    assert (config_of(module), openwrt_package_of(module)) == (config, package)


def test_a_lack_is_one_line(system: System) -> None:
    lacks = [Lack("u32", family) for family in Family]
    assert str(LackingError(lacks, is_a(system, "rhel8"))) == (
        "this host cannot run the rules: the kernel lacks xt_u32: RHEL, Alma and Rocky 9 and later "
        "are built without it, 8 keeps it in kernel-modules-extra; run: dnf install "
        "kernel-modules-extra-$(uname -r) (or: sipfw apply --backend nftables)"
    )
    sets = LackingError([Lack("ipset", Family.IP)], is_a(system, "debian"))
    assert str(sets).endswith("(or: sipfw apply --no-ipset, or --backend nftables)")
    both = LackingError([Lack("REJECT", family) for family in Family], system)
    assert "the kernel lacks ipt_REJECT, ip6t_REJECT" in str(both)


def test_what_fails_with_something_else_is_not_named() -> None:
    """Each probe is a rule with a comment in a table."""
    parts = ("table", "comment", "u32")
    without_library = [Lack(part, Family.IP, library=True) for part in parts]
    without_core = [Lack(part, Family.IP) for part in parts]
    assert [lack.part for lack in what_matters(without_library)] == ["comment"]
    assert [lack.part for lack in what_matters(without_core)] == ["table"]
    assert [lack.part for lack in what_matters(without_core[2:])] == ["u32"]


@pytest.mark.parametrize(
    "said",
    [
        "iptables-restore v1.4.21: Couldn't load match `u32':No such file or directory",
        "can't find match u32",
    ],
)
def test_a_program_without_its_half_is_no_kernel(said: str, system: System) -> None:
    lack = lack_of("u32", Family.IP, said)
    assert str(LackingError([lack], is_a(system, "openwrt"))) == (
        "this host cannot run the rules: iptables has no extension u32; run: opkg install "
        "iptables-mod-u32 (or: sipfw apply --backend nftables)"
    )


def test_what_is_no_module_needs_a_newer_kernel(system: System) -> None:
    text = str(modules_error(["raw payload @ih (kernel 5.16)"], "sipfw apply", system))
    assert text == (
        "this host cannot run the rules: the kernel lacks raw payload @ih (kernel 5.16); "
        "run: sipfw apply"
    )
