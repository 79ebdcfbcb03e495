from __future__ import annotations

import configparser
import io
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sipfw.deploy.service import (
    Systemd,
    doubts,
    init_script,
    install,
    systemd,
    this_command,
    uninstall,
)
from sipfw.errors import BackendError
from sipfw.host.files import Layout
from sipfw.host.runner import Completed
from sipfw.render.service import UNITS, init_text, unit_texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COMMAND = ("/usr/local/bin/sipfw",)


@dataclass
class FakeSystemctl:
    """Remembers what it was asked; says no to the verbs in `refuses`."""

    refuses: tuple[str, ...] = ()
    asked: list[list[str]] = field(default_factory=list)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        assert (argv[0], stdin, env) == ("systemctl", "", None)
        assert timeout <= 60
        self.asked.append(list(argv[1:]))
        if set(self.refuses) & set(argv):
            return Completed(1, "", "Failed to do it:\n Access denied\n")
        return Completed(0, "", "")


def _host(fake: FakeSystemctl, *, booted: bool = True) -> Systemd:
    return Systemd(Path("/"), fake, booted)


def _unit(text: str) -> dict[str, dict[str, list[str]]]:
    """Read a unit as systemd does: a setting that stands twice has two values."""
    found: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(section, {}).setdefault(name, []).append(value)
    return found


def test_the_boot_unit_restores_before_the_network_and_never_opens_the_host() -> None:
    unit = _unit(unit_texts(COMMAND, "/")["sipfw.service"])
    order, service = unit["Unit"], unit["Service"]
    assert order["DefaultDependencies"] == ["no"]
    assert order["Before"] == order["Wants"] == ["network-pre.target"]
    after = " ".join(order["After"]).split()
    assert {"local-fs.target", "systemd-modules-load.service", "nftables.service"} <= set(after)
    assert "Conflicts" not in order
    assert (service["Type"], service["RemainAfterExit"]) == (["oneshot"], ["yes"])
    assert service["ExecStart"] == [
        "/usr/local/bin/sipfw restore --root /",
        "-/usr/local/bin/sipfw refresh --cached --root /",
    ]
    assert service["ExecStartPre"] == ["-/usr/local/bin/sipfw saved --load --root /"]
    assert not [name for name in service if name.startswith("ExecStop")]
    assert unit["Install"]["WantedBy"] == ["multi-user.target"]


LOADERS = ("netfilter-persistent", "iptables", "ip6tables", "nftables", "ufw", "firewalld")


def test_sets_are_made_before_anybody_loads_rules_that_name_them() -> None:
    order = _unit(unit_texts(COMMAND, "/")["sipfw-sets.service"])["Unit"]
    before = " ".join(order["Before"]).split()
    assert {f"{name}.service" for name in (*LOADERS, "sipfw", "ipset")} <= set(before)
    assert order["DefaultDependencies"] == ["no"]
    assert not set(before) & set(" ".join(order["After"]).split())


def test_sets_are_made_after_an_ipset_service_that_would_destroy_them(tmp_path: Path) -> None:
    unit = tmp_path / "usr/lib/systemd/system/ipset.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\n")
    install(Layout(tmp_path), COMMAND, _host(FakeSystemctl()), enable=False)
    text = (tmp_path / "etc/systemd/system/sipfw-sets.service").read_text()
    order = _unit(text)["Unit"]
    assert "ipset.service" in " ".join(order["After"]).split()
    assert "ipset.service" not in " ".join(order["Before"]).split()
    # On Debian the name is a link, an alias of the unit before which the sets are needed.
    unit.unlink()
    unit.symlink_to("netfilter-persistent.service")
    install(Layout(tmp_path), COMMAND, _host(FakeSystemctl()), enable=False)
    text = (tmp_path / "etc/systemd/system/sipfw-sets.service").read_text()
    assert "ipset.service" not in " ".join(_unit(text)["Unit"]["After"]).split()


def test_the_timer_asks_dns_again_and_again() -> None:
    texts = unit_texts(COMMAND, "/srv/x")
    service = _unit(texts["sipfw-refresh.service"])["Service"]
    assert service["ExecStart"] == ["/usr/local/bin/sipfw refresh --due --root /srv/x"]
    assert service["SuccessExitStatus"] == ["6"]
    timer = _unit(texts["sipfw-refresh.timer"])
    assert timer["Timer"]["OnUnitInactiveSec"] == ["5min"]
    assert timer["Install"]["WantedBy"] == ["timers.target"]


