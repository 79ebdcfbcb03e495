"""The commands that look at no firewall: what goes where, and with which exit code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sipfw import __version__
from sipfw.cli import cli
from sipfw.errors import Exit
from sipfw.policy.fields import field_names
from sipfw.policy.model import Limits, Methods, Policy
from sipfw.resolver.name_servers import NameServers
from sipfw.resolver.records import Unanswered

if TYPE_CHECKING:
    from conftest import Sipfw

_COMMANDS = [
    "init", "check", "render", "apply", "confirm", "rollback", "history", "restore", "verify",
    "remove", "doctor", "profiles", "schema",
]  # fmt: skip

_POLICY = """\
profile: wholesale
switch: asterisk
admin: {networks: [192.0.2.0/28]}
trusted_peers: [{name: carrier-a, signalling: [203.0.113.10], tier: large}]
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(_POLICY, encoding="utf-8")
    return file


def _process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sipfw", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from sipfw.cli import main\n"
        f"sys.argv = ['sipfw', *{arguments!r}]\n"
        "try:\n main()\nexcept SystemExit as stopped:\n assert stopped.code in (0, None)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.splitlines()[-1].split())
    assert "click" in loaded
    assert not loaded & {"iptc", "pydantic", "jinja2", "yaml"}


@pytest.mark.parametrize("command", _COMMANDS)
def test_each_command_has_a_help_page(command: str, sipfw: Sipfw) -> None:
    ran = sipfw(command, "--help")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Usage: ")


def test_the_help_page_lists_every_command(sipfw: Sipfw) -> None:
    assert set(cli.list_commands(cli.make_context("sipfw", ["check"]))) >= set(_COMMANDS)
    page = sipfw("--help").stdout
    assert all(f"  {command} " in page for command in _COMMANDS)


def test_the_version(sipfw: Sipfw) -> None:
    assert __version__ in sipfw("--version").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["check", "--frobnicate"],
        ["render", "--format", "pdf"],
        ["check", "x"],
        ["check", "\x1b[31m\nx"],
        ["why"],
        ["ban", "198.51.100.1", "--for", "2y"],
        ["top", "--seconds", "x"],
        ["verify", "--watch", "--interval", "nan"],
    ],
)
def test_wrong_usage(arguments: list[str], sipfw: Sipfw) -> None:
    ran = sipfw(*arguments)
    assert (ran.code, ran.stdout) == (Exit.USAGE, "")
    assert ran.stderr.startswith("Error: ")
    assert ran.stderr.count("\n") == 1
    assert "\x1b" not in ran.stderr
    assert "; " in ran.stderr


def test_check_says_its_verdict_on_stderr(policy: Path, sipfw: Sipfw, tmp_path: Path) -> None:
    ran = sipfw("check", "--policy", str(policy), "--root", str(tmp_path))
    assert (ran.code, ran.stdout) == (Exit.CLEAN, "")
    assert ran.stderr.startswith("the policy is sound: 1 trusted peer, ")


def test_check_explains_every_value(policy: Path, sipfw: Sipfw, tmp_path: Path) -> None:
    arguments = ["check", "--policy", str(policy), "--root", str(tmp_path), "--explain"]
    arguments += ["--set", "learning.failures=3"]
    rows = {line.split()[0]: line for line in sipfw(*arguments).stdout.splitlines()}
    assert rows["learning.pending"].endswith("built-in")
    assert rows["signalling.tls"].endswith("switch asterisk:2")
    assert rows["bans.duration"].endswith("profile wholesale:9")
    assert rows["trusted_peers.carrier-a.tier"].endswith(f"{policy}:4")
    assert rows["learning.failures"].endswith("command line")
    as_json = json.loads(sipfw(*arguments, "--json").stdout)
    assert [row["field"] for row in as_json] == list(rows)
    assert set(as_json[0]) == {"field", "value", "origin"}


def test_json_without_explain_says_whether_it_is_sound(policy: Path, sipfw: Sipfw) -> None:
    found = json.loads(sipfw("check", "--policy", str(policy), "--json").stdout)
    assert (found["command"], found["exit"], found["sound"]) == ("check", Exit.CLEAN, True)


def test_without_a_policy_the_shipped_values_are_named(sipfw: Sipfw, tmp_path: Path) -> None:
    ran = sipfw("check", "--root", str(tmp_path))
    assert ran.code == Exit.CLEAN
    assert ran.stderr.splitlines()[0].startswith("no policy file: using shipped values")
    assert "no trusted peers" in ran.stderr
    assert "no admin networks" in ran.stderr


