"""What `--backend auto` chooses, on made-up hosts and in namespaces that hold real rules."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from test_live_commands import Host

from sipfw.deploy.choose import for_host
from sipfw.errors import BackendError
from sipfw.host.runner import Completed
from sipfw.kernel.detect import Flavour, look
from sipfw.kernel.detect import PacketFilters as Found
from sipfw.kernel.xtables.choice import iptables_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

PROGRAMS = frozenset({"iptables", "iptables-legacy-save", "iptables-nft-save", "ipset", "nft"})
EMPTY = Found(flavour=Flavour.NF_TABLES, legacy_core=True, programs=PROGRAMS)
LEGACY_HOST = replace(EMPTY, flavour=Flavour.LEGACY)
NO_IPSET = replace(EMPTY, programs=PROGRAMS - {"ipset"})
OLD = ("ip filter INPUT (3 rules)",)
NEW = ("ip filter FORWARD (2 rules)",)
OTHER = ("inet firewalld filter_INPUT (9 rules)",)

CHOICES = {
    "legacy rules": (replace(EMPTY, legacy=OLD), "iptables", "ip filter INPUT (3 rules)"),
    "rules of iptables-nft": (replace(LEGACY_HOST, iptables_nft=NEW), "iptables-nft", "FORWARD"),
    "iptables-nft beside nft": (
        replace(EMPTY, iptables_nft=NEW, nft=OTHER),
        "iptables-nft",
        "ip filter FORWARD",
    ),
    "nft only": (replace(EMPTY, nft=OTHER), "nftables", "inet firewalld"),
    "nothing, nf_tables": (EMPTY, "iptables-nft", "says nf_tables"),
    "nothing, legacy": (LEGACY_HOST, "iptables", "says legacy"),
    "nothing, legacy without kernel": (
        replace(LEGACY_HOST, legacy_core=False),
        "nftables",
        "no legacy tables",
    ),
    "nothing, no ipset": (NO_IPSET, "nftables", "no ipset program"),
    "nothing, no iptables": (
        Found(legacy_core=True, programs=frozenset({"nft"})),
        "nftables",
        "no iptables command",
    ),
    "ours in legacy beside nft": (
        replace(EMPTY, ours=frozenset({"iptables"}), nft=OTHER, legacy=OLD),
        "iptables",
        "no apply is on record",
    ),
}


@pytest.mark.parametrize("name", CHOICES)
def test_the_host_decides(name: str) -> None:
    host, backend, reason = CHOICES[name]
    chosen, said = for_host(host)
    assert chosen == backend
    assert reason in said


def test_without_sets_ipset_is_not_missed() -> None:
    assert for_host(NO_IPSET, ipset=False)[0] == "iptables-nft"


@pytest.mark.parametrize("other", [{"iptables_nft": NEW}, {"nft": OTHER}])
def test_a_split_names_both_sides(other: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(BackendError) as info:
        for_host(replace(EMPTY, legacy=OLD, **other))
    message = str(info.value)
    assert "legacy iptables has ip filter INPUT (3 rules)" in message
    assert f"nf_tables has {next(iter(other.values()))[0]}" in message
    assert "--backend" in message
    assert "\n" not in message


def test_a_host_without_any_tool_is_told_what_to_install() -> None:
    with pytest.raises(BackendError, match="install nftables"):
        for_host(Found())
    with pytest.raises(BackendError, match="no iptables command"):
        iptables_engine(Found())


def test_our_rules_in_two_places_are_an_error() -> None:
    with pytest.raises(BackendError, match="iptables and nftables; run sipfw remove"):
        for_host(replace(EMPTY, ours=frozenset({"iptables", "nftables"})))


ENGINES = {
    "flavour nf_tables": (EMPTY, "iptables-nft"),
    "flavour legacy": (LEGACY_HOST, "iptables"),
    "rules say legacy": (replace(EMPTY, legacy=OLD), "iptables"),
    "rules say nf_tables": (replace(LEGACY_HOST, iptables_nft=NEW), "iptables-nft"),
    "split goes by the flavour": (replace(EMPTY, legacy=OLD, iptables_nft=NEW), "iptables-nft"),
    "ours": (replace(EMPTY, ours=frozenset({"iptables", "nftables"})), "iptables"),
}


@pytest.mark.parametrize("name", ENGINES)
def test_iptables_means_one_of_two_engines(name: str) -> None:
    host, engine = ENGINES[name]
    assert iptables_engine(host)[0] == engine


class Tools:
    """Answers for a host's programs, and says which were run."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self.answers = answers
        self.ran: list[str] = []

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        self.ran.append(" ".join(argv))
        return Completed(0, self.answers.get(" ".join(argv), ""), "")