def test_systemd_itself_accepts_the_units(tmp_path: Path) -> None:
    # Both programs must exist for systemd-analyze, which looks for what ExecStart names.
    texts = unit_texts(this_command(shutil.which("true") or ""), "/")
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        reader = configparser.ConfigParser(strict=False, interpolation=None)
        reader.optionxform = str  # type: ignore[assignment,method-assign]
        reader.read_file(io.StringIO(text))
        assert "Unit" in reader
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    paths = [str(tmp_path / name) for name in UNITS]
    done = subprocess.run(
        [analyze, "verify", "--man=no", *paths], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_install_writes_enables_and_starts_the_timer_alone(tmp_path: Path) -> None:
    fake = FakeSystemctl()
    written = install(Layout(tmp_path), COMMAND, _host(fake), enable=True)
    folder = tmp_path / "etc/systemd/system"
    assert written == [str(folder / name) for name in UNITS]
    assert [oct(path.stat().st_mode & 0o777) for path in folder.iterdir()] == ["0o644"] * 6
    assert folder.stat().st_mode & 0o777 == 0o755
    assert fake.asked == [
        ["daemon-reload"],
        ["enable", "sipfw.service", "sipfw-sets.service"],
        ["enable", "--now", "sipfw-refresh.timer", "sipfw-keep.timer"],
    ]


def test_without_enable_systemd_only_reads(tmp_path: Path) -> None:
    fake = FakeSystemctl()
    install(Layout(tmp_path), COMMAND, _host(fake), enable=False)
    assert fake.asked == [["daemon-reload"]]


def test_installing_twice_writes_nothing_and_mends_what_changed(tmp_path: Path) -> None:
    layout, fake = Layout(tmp_path), FakeSystemctl()
    install(layout, COMMAND, _host(fake), enable=True)
    folder = tmp_path / "etc/systemd/system"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert install(layout, COMMAND, _host(fake), enable=True) == []
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    (folder / "sipfw.service").chmod(0o666)
    (folder / "sipfw-refresh.timer").unlink()
    mended = install(layout, COMMAND, _host(fake), enable=True)
    assert [Path(path).name for path in mended] == ["sipfw.service", "sipfw-refresh.timer"]
    assert (folder / "sipfw.service").stat().st_mode & 0o777 == 0o644


def test_a_unit_of_somebody_else_stays(tmp_path: Path) -> None:
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    (folder / "sipfw.service").write_text("[Service]\nExecStart=/bin/true\n")
    fake = FakeSystemctl()
    with pytest.raises(BackendError, match="not written by sipfw"):
        install(Layout(tmp_path), COMMAND, _host(fake), enable=True)
    assert (uninstall(Layout(tmp_path), _host(fake)), fake.asked) == ([], [])
    assert [path.name for path in folder.iterdir()] == ["sipfw.service"]


def test_a_masked_unit_is_not_unmasked(tmp_path: Path) -> None:
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    (folder / "sipfw.service").symlink_to("/dev/null")
    with pytest.raises(BackendError, match="not written by sipfw"):
        install(Layout(tmp_path), COMMAND, _host(FakeSystemctl()), enable=True)


def test_a_refusal_of_systemd_is_told_in_its_words(tmp_path: Path) -> None:
    fake = FakeSystemctl(refuses=("enable",))
    with pytest.raises(BackendError) as caught:
        install(Layout(tmp_path), COMMAND, _host(fake), enable=True)
    assert "not enabled: systemctl enable sipfw.service sipfw-sets.service: Failed" in str(
        caught.value
    )
    assert "Access denied" in str(caught.value)


def test_a_host_without_systemd_is_told_what_to_do_and_stays_as_it_is(tmp_path: Path) -> None:
    fake = FakeSystemctl()
    with pytest.raises(BackendError) as caught:
        install(Layout(tmp_path), COMMAND, _host(fake, booted=False), enable=True)
    assert "--format sysv" in str(caught.value)
    assert "/etc/rc.local" in str(caught.value)
    assert (list(tmp_path.iterdir()), fake.asked) == ([], [])


def test_an_image_is_served_by_systemctl_with_its_root(tmp_path: Path) -> None:
    fake = FakeSystemctl()
    manager = systemd(Layout(tmp_path), fake, booted=False)
    install(Layout(tmp_path), COMMAND, manager, enable=True)
    where = f"--root={tmp_path.resolve()}"
    assert fake.asked == [
        [where, "enable", "sipfw.service", "sipfw-sets.service"],
        [where, "enable", "sipfw-refresh.timer", "sipfw-keep.timer"],
    ]


@pytest.mark.parametrize(
    "path", ["/opt/a b/sipfw", "/opt/$x/sipfw", "/opt/%n/sipfw", "/opt/a\nExecStop=x/sipfw", '/o"']
)
def test_a_path_that_a_unit_would_read_otherwise_is_refused(tmp_path: Path, path: str) -> None:
    fake = FakeSystemctl()
    with pytest.raises(BackendError, match="cannot stand in a unit"):
        install(Layout(tmp_path), (path,), _host(fake), enable=True)
    with pytest.raises(BackendError, match="cannot stand in a unit"):
        init_script(Layout(tmp_path), (path,))
    assert (list(tmp_path.iterdir()), fake.asked) == ([], [])


def test_uninstall_disables_deletes_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    (folder / "other.service").write_text("[Service]\n")
    layout, fake = Layout(tmp_path), FakeSystemctl()
    install(layout, COMMAND, _host(fake), enable=True)
    fake.asked.clear()
    said = uninstall(layout, _host(fake))
    assert [str(item) for item in said] == [f"note: disabled and deleted: {', '.join(UNITS)}"]
    assert fake.asked == [
        [
            "disable",
            "--now",
            "sipfw.service",
            "sipfw-sets.service",
            "sipfw-refresh.timer",
            "sipfw-keep.timer",
        ],
        ["daemon-reload"],
    ]
    assert [path.name for path in folder.iterdir()] == ["other.service"]
    assert uninstall(layout, _host(fake)) == []


def test_uninstall_takes_the_units_out_even_when_systemd_refuses(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    install(layout, COMMAND, _host(FakeSystemctl()), enable=True)
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir()
    (wants / "sipfw.service").symlink_to("/etc/systemd/system/sipfw.service")
    (wants / "other.service").symlink_to("/etc/systemd/system/other.service")
    said = uninstall(layout, _host(FakeSystemctl(refuses=("disable",))))
    assert "Access denied" in str(said[1])
    left = [path.name for path in (tmp_path / "etc/systemd/system").rglob("*")]
    assert sorted(left) == ["multi-user.target.wants", "other.service"]


def test_an_init_script_that_stays_is_named(tmp_path: Path) -> None:
    script = tmp_path / "etc/init.d/sipfw"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    [said] = uninstall(Layout(tmp_path), _host(FakeSystemctl()))
    assert "update-rc.d sipfw" in str(said)
    assert script.exists()


def test_the_command_is_the_program_itself_or_its_interpreter(tmp_path: Path) -> None:
    program = tmp_path / "sipfw"
    program.write_text("#!/bin/sh\n")
    assert this_command(str(program)) == (sys.executable, "-I", "-m", "sipfw")
    program.chmod(0o755)
    assert this_command(str(program)) == (str(program),)
    assert this_command("/nowhere/__main__.py") == (sys.executable, "-I", "-m", "sipfw")


def test_a_program_that_others_may_replace_is_doubted(tmp_path: Path) -> None:
    program = tmp_path / "sipfw"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    [said] = doubts((str(program),))
    assert str(program) in str(said)
    program.chmod(0o755)
    tmp_path.chmod(0o777)
    [said] = doubts((str(program),))
    assert str(tmp_path) in str(said)


def _script(tmp_path: Path, *, restore: int = 0) -> Path:
    """Install the script with a sipfw that writes down how it was called."""
    program = tmp_path / "sipfw"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n[ "$1" = restore ] && exit {restore}\nexit 0\n'
    )
    program.chmod(0o755)
    script = tmp_path / "init"
    script.write_text(init_text((str(program),), "/srv/x"))
    return script


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_init_script_starts_and_never_stops(tmp_path: Path, shell: str) -> None:
    script, calls = _script(tmp_path), tmp_path / "calls"
    for verb, wanted in (
        (
            "start",
            [
                "saved --root /srv/x --load",
                "restore --root /srv/x",
                "refresh --root /srv/x --cached",
            ],
        ),
        ("status", ["verify --root /srv/x"]),
    ):
        calls.unlink(missing_ok=True)
        assert subprocess.run([shell, str(script), verb], check=False).returncode == 0
        assert calls.read_text().splitlines() == wanted
    calls.unlink()
    assert subprocess.run([shell, str(script), "stop"], check=False).returncode == 0
    assert not calls.exists()
    done = subprocess.run([shell, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_the_init_script_reports_a_failed_restore(tmp_path: Path) -> None:
    script = _script(tmp_path, restore=4)
    assert subprocess.run(["sh", str(script), "start"], check=False).returncode == 4
    assert (tmp_path / "calls").read_text() == (
        "saved --root /srv/x --load\nrestore --root /srv/x\n"
    )


def test_the_init_script_has_a_header_and_no_fault(tmp_path: Path) -> None:
    text = init_script(Layout(tmp_path), COMMAND)
    head = text.partition("### END INIT INFO")[0]
    for key in ("Provides:", "Required-Start:", "Default-Start:", "Short-Description:"):
        assert key in head
    if shutil.which("shellcheck"):
        done = subprocess.run(
            ["shellcheck", "-s", "sh", "-"], input=text, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "")
