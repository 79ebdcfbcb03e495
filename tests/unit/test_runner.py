from __future__ import annotations

import sys

import pytest

from sipfw.errors import BackendError
from sipfw.host.runner import HOST_PATH, SubprocessRunner

RUNNER = SubprocessRunner()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_and_errors_stay_apart() -> None:
    done = RUNNER.run(
        python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_input_reaches_the_program_byte_for_byte() -> None:
    text = "a\udcffb\n"
    code = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    assert RUNNER.run(python(code), stdin=text).stdout == text


def test_environment_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    code = "import os; print(*sorted(os.environ.items()))"
    # Python itself adds LC_CTYPE when it coerces the C locale.
    shown = RUNNER.run(python(code), env={"EXTRA": "1"}).stdout
    assert f"('PATH', '{HOST_PATH}')" in shown
    assert "('EXTRA', '1')" in shown
    assert "('LC_ALL', 'C')" in shown
    assert "nowhere" not in shown


def test_no_shell_reads_the_arguments() -> None:
    assert RUNNER.run(["echo", "$HOME; true"]).stdout == "$HOME; true\n"


def test_signal_is_a_negative_status() -> None:
    assert RUNNER.run(python("import os; os.kill(os.getpid(), 9)")).returncode == -9


def test_deadline_ends_the_program() -> None:
    with pytest.raises(BackendError, match=r"sleep: no answer within 0\.1 s"):
        RUNNER.run(["sleep", "20"], timeout=0.1)


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("no-such-program", "no-such-program: program not found in /usr/sbin:"),
        ("/nowhere/ipset", "/nowhere/ipset: program not found"),
    ],
)
def test_missing_program(program: str, says: str) -> None:
    with pytest.raises(BackendError, match=says):
        RUNNER.run([program])


def test_missing_program_names_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sipfw.host.runner.HOST_PATH", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BackendError) as info:
        RUNNER.run(["iptables-legacy-save"])
    assert info.value.hint is not None
    assert "package iptables (Debian" in info.value.hint
    assert "RHEL" in info.value.hint
