"""The wheel is complete: it renders in an empty environment, away from the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).resolve().parents[2]


def _run(*argv: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in argv], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = _run(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_carries_templates_profiles_and_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, target in (("templates", "_data/templates"), ("profiles", "_data/profiles")):
        shipped = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
        assert shipped
        missing = {f"sipfw/{target}/{path.relative_to(ROOT / folder)}" for path in shipped} - names
        assert not missing
    assert "sipfw/data/signatures.yaml" in names
    assert "sipfw/py.typed" in names


def test_installed_wheel_renders_every_form(wheel: Path, tmp_path: Path) -> None:
    assert _run(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path).returncode == 0
    binaries = tmp_path / "env" / "bin"
    done = _run(binaries / "pip", "install", "--quiet", wheel, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    script = _run(binaries / "sipfw", "render", "--profile", "wholesale", cwd=tmp_path)
    assert script.returncode == 0, script.stderr
    assert script.stdout.startswith("#!/bin/sh\n")
    assert "SIP_SCANNER_BLOCK" in script.stdout
    for form in ("restore", "ipset", "sysctl", "nft"):
        text = _run(binaries / "sipfw", "render", "--format", form, cwd=tmp_path)
        assert text.returncode == 0, text.stderr
        assert text.stdout.strip()
    listing = _run(binaries / "sipfw", "profiles", cwd=tmp_path)
    assert "wholesale" in listing.stdout
    assert "vos3000" in listing.stdout
