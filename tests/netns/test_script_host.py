"""What the rendered shell script says and does when the host is not as it should be."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from script_host import FLAVOURS, FOREIGN, Host, ruleset, script

from sipfw.lower.iptables import lower
from sipfw.lower.xtables import Family, XChain, XMatch, XPlan, XRule
from sipfw.render.script import script_text

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.netns
pytest_plugins = ("script_fixtures",)


def unloadable_v6() -> str:
    """Return a script whose IPv6 part has a hit count that no kernel takes, after a good one."""
    rules = ruleset()
    plan = lower(rules)
    lists = [chain for table in lower(rules, ipset=False).tables for chain in table.chains]
    recent = next(r for c in lists for r in c.rules if "--hitcount" in _options(r))
    tables = []
    for table in plan.tables:
        chains = table.chains
        if table.family is Family.IP6 and table.name == "raw":
            bad = replace(
                recent, comment="sipfw:bad#00000000", matches=tuple(map(_harder, recent.matches))
            )
            chains = (*chains, XChain("SIP_ZZZ", (recent, bad)))
        tables.append(replace(table, chains=chains))
    return script_text(XPlan(plan.sets, tuple(tables)), rules.sysctls)


def _options(rule: XRule) -> list[str]:
    return [f"--{param.name}" for match in rule.matches for param in match.params]


def _harder(match: XMatch) -> XMatch:
    return replace(
        match,
        params=tuple(
            replace(p, values=("70000",)) if p.name == "hitcount" else p for p in match.params
        ),
    )


def test_the_rehearsal_finds_a_rule_that_the_kernel_refuses(host: Host) -> None:
    said = host.must(unloadable_v6(), status=4)
    assert "the IPv6 rules do not load" in said
    assert host.listing() == []


def test_without_a_scratch_namespace_the_load_itself_finds_it(host: Host) -> None:
    host.hide("unshare")
    host.restore(FOREIGN)
    before = host.listing(counters=True)
    said = host.must(unloadable_v6(), status=5)
    assert "no scratch namespace" in said
    assert host.listing(counters=True) == before
    assert host.ok("ipset", "list", "-n") == ""


def test_check_changes_nothing(host: Host) -> None:
    host.restore(FOREIGN)
    before = host.listing(counters=True)
    host.must(script(), "check")
    # Then the kernel is asked in the namespace itself.
    host.hide("unshare")
    assert "no scratch namespace" in host.must(script(), "check")
    assert host.listing(counters=True) == before
    assert host.ok("ipset", "list", "-n") == ""
    assert host.files() == []


NO_CONNLIMIT = """\
input=$(cat)
case $input in
*"-m connlimit"*) echo "no such match: connlimit" >&2; exit 2 ;;
esac
printf '%s\\n' "$input" | /usr/sbin/iptables-legacy-restore "$@"
exit"""


@pytest.mark.parametrize("hidden", ["", "unshare"])
def test_a_missing_extension_is_named(legacy: Host, hidden: str) -> None:
    legacy.replace_tool("iptables-legacy-restore", NO_CONNLIMIT)
    if hidden:
        legacy.hide(hidden)
    said = legacy.must(script(), "check", status=4)
    assert "not available for ip: match:connlimit (no such match: connlimit)" in said
    assert said.count("not available") == 1
    assert "SIPFW_PROBE" not in legacy.ok("iptables-legacy-save")


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("ipset", "ipset: not found in PATH"),
        ("iptables-legacy-restore", "iptables-legacy-restore: not"),
    ],
)
def test_a_missing_tool_is_named(legacy: Host, missing: str, expected: str) -> None:
    legacy.hide(missing)
    assert expected in legacy.must(script(), status=4)
    assert legacy.files() == []


def test_only_root_may(legacy: Host) -> None:
    legacy.folder.joinpath("firewall.sh").write_text(script())
    for command in ("check", "apply", "status", "remove"):
        done = legacy.run(
            "setpriv", "--reuid", "65534", "--clear-groups", "dash", "-s", command, stdin=script()
        )
        assert (done.returncode, "not root" in done.stderr) == (4, True)


@pytest.mark.parametrize(
    "words", [["reload"], ["status", "apply"], ["--force"], ["remove", "--adopt"]]
)
def test_wrong_usage(legacy: Host, words: list[str]) -> None:
    assert legacy.must(script(), *words, status=2)


def test_help_goes_to_standard_output(legacy: Host) -> None:
    done = legacy.script(script(), "help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--adopt" in done.stdout


def test_rules_on_the_other_side_are_refused_with_both_names(host: Host) -> None:
    other = FLAVOURS[1 - FLAVOURS.index(host.iptables)]
    host.ok(f"{other}-restore", "-c", stdin=FOREIGN)
    said = host.must(script(), status=4)
    assert f"{other}-save shows" in said
    assert f"IPTABLES={other}" in said
    host.env["IPTABLES"] = other
    host.must(script())


def test_without_ip6tables(legacy: Host) -> None:
    legacy.hide("ip6tables-legacy")
    assert "so IPv4 only" in legacy.must(script())
    assert not [line for line in legacy.sets() if "6 " in line]
    assert legacy.must(script(), "status") == ""
    legacy.ok("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    legacy.ok("ip", "-6", "address", "add", "2001:db8::9/64", "dev", "veth0", "nodad")
    assert "open over IPv6" in legacy.must(script(), status=4)
    legacy.must(script(), "remove")


def test_a_dying_session_does_not_stop_the_load(host: Host) -> None:
    for name in ("iptables", "ip6tables"):
        host.replace_tool(
            f"{host.iptables.replace('iptables', name)}-restore",
            'case "${XTABLES_LOCKFILE:-} $*" in\n'
            '" "*--noflush*)\n'
            "for s in HUP INT TERM PIPE; do kill -$s $PPID; done\n"
            'touch "$0.called" ;;\n'
            "esac",
        )
    host.must(script())
    assert len(list(host.folder.glob("tools/*.called"))) == 2
    assert host.must(script(), "status") == ""


def test_a_busy_lock_is_explained(legacy: Host, tmp_path: Path) -> None:
    legacy.replace_tool(
        "iptables-legacy-restore",
        '[ -n "${XTABLES_LOCKFILE:-}" ] || { [ "$1 $2" = "-w 10" ] && set -- -w 1 --noflush; '
        f"export XTABLES_LOCKFILE={tmp_path}/lock; }}",
    )
    holder = subprocess.Popen(["flock", f"{tmp_path}/lock", "sleep", "20"])
    try:
        while not (tmp_path / "lock").exists():
            time.sleep(0.01)
        time.sleep(0.1)
        assert "another program holds the xtables lock" in legacy.must(script(), status=5)
    finally:
        holder.kill()
        holder.wait()


def test_a_tool_that_does_not_run_is_not_taken_for_a_clean_host(legacy: Host) -> None:
    legacy.hide("awk")
    broken = legacy.folder / "sbin" / "awk"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    for command in ("check", "apply", "status", "remove"):
        assert "does not work" in legacy.must(script(), command, status=4)
