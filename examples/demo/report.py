"""Say what happened: numbered steps, aligned numbers, one sentence per result."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attacks import Attack, Outcome
    from calls import Traffic

MARGIN = "     "
LONGEST_QUOTE = 120
_steps = count(1)


@dataclass(frozen=True)
class Round:
    """All attacks and the calls beside them, once."""

    outcomes: dict[str, Outcome]
    traffic: Traffic


def step(text: str) -> None:
    """Begin the next numbered step."""
    print(f"\n {next(_steps)}.  {text}", flush=True)


def line(text: str) -> None:
    """Print below the current step."""
    print(MARGIN + text, flush=True)


def quote(text: str) -> None:
    """Print a command's output; of a very long one only the end, where its result stands."""
    lines = text.rstrip().splitlines()
    if len(lines) > LONGEST_QUOTE:
        line(f"| ({len(lines) - LONGEST_QUOTE} lines left out)")
    for each in lines[-LONGEST_QUOTE:]:
        line(f"| {each}".rstrip())


def outcome(attack: Attack, result: Outcome) -> None:
    """Print how far one attack came."""
    numbers = f"{result.delivered:4} of {result.sent:4} requests reached the switch"
    line(f"{attack.name:<24}{numbers}")


def traffic(result: Traffic) -> None:
    """Print what became of the carrier's calls."""
    line(f"{'carrier calls':<24}{result.completed:4} of {result.calls:4} completed meanwhile")
    line(f"{'voice packets':<24}{result.voice_arrived:4} of {result.voice_sent:4} arrived")
    line(f"{'office phones':<24}{result.office.answered:4} of {result.office.asked:4} answered")


def comparison(
    attacks: Sequence[Attack], before: Round, after: Round, allowed: Mapping[str, int]
) -> None:
    """Print one sentence per attack, two for the carrier."""
    for attack in attacks:
        first, second = before.outcomes[attack.name], after.outcomes[attack.name]
        limit = f" (the policy allows {allowed[attack.name]})" if allowed[attack.name] else ""
        past = _numbers(first.delivered, first.sent, "requests reached the switch before,")
        now = _numbers(second.delivered, second.sent, "after")
        line(f"{attack.name + ':':<24}{past} {now}{limit}")
    first_calls, second_calls = before.traffic, after.traffic
    past = _numbers(first_calls.completed, first_calls.calls, "calls completed before,")
    now = _numbers(second_calls.completed, second_calls.calls, "after")
    line(f"{'carrier:':<24}{past} {now}")
    past = _numbers(first_calls.voice_arrived, first_calls.voice_sent, "packets arrived before,")
    now = _numbers(second_calls.voice_arrived, second_calls.voice_sent, "after")
    line(f"{'its voice:':<24}{past} {now}")
    first, second = before.traffic.office, after.traffic.office
    past = _numbers(first.answered, first.asked, "requests answered before,")
    now = _numbers(second.answered, second.asked, "after")
    line(f"{'phones and lamp keys:':<24}{past} {now}")


def _numbers(part: int, whole: int, words: str) -> str:
    width = len("requests reached the switch before,") if words.endswith(",") else 0
    return f"{part:4} of {whole:4} {words:<{width}}"


def verdict(faults: Sequence[str], success: str) -> int:
    """Print the last word and return the exit status."""
    print(flush=True)
    if not faults:
        print(f"Verdict: {success}")
        return 0
    print("Verdict: FAILED")
    for fault in faults:
        line(f"- {fault}")
    return 1
