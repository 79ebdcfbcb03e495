"""Kernel settings against a `/proc/sys` made of ordinary files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sipfw.deploy import sysctls
from sipfw.errors import BackendError
from sipfw.host import settings as host
from sipfw.host.files import Layout
from sipfw.ruleset.model import Sysctl
from sipfw.ruleset.rule import Origin

_MAX = "net.netfilter.nf_conntrack_max"
_UDP = "net.netfilter.nf_conntrack_udp_timeout"


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "proc-sys"
    (folder / "net/netfilter").mkdir(parents=True)
    monkeypatch.setattr(sysctls, "_PROC", folder)
    monkeypatch.setattr(host, "_PROC", folder)
    _set(folder, _MAX, 65536)
    _set(folder, _UDP, 30)
    return folder


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "root")


def _set(proc: Path, name: str, value: object) -> None:
    (proc / name.replace(".", "/")).write_text(f"{value}\n", encoding="ascii")


def _get(proc: Path, name: str) -> str:
    return (proc / name.replace(".", "/")).read_text(encoding="ascii").strip()


def _wanted(name: str, value: int) -> Sysctl:
    return Sysctl(name, value, Origin("conntrack.max", "policy.yaml", 9))


def test_a_setting_is_made_kept_and_taken_back(proc: Path, layout: Layout) -> None:
    assert sysctls.apply_sysctls([_wanted(_MAX, 1_048_576)], layout) == []
    assert _get(proc, _MAX) == "1048576"
    assert f"{_MAX} = 1048576\n" in layout.sysctl_file.read_text(encoding="ascii")
    assert json.loads(layout.sysctl_before.read_text(encoding="ascii")) == {_MAX: 65536}
    assert sysctls.remove_sysctls(layout) == []
    assert _get(proc, _MAX) == "65536"
    assert not layout.sysctl_file.exists()
    assert not layout.sysctl_before.exists()


def test_a_second_apply_does_not_take_our_value_for_the_hosts(proc: Path, layout: Layout) -> None:
    for value in (1000, 2000):
        sysctls.apply_sysctls([_wanted(_MAX, value)], layout)
    sysctls.remove_sysctls(layout)
    assert _get(proc, _MAX) == "65536"


def test_a_setting_that_the_kernel_lacks_is_a_warning(proc: Path, layout: Layout) -> None:
    (proc / _MAX.replace(".", "/")).unlink()
    [warning] = sysctls.apply_sysctls([_wanted(_MAX, 1000), _wanted(_UDP, 60)], layout)
    assert str(warning) == (
        f"warning: conntrack.max: {_MAX} = 1000 not set: this kernel does not have it (yet)"
    )
    assert _get(proc, _UDP) == "60"


def test_a_setting_that_may_not_be_written_is_a_warning(
    proc: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text

    def guarded(self: Path, *arguments: object, **named: object) -> int:
        if self.name == "nf_conntrack_max":
            raise PermissionError(13, "Permission denied")
        return write(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", guarded)
    [warning] = sysctls.apply_sysctls([_wanted(_MAX, 1000)], layout)
    assert warning.message == f"{_MAX} = 1000 not set: permission denied"
    assert _get(proc, _MAX) == "65536"


def test_removing_twice_is_quiet(layout: Layout, proc: Path) -> None:
    assert sysctls.remove_sysctls(layout) == []
    assert _get(proc, _MAX) == "65536"


def test_a_damaged_record_cannot_set_anything_else(proc: Path, layout: Layout) -> None:
    forward = "net.ipv4.ip_forward"
    (proc / "net/ipv4").mkdir()
    _set(proc, forward, 0)
    layout.sysctl_before.parent.mkdir(parents=True)
    layout.sysctl_before.write_text(
        json.dumps({forward: 1, _MAX: "1; reboot", "../../x": 1, _UDP: 99}), encoding="ascii"
    )
    assert sysctls.remove_sysctls(layout) == []
    assert (_get(proc, forward), _get(proc, _MAX), _get(proc, _UDP)) == ("0", "65536", "99")


def test_a_damaged_record_cannot_climb_out(proc: Path, layout: Layout) -> None:
    (proc / "outside").write_text("0\n", encoding="ascii")
    layout.sysctl_before.parent.mkdir(parents=True)
    climbing = "net.netfilter.nf_conntrack_/../../../outside"
    (proc / "net/netfilter/nf_conntrack_").mkdir()
    layout.sysctl_before.write_text(json.dumps({climbing: 1}), encoding="ascii")
    sysctls.remove_sysctls(layout)
    assert (proc / "outside").read_text(encoding="ascii") == "0\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        pytest.param(
            "[1]",
        ),
    ],
)
def test_a_record_that_cannot_be_read_stops_everything(
    text: str, proc: Path, layout: Layout
) -> None:
    layout.sysctl_before.parent.mkdir(parents=True)
    layout.sysctl_before.write_text(text, encoding="ascii")
    with pytest.raises(BackendError, match="it holds the host's own values; mend or delete it"):
        sysctls.apply_sysctls([_wanted(_MAX, 1000)], layout)
    assert _get(proc, _MAX) == "65536"


def test_conntrack_figures(proc: Path) -> None:
    _set(proc, "net.netfilter.nf_conntrack_count", 16384)
    assert host.read_conntrack() == host.ConntrackUsage(16384, 65536)
    assert host.read_conntrack().share == 0.25
    assert host.ConntrackUsage(None, 5).share is None
    assert host.ConntrackUsage(5, 0).share is None


def test_a_value_that_is_no_number_is_no_value(proc: Path) -> None:
    _set(proc, _MAX, "1\t2")
    assert host.read_sysctl(_MAX) is None