def test_legacy_tools_do_not_run_where_the_kernel_has_no_legacy_table(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    for names in (None, ""):
        if names is not None:
            (tmp_path / "net/ip_tables_names").write_text(names)
        tools = Tools({"iptables --version": "iptables v1.8.9 (nf_tables)"})
        found = look(tools, tmp_path, tmp_path, lambda _: True)
        assert not [line for line in tools.ran if "legacy" in line]
        assert found.legacy_core == (names is not None)
    (tmp_path / "net/ip_tables_names").write_text("filter\n")
    tools = Tools({"iptables-legacy-save -c": "*filter\n:INPUT DROP [0:0]\nCOMMIT\n"})
    assert look(tools, tmp_path, tmp_path, lambda _: True).legacy == (
        "ip filter INPUT (policy DROP)",
    )
    assert [line for line in tools.ran if "legacy" in line] == ["iptables-legacy-save -c"]


def test_a_chain_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    listing = "table inet x {\n\tchain a\x1b[2J {\n\t\tcounter packets 1 bytes 2 drop\n\t}\n}\n"
    tools = Tools({"nft list tables": "table inet x\n", "nft -t list table inet x": listing})
    (place,) = look(tools, tmp_path, tmp_path, lambda _: True).nft
    assert place == "inet x a\\x1b[2J (1 rule)"


def test_tables_without_rules_are_nobodys(tmp_path: Path) -> None:
    listing = (
        "table inet filter {\n\tset s {\n\t\ttype ipv4_addr\n\t}\n\n\tchain input {\n"
        "\t\ttype filter hook input priority filter; policy accept;\n\t}\n}\n"
    )
    tables = "table inet filter\n"
    tools = Tools({"nft list tables": tables, "nft -t list table inet filter": listing})
    assert look(tools, tmp_path, tmp_path, lambda _: True).nft == ()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.delenv("SIPFW_BACKEND")
    name = f"sipfw-choice-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Host(name, tmp_path)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def note(done: subprocess.CompletedProcess[str]) -> str:
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("note: backend: ")]
    return line


