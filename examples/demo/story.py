"""The demo from the first step to the verdict; each step's work is in a module of its own."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attacks
import calls
import report
from firewall import PROFILE, Firewall, permitted
from scene import DemoError, Scene, prepare, tool

from lab import Lab, LabError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CANNOT_RUN = 2
INTERRUPTED = 130
# Seconds to confirm in, and what the way back may take on a busy machine.
WAIT = 4
PATIENCE = 20
SUCCESS = (
    "every call completed and every phone was answered, no scanner got through, the password "
    "guesser stayed in its limit, and a mistake undid itself."
)


def main(arguments: Sequence[str]) -> int:
    """Run the demo and return 0 when the attacks were stopped and the calls were not."""
    parser = argparse.ArgumentParser(description="sipfw against real attack tools")
    parser.add_argument(
        "--without-sipfw",
        action="store_true",
        help="stop before the firewall: check the network, the attacks and the calls",
    )
    options = parser.parse_args(arguments)
    try:
        for name in ("sipp", "svmap", "svwar", "svcrack"):
            tool(name)
        with (
            Lab(hosts=("carrier", "attacker", "office")) as lab,
            tempfile.TemporaryDirectory(prefix="sipfw-demo-") as scratch,
        ):
            return _tell(lab, Path(scratch), with_sipfw=not options.without_sipfw)
    except (DemoError, LabError) as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return CANNOT_RUN
    except KeyboardInterrupt:
        print("\ndemo: interrupted; the network is removed", file=sys.stderr)
        return INTERRUPTED


def _tell(lab: Lab, scratch: Path, *, with_sipfw: bool) -> int:
    report.step("Build a network: a switch, a carrier, an attacker")
    scene = prepare(lab, scratch)
    for attack in attacks.ATTACKS:
        lab.attacker.add_address(attack.source)
    report.line(f"carrier   {lab.carrier.address4}")
    report.line(f"attacker  {attacks.ATTACKS[0].source} to {attacks.ATTACKS[-1].source}")

    report.step("Attack the unprotected switch while the carrier places calls")
    before = _round(scene)
    faults = _faults_before(before)
    if not with_sipfw:
        return report.verdict(faults, "without sipfw every attack reached the switch.")
    if faults:
        return report.verdict(faults, "")

    firewall = Firewall(lab.switch, scratch / "root")
    if not _protect(firewall):
        return report.verdict(["sipfw apply failed, see above"], "")

    report.step("Attack again while the carrier places calls")
    after = _round(scene)

    report.step("Ask sipfw what it saw: sipfw verify --hits")
    verified = firewall.verify()
    report.quote(verified.stdout + verified.stderr)

    report.step("Compare")
    allowed = {
        attack.name: permitted(after.outcomes[attack.name].seconds) if attack.bounded_by_rate else 0
        for attack in attacks.ATTACKS
    }
    report.comparison(attacks.ATTACKS, before, after, allowed)
    faults = _faults_after(after, allowed)
    if verified.returncode:
        faults.append(f"sipfw verify found something wrong (exit {verified.returncode})")
    return report.verdict(faults + _lose_the_session(scene, firewall), SUCCESS)


def _lose_the_session(scene: Scene, firewall: Firewall) -> list[str]:
    """Apply a policy that shuts the carrier out and die before anybody can confirm it."""
    report.step(f"Shut the carrier out by mistake, and lose the session: apply --confirm {WAIT}")
    applied = firewall.apply_and_vanish(WAIT)
    report.quote(applied.stdout + applied.stderr)
    if not scene.hears_the_carrier():
        report.line("the carrier is shut out, and the session is dead")
    else:
        return ["the mistake did not go live"]
    deadline = time.monotonic() + WAIT + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(0.5)
        if scene.hears_the_carrier():
            break
    else:
        return ["the old firewall did not come back"]
    report.line("nobody confirmed: the old firewall is back, and the carrier is heard again")
    verified = firewall.verify()
    report.quote(verified.stdout.rstrip().splitlines()[-1])
    return [] if verified.returncode == 0 else ["the firewall that came back is not the old one"]


def _round(scene: Scene) -> report.Round:
    outcomes = {}

    def attack_all() -> None:
        for attack in attacks.ATTACKS:
            outcomes[attack.name] = attacks.launch(scene, attack)
            report.outcome(attack, outcomes[attack.name])

    traffic = calls.alongside(scene, attack_all)
    report.traffic(traffic)
    return report.Round(outcomes, traffic)


def _protect(firewall: Firewall) -> bool:
    report.step("Write a policy")
    firewall.write_policy()
    report.quote(firewall.policy.read_text())
    report.step(f"Protect the switch: sipfw apply --profile {PROFILE}")
    applied = firewall.apply()
    report.quote(applied.stdout + applied.stderr)
    return applied.returncode == 0


def _faults_before(result: report.Round) -> list[str]:
    # An attack that does not arrive even without a firewall would prove nothing afterwards.
    faults = [
        f"{name}: only {outcome.delivered} of {outcome.sent} reached the unprotected switch"
        for name, outcome in result.outcomes.items()
        if outcome.delivered < outcome.sent
    ]
    return faults + _harmed_calls(result)


def _faults_after(result: report.Round, allowed: Mapping[str, int]) -> list[str]:
    faults = [
        f"{name}: {outcome.delivered} reached the switch, {allowed[name]} are allowed"
        for name, outcome in result.outcomes.items()
        if outcome.delivered > allowed[name]
    ]
    return faults + _harmed_calls(result)


def _harmed_calls(result: report.Round) -> list[str]:
    traffic = result.traffic
    if traffic.unharmed:
        return []
    completed = f"{traffic.completed} of {traffic.calls} calls completed"
    heard = f"{traffic.voice_arrived} of {traffic.voice_sent} voice packets arrived"
    office = f"{traffic.office.answered} of {traffic.office.asked} requests answered"
    return [f"carrier: {completed}, {heard}; office: {office}"]
