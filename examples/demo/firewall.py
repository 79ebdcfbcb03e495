"""Run the `sipfw` command inside the switch's namespace, with files in a temporary root."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

    from lab import Switch

PROFILE = "wholesale"
RATE_PER_SECOND = 10
BURST = 20

POLICY = f"""\
admin:
  networks: [192.0.2.0/28]
trusted_peers:
  - name: carrier-a
    signalling: [203.0.113.10]
    media: [203.0.113.0/24]
limits:
  hashlimit: {{rate: {RATE_PER_SECOND}/second, burst: {BURST}}}
"""


def permitted(seconds: float) -> int:
    """Return how many requests of one unknown source the policy lets through in this time."""
    return BURST + int(RATE_PER_SECOND * seconds) + 1


@dataclass(frozen=True)
class Firewall:
    """The command, the policy and the root that belong together."""

    switch: Switch
    root: Path

    @property
    def policy(self) -> Path:
        """Return where the policy file is."""
        return self.root / "policy.yaml"

    def write_policy(self) -> None:
        """Write the demo's policy, which any operator could have written."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.policy.write_text(POLICY)

    def apply(self) -> subprocess.CompletedProcess[str]:
        """Make the firewall live in the switch's namespace."""
        return self._sipfw("apply", "--profile", PROFILE, "--policy", str(self.policy), "--yes")

    def apply_and_vanish(self, seconds: int) -> subprocess.CompletedProcess[str]:
        """Apply a mistake that must be confirmed, and kill the session that could do it."""
        peers = "trusted_peers=[{name: carrier-a, signalling: [203.0.113.100]}]"
        mistake = ["--set", peers, "--set", "limits.unknown_sources=denied"]
        words = ["apply", "--profile", PROFILE, "--policy", str(self.policy), "--yes", *mistake]
        return self._sipfw(*words, "--confirm", str(seconds), kill_session=True)

    def verify(self) -> subprocess.CompletedProcess[str]:
        """Ask for the counters that moved, and whether the live firewall is the applied one."""
        return self._sipfw("verify", "--hits")

    def _sipfw(
        self, subcommand: str, *options: str, kill_session: bool = False
    ) -> subprocess.CompletedProcess[str]:
        # The session of whoever starts the demo does not exist in the switch's namespace.
        outside = ["env", "-u", "SSH_CONNECTION", "-u", "SSH_CLIENT"]
        command = [*outside, *_command(), subcommand, "--root", str(self.root), *options]
        if kill_session:
            # A session of its own, whose leader kills all its processes after the command.
            command = ["setsid", "--wait", "sh", "-c", '"$@"; kill -KILL 0', "session", *command]
        return self.switch.run(command, check=False, timeout=30)


def _command() -> list[str]:
    beside = Path(sys.executable).with_name("sipfw")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "sipfw"]
