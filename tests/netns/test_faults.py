"""SIGKILL at every step of a change: the firewall is the old one or the new one, never a mixture.

The steps and the killing are in fault_driver.py. With SIPFW_EVERY_POINT=1 no point is left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.netns

# Backend, scenario, stride through the points, and kills that there must be at least: fewer mean
# that the driver does not see the steps any more. Together more than 200.
CASES = [
    ("nftables", "apply", 1, 50),
    ("nftables", "rollback", 3, 30),
    ("nftables", "confirm", 1, 5),
    ("nftables", "restore", 4, 8),
    ("nftables", "remove", 4, 8),
    ("nftables", "alone", 4, 12),
    ("iptables", "apply", 2, 32),
    ("iptables", "rollback", 5, 25),
    ("iptables", "confirm", 1, 5),
    ("iptables", "restore", 6, 9),
    ("iptables", "remove", 7, 9),
    ("iptables", "alone", 7, 10),
    # Records and watchdog are those of the other backends, so a few points have to do: these
    # strides end one apply (point 43) and one rollback (96) between the two families' restores.
    ("iptables-nft", "apply", 7, 6),
    ("iptables-nft", "rollback", 19, 6),
]


def test_there_are_two_hundred_kills() -> None:
    assert sum(least for *_, least in CASES) >= 200


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(("backend", "scenario", "stride", "least"), CASES, ids=str)
def test_a_kill_leaves_the_old_or_the_new(
    backend: str, scenario: str, stride: int, least: int, tmp_path: Path
) -> None:
    step = 1 if os.environ.get("SIPFW_EVERY_POINT") else stride
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("fault_driver.py")),
            backend,
            scenario,
            str(tmp_path / "root"),
            str(step),
        ],
        env={
            **os.environ,
            "XTABLES_LOCKFILE": str(tmp_path / "lock"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= least
