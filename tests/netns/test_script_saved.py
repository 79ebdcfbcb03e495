"""The rendered script on a host where another program saves the rules and loads them at boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from script_host import FOREIGN, script

if TYPE_CHECKING:
    from pathlib import Path

    from script_host import Host

pytestmark = pytest.mark.netns
pytest_plugins = ["script_fixtures"]

TABLES = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}
EMPTY = "".join(
    f"*{table}\n" + "".join(f":{hook} ACCEPT [0:0]\n" for hook in hooks) + "COMMIT\n"
    for table, hooks in TABLES.items()
)


def _programs(host: Host) -> tuple[str, str]:
    return host.iptables, host.iptables.replace("iptables", "ip6tables")


def _save(host: Host) -> list[Path]:
    folder = host.root / "etc/iptables"
    folder.mkdir(parents=True)
    files = [folder / "rules.v4", folder / "rules.v6"]
    for program, file in zip(_programs(host), files, strict=True):
        file.write_text(host.ok(f"{program}-save"))
    return files


def _power_cut(host: Host) -> None:
    for program in _programs(host):
        host.ok(f"{program}-restore", stdin=EMPTY)
    for _ in range(50):
        if host.run("ipset", "destroy").returncode == 0:
            return
    raise AssertionError("sets stay in use")


def _start(host: Host, files: list[Path]) -> list[int]:
    return [
        host.run(f"{program}-restore", stdin=file.read_text()).returncode
        for program, file in zip(_programs(host), files, strict=True)
    ]


def _foreign(host: Host) -> list[str]:
    return [line.partition("] ")[2] for line in host.foreign_rules()]


def test_saved_rules_load_once_the_sets_are_made(host: Host) -> None:
    text = script()
    host.restore(FOREIGN)
    foreign = _foreign(host)
    host.must(text, "apply")
    files = _save(host)
    said = host.must(text, "apply")
    for file in files:
        assert f"{file} holds rules of this firewall, and none of it loads" in said
    _power_cut(host)
    assert 0 not in _start(host, files)
    # What a boot without that comes to: SIP is guarded, and nothing else of the host's is there.
    host.must(text, "apply")
    host.must(text, "status")
    assert _foreign(host) == []
    _power_cut(host)
    assert "made 0 sets" not in host.must(text, "sets")
    assert "made 0 sets" in host.must(text, "sets")
    assert _start(host, files) == [0, 0]
    host.must(text, "apply")
    host.must(text, "status")
    assert _foreign(host) == foreign
    assert host.ok(f"{host.iptables}-save").count("-j SIPFW_INPUT") == 1
