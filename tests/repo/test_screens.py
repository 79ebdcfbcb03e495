"""The pictures in docs/screens: complete, self-contained, and about nobody."""

from __future__ import annotations

import ast
import re
import struct
from ipaddress import ip_address, ip_network
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lab import sip
from sipfw.policy.load import Request, load

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = sorted((DOCS / "screens").glob("*.svg"))
DOCUMENTATION = [ip_network(f"{net}/24") for net in ("192.0.2.0", "198.51.100.0", "203.0.113.0")]


@pytest.mark.parametrize("file", ["docs/screens/make.py", "examples/demo/firewall.py"])
def test_the_audio_that_is_shown_comes_to_a_port_of_the_policy(file: str, tmp_path: Path) -> None:
    """Else the firewall drops the carrier's audio, and a picture shows that under HEALTHY."""
    tree = ast.parse((DOCS.parent / file).read_text(encoding="utf-8"))
    named = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    text = ast.unparse(named["POLICY"])
    known = {name: node for name, node in named.items() if isinstance(node, ast.Constant)}
    policy = tmp_path / "policy.yaml"
    policy.write_text(str(eval(text, {}, {k: v.value for k, v in known.items()})))  # noqa: S307
    profile = known.get("PROFILE")
    loaded = load(Request(policy, None if profile is None else str(profile.value)))
    assert any(x.first <= sip.MEDIA_PORT <= x.last for x in loaded.policy.media.ports)


def test_every_picture_is_shown_and_every_shown_one_is_there() -> None:
    text = (DOCS / "screens.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\]\(screens/([\w.-]+)\)", text))
    assert shown == {path.name for path in PICTURES} | {"report.png"}
    assert {"verify.svg", "watch.svg", "top.svg", "why.svg"} <= shown


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_a_terminal_is_text_of_fixed_width_and_fetches_nothing(picture: Path) -> None:
    text = picture.read_text(encoding="utf-8")
    # Our own files, and no entities in them.
    root = ET.fromstring(text)  # noqa: S314
    words = "".join(root.itertext())
    assert "sipfw" in words
    assert len(words) > 500
    assert re.findall(r"@font-face|@import|url\((?!#)|href=|https?://(?!www\.w3\.org)", text) == []
    assert "monospace" in text


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_a_terminal_names_nobody_and_no_machine(picture: Path) -> None:
    text = picture.read_text(encoding="utf-8").replace("&#160;", " ")
    addresses = {ip_address(word) for word in re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text)}
    assert [a for a in addresses if not any(a in network for network in DOCUMENTATION)] == []
    six = re.findall(r"\b[0-9a-f]{1,4}:(?:[0-9a-f]{0,4}:)+[0-9a-f]{0,4}\b", text)
    moment = re.compile(r"\d\d:\d\d:\d\d")
    assert [a for a in six if not a.startswith("2001:db8:") and not moment.fullmatch(a)] == []
    assert re.findall(r"/(?:tmp|root|home|work|usr)/", text) == []


def test_the_report_is_of_a_size_for_a_repository() -> None:
    data = (DOCS / "screens" / "report.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack("!II", data[16:24])
    assert width == 1280
    assert height > 1000
    assert len(data) < 400_000