def test_the_policy_of_the_host_is_the_default(
    sipfw: Sipfw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc/sipfw").mkdir(parents=True)
    (tmp_path / "etc/sipfw/policy.yaml").write_text(_POLICY, encoding="utf-8")
    by_option = sipfw("check", "--root", str(tmp_path))
    monkeypatch.setenv("SIPFW_ROOT", str(tmp_path))
    assert by_option == sipfw("check")
    assert by_option.stderr.startswith("the policy is sound: 1 trusted peer, ")


def test_a_name_without_an_address_is_incomplete(
    policy: Path, sipfw: Sipfw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_dns(*_: object) -> None:
        raise Unanswered("no answer in time")

    monkeypatch.setattr(NameServers, "ask", no_dns)
    policy.write_text("trusted_peers: [{name: a, signalling: [sip.example.com]}]\n", "utf-8")
    ran = sipfw("check", "--policy", str(policy), "--root", str(tmp_path))
    assert ran.code == Exit.INCOMPLETE
    assert "'sip.example.com' has no address now (no answer in time)" in ran.stderr


@pytest.mark.parametrize("form", ["restore", "ipset", "sysctl"])
def test_rendering_needs_no_root_and_no_programs(form: str, policy: Path, tmp_path: Path) -> None:
    arguments = ["render", "--format", form, "--policy", str(policy), "--root", str(tmp_path)]
    ran = _as_nobody(tmp_path, *arguments)
    assert ran.returncode == Exit.CLEAN, ran.stderr
    assert ran.stdout.endswith("\n")
    assert ran.stderr == ""


@pytest.mark.parametrize(("family", "program"), [("ip", "iptables"), ("ip6", "ip6tables")])
def test_one_family(family: str, program: str, policy: Path, sipfw: Sipfw, tmp_path: Path) -> None:
    arguments = ["--policy", str(policy), "--root", str(tmp_path)]
    text = sipfw("render", "--format", "restore", "--family", family, *arguments).stdout
    assert f"with {program}-restore" in text
    assert text.count("*raw") == text.count("*filter") == 1
    assert ("--icmpv6-type" in text) == (family == "ip6")


def test_a_host_without_ipset_hears_what_that_costs(
    policy: Path, sipfw: Sipfw, tmp_path: Path
) -> None:
    arguments = ["--policy", str(policy), "--root", str(tmp_path), "--no-ipset"]
    ran = sipfw("render", "--format", "restore", *arguments)
    assert "--match-set" not in ran.stdout
    assert "warning: --no-ipset: without ipset" in ran.stderr
    assert sipfw("render", "--format", "ipset", *arguments).stdout.strip() == ""


def test_a_template_of_the_operator_wins(policy: Path, sipfw: Sipfw, tmp_path: Path) -> None:
    folder = tmp_path / "templates"
    folder.mkdir()
    arguments = ["render", "--format", "restore", "--policy", str(policy), "--root", str(tmp_path)]
    arguments += ["--template-dir", str(folder)]
    (folder / "restore.rules.j2").write_text("mine {{ family }}\n", encoding="utf-8")
    assert sipfw(*arguments).stdout.split() == ["mine", "ip", "mine", "ip6"]
    (folder / "restore.rules.j2").write_text("\n{{ nope }}\n", encoding="utf-8")
    broken = sipfw(*arguments)
    assert (broken.code, broken.stdout) == (Exit.BACKEND, "")
    assert broken.stderr.startswith("restore.rules.j2")


@pytest.mark.parametrize("text", [b"{{ 1 / 0 }}", b"\xff", b"{{ 'a' + 1 }}"])
def test_any_broken_template_is_the_operators(
    text: bytes, policy: Path, sipfw: Sipfw, tmp_path: Path
) -> None:
    (tmp_path / "restore.rules.j2").write_bytes(text)
    arguments = ["render", "--format", "restore", "--policy", str(policy), "--root", str(tmp_path)]
    assert sipfw(*arguments, "--template-dir", str(tmp_path)).code == Exit.BACKEND


def test_profiles_are_listed_and_shown(sipfw: Sipfw) -> None:
    listed = sipfw("profiles")
    assert (listed.code, listed.stderr) == (0, "")
    assert "  wholesale " in listed.stdout
    assert "  asterisk " in listed.stdout
    assert sipfw("profiles", "wholesale").stdout.startswith("# wholesale: ")
    unknown = sipfw("profiles", "wholsale")
    assert (unknown.code, unknown.stdout) == (Exit.POLICY, "")
    assert "did you mean wholesale?" in unknown.stderr


def test_the_schema_knows_every_field(sipfw: Sipfw) -> None:
    ran = sipfw("schema")
    assert (ran.code, ran.stderr) == (0, "")
    schema = json.loads(ran.stdout)
    assert set(schema["properties"]) == set(field_names(Policy))
    assert set(schema["$defs"]["Limits"]["properties"]) == set(field_names(Limits))
    assert set(schema["$defs"]["Methods"]["properties"]) == set(field_names(Methods))
    assert all(part["additionalProperties"] is False for part in (schema, *_objects(schema)))
    assert "wholesale" in schema["properties"]["profile"]["enum"]
    assert schema["$defs"]["Peer"]["required"] == ["name", "signalling"]


def _objects(schema: dict[str, dict[str, dict[str, object]]]) -> list[dict[str, object]]:
    return [part for part in schema["$defs"].values() if part["type"] == "object"]


def test_init_writes_what_check_accepts(sipfw: Sipfw, tmp_path: Path) -> None:
    made = sipfw("init", "--root", str(tmp_path), "--profile", "retail", "--switch", "asterisk")
    target = tmp_path / "etc/sipfw/policy.yaml"
    assert (made.code, made.stdout) == (0, "")
    assert str(target) in made.stderr
    assert target.stat().st_mode & 0o777 == 0o600
    checked = sipfw("check", "--root", str(tmp_path))
    assert checked.code == Exit.CLEAN, checked.stderr


def test_init_overwrites_nothing_by_itself(sipfw: Sipfw, tmp_path: Path) -> None:
    target = tmp_path / "policy.yaml"
    target.write_text("mine", encoding="utf-8")
    refused = sipfw("init", "--output", str(target))
    assert (refused.code, refused.stdout) == (Exit.BACKEND, "")
    assert refused.stderr == f"{target} exists; use --force to overwrite it\n"
    assert target.read_text(encoding="utf-8") == "mine"
    assert sipfw("init", "--output", str(target), "--force").code == 0
    assert target.read_text(encoding="utf-8") != "mine"


def test_init_to_stdout_writes_no_file(sipfw: Sipfw, tmp_path: Path) -> None:
    ran = sipfw("init", "--output", "-", "--root", str(tmp_path))
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.startswith("# sipfw policy.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--profile", "--switch"])
def test_init_refuses_an_unknown_choice(option: str, sipfw: Sipfw, tmp_path: Path) -> None:
    ran = sipfw("init", "--root", str(tmp_path), option, "nope")
    assert (ran.code, ran.stdout) == (Exit.POLICY, "")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_is_no_fault(policy: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "sipfw", "render", "--format", "restore", "--policy", str(policy)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    said = running.stderr.read()
    running.stderr.close()
    running.wait(20)
    assert said == b""


def test_a_full_disk_behind_stdout_is_no_fault_of_ours() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sipfw", "schema"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == Exit.BACKEND
    assert done.stderr == "standard output: cannot be written: no space left on device\n"


def test_a_fault_of_ours_is_no_traceback(
    sipfw: Sipfw, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("ouch")

    monkeypatch.setattr("sipfw.policy.load.load", broken)
    ran = sipfw("check", "--root", str(tmp_path))
    assert ran.code == 70
    assert "a fault in sipfw itself: RuntimeError: ouch" in ran.stderr
    assert "Traceback" not in ran.stderr


def _as_nobody(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run without root's rights and without programs to call."""
    command = [sys.executable, "-m", "sipfw", *arguments]
    if os.geteuid() == 0:
        for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
            folder.chmod(0o755)
        setpriv = shutil.which("setpriv") or "setpriv"
        drop = [setpriv, "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        command = [*drop, *command]
    environment = {**os.environ, "HOME": "/", "PATH": ""}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    "arguments", [["apply"], ["apply", "--dry-run"], ["verify"], ["remove"], ["remove", "--yes"]]
)
def test_only_root_may_touch_the_firewall(
    arguments: list[str], policy: Path, tmp_path: Path
) -> None:
    chosen = [] if arguments[0] == "remove" else ["--policy", str(policy)]
    ran = _as_nobody(tmp_path, *arguments, *chosen, "--root", str(tmp_path))
    assert (ran.returncode, ran.stdout) == (Exit.BACKEND, "")
    assert ran.stderr == "only root may see or change the firewall; use sudo\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a folder that another user cannot read")
@pytest.mark.parametrize("command", ["check", "render", "init"])
def test_a_policy_folder_for_root_alone(command: str, tmp_path: Path) -> None:
    """`sipfw init` itself makes it so."""
    (tmp_path / "etc/sipfw").mkdir(parents=True, mode=0o700)
    ran = _as_nobody(tmp_path, command, "--root", str(tmp_path))
    assert ran.returncode in {Exit.POLICY, Exit.BACKEND}
    assert "permission denied" in ran.stderr


def test_an_option_that_is_not_utf8() -> None:
    ran = subprocess.run(
        [sys.executable.encode(), b"-m", b"sipfw", b"check", b"--set", b"bans.size=\xff"],
        capture_output=True,
        check=False,
    )
    assert ran.returncode == Exit.POLICY