def dry(host: Host, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return host.must("apply", "--dry-run", "--policy", host.policy(), *words, code=code)


@pytest.mark.netns
def test_legacy_rules_lead_to_legacy_tables(host: Host) -> None:
    host.run("iptables-legacy", "-A", "INPUT", "-s", "198.51.100.1", "-j", "DROP")
    done = dry(host)
    assert "into iptables, " in done.stdout
    assert "ip filter INPUT (1 rule)" in note(done)
    assert "into iptables, " in dry(host, "--backend", "iptables").stdout


@pytest.mark.netns
def test_rules_of_iptables_nft_lead_to_the_restore_engine(host: Host) -> None:
    host.run("iptables-nft", "-A", "INPUT", "-s", "198.51.100.1", "-j", "DROP")
    host.run("nft", "-f", "-", stdin="table ip x {\n\tchain y {\n\t\tdrop\n\t}\n}\n")
    done = dry(host)
    assert "into iptables-nft, " in done.stdout
    assert "ip filter INPUT (1 rule)" in note(done)
    assert "into iptables-nft, " in dry(host, "--backend", "iptables").stdout
    # Looking has not made a legacy table.
    assert host.run("cat", "/proc/net/ip_tables_names").stdout == ""


@pytest.mark.netns
def test_nft_tables_lead_to_nftables(host: Host) -> None:
    # A table of iptables' name with a base chain of another is not made by iptables.
    native = "chain input { type filter hook input priority 0; policy drop; }"
    for table in ("inet x", "ip filter"):
        host.run(
            "nft",
            "-f",
            "-",
            stdin=f"add table {table}\nadd {native}".replace("chain", f"chain {table}"),
        )
    done = dry(host)
    assert "into nftables, " in done.stdout
    assert "inet x input (policy drop)" in note(done)


@pytest.mark.netns
def test_a_split_is_refused_and_an_explicit_side_warned_of(host: Host) -> None:
    host.run("iptables-legacy", "-A", "INPUT", "-s", "198.51.100.1", "-j", "DROP")
    host.run("nft", "-f", "-", stdin="table ip x {\n\tchain y {\n\t\tdrop\n\t}\n}\n")
    refused = host.must("apply", "--policy", host.policy(), code=4)
    assert "legacy iptables has ip filter INPUT (1 rule); nf_tables has ip x y (1 rule)" in (
        refused.stderr
    )
    assert not host.root.exists()
    assert "warning: backend:" in dry(host, "--backend", "nftables").stderr
    assert "ip x y (1 rule)" in dry(host, "--backend", "iptables-legacy").stderr


@pytest.mark.netns
def test_the_record_wins_and_then_the_rules_themselves(host: Host) -> None:
    policy = host.policy()
    host.must("apply", "--policy", policy, "--backend", "nftables")
    host.run("iptables-nft", "-A", "INPUT", "-s", "198.51.100.1", "-j", "DROP")
    assert "the last apply used it" in note(host.must("apply", "--policy", policy))
    assert "nftables" in note(host.sipfw("verify", "--policy", policy))
    (host.root / "var/lib/sipfw/applied.json").unlink()
    assert "no apply is on record" in note(host.sipfw("verify", "--policy", policy))
    host.must("remove")
    assert host.run("nft", "list", "tables").stdout == "table ip filter\n"


@pytest.mark.netns
def test_auto_goes_live_on_an_empty_host_and_is_removed_without_a_record(host: Host) -> None:
    host.must("apply", "--policy", host.policy())
    host.must("verify")
    host.must("apply", "--policy", host.policy())
    live = json.loads((host.root / "var/lib/sipfw/applied.json").read_text())["backend"]
    version = host.run("iptables", "--version").stdout
    assert live == ("iptables-nft" if "nf_tables" in version else "iptables")
    (host.root / "var/lib/sipfw/applied.json").unlink()
    done = host.must("remove")
    assert "note:" not in done.stderr
    assert host.sets() == []
    assert host.run("nft", "list", "tables").stdout == ""


@pytest.mark.netns
def test_an_unknown_backend_on_record_is_refused(host: Host) -> None:
    host.must("apply", "--policy", host.policy(), "--backend", "nftables")
    record = host.root / "var/lib/sipfw/applied.json"
    record.write_text(record.read_text().replace('"nftables"', '"ebtables"'))
    done = host.must("apply", "--policy", host.policy(), code=4)
    assert "backend 'ebtables' is not known" in done.stderr


@pytest.mark.netns
def test_an_unprivileged_container_is_not_asked_for_a_namespace(host: Host) -> None:
    """CAP_NET_ADMIN is enough for the restore engine: it goes without its rehearsal."""
    command = [sys.executable, "-m", "sipfw", "apply", "--root", str(host.root)]
    done = host.run(
        "setpriv", "--bounding-set", "-sys_admin", *command,
        "--policy", host.policy(), "--backend", "iptables-nft",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the live firewall is the applied one" in host.must("verify").stdout
