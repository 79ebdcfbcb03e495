"""Whether a policy file still says what is in force."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sipfw.compiler.pipeline import compile_policy
from sipfw.deploy.generations import Content, write_generation
from sipfw.host.files import Layout
from sipfw.monitor.policy_changed import policy_changed
from sipfw.policy.load import Request, load

if TYPE_CHECKING:
    from pathlib import Path

POLICY = "trusted_peers: {carrier-a: 203.0.113.10}\nbans: {duration: 1h}\n"


def applied(folder: Path, request: Request | None = None) -> tuple[Layout, int]:
    """Write a generation of the policy as `apply` does, a minute ago."""
    file = folder / "policy.yaml"
    file.write_text(POLICY)
    file.chmod(0o600)
    loaded = load(replace(request or Request(), file=file))
    layout = Layout(folder / "root")
    content = Content(
        compile_policy(loaded),
        "nftables",
        ipset=True,
        source=", ".join(loaded.sources),
        policy=json.dumps(loaded.policy.model_dump(mode="json", by_alias=True)),
    )
    number = write_generation(layout, content, None).number
    os.utime(file, (time.time() - 60, time.time() - 60))
    return layout, number


def edited(folder: Path, text: str) -> None:
    file = folder / "policy.yaml"
    file.write_text(text)
    os.utime(file, (time.time() + 60, time.time() + 60))


def test_a_file_that_comes_with_an_old_time_is_read(tmp_path: Path) -> None:
    layout, number = applied(tmp_path)
    other = tmp_path / "other.yaml"
    other.write_text(POLICY.replace("1h", "2h"))
    other.chmod(0o600)
    os.utime(other, (1, 1))
    time.sleep(1.1)  # a generation knows its second
    other.rename(tmp_path / "policy.yaml")
    assert policy_changed(layout, number) is not None


def test_a_pipe_and_a_damaged_generation_are_not_read(tmp_path: Path) -> None:
    layout, number = applied(tmp_path)
    edited(tmp_path, POLICY.replace("1h", "2h"))
    (layout.generations / str(number) / "policy.json").write_text("[")
    assert policy_changed(layout, number) is None
    (tmp_path / "policy.yaml").unlink()
    os.mkfifo(tmp_path / "policy.yaml")
    assert policy_changed(layout, number) is None


@pytest.mark.parametrize(
    "chosen", [Request(), Request(profile="wholesale"), Request(switch="asterisk")]
)
def test_comments_and_spelling_are_no_change(tmp_path: Path, chosen: Request) -> None:
    layout, number = applied(tmp_path, chosen)
    edited(
        tmp_path,
        "# ours\ntrusted_peers:\n  - {name: carrier-a, signalling: [203.0.113.10]}\n"
        "bans: {duration: 60m}\n",
    )
    assert policy_changed(layout, number) is None


@pytest.mark.parametrize("chosen", [Request(), Request(profile="wholesale")])
def test_values_that_differ_are_named(tmp_path: Path, chosen: Request) -> None:
    layout, number = applied(tmp_path, chosen)
    edited(tmp_path, POLICY.replace("1h", "2h"))
    said = policy_changed(layout, number)
    assert said is not None
    assert "has changed since the apply, 1 value differs (bans.duration)" in said
    assert "sipfw diff, then sipfw apply" in said


def test_a_file_that_is_no_policy_now_is_told(tmp_path: Path) -> None:
    layout, number = applied(tmp_path)
    edited(tmp_path, "bans: {duration: soon}\n")
    said = policy_changed(layout, number)
    assert said is not None
    assert "is no policy now: " in said
    assert "'soon'" in said


def test_what_the_command_line_had_set_cannot_be_told(tmp_path: Path) -> None:
    layout, number = applied(tmp_path, Request(settings=("bans.duration=3h",)))
    edited(tmp_path, POLICY)
    said = policy_changed(layout, number)
    assert said is not None
    assert "1 value differs (bans.duration), unless options of that apply made it: " in said


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    layout, number = applied(tmp_path)
    (tmp_path / "policy.yaml").unlink()
    said = policy_changed(layout, number)
    assert said is not None
    assert "is gone" in said
