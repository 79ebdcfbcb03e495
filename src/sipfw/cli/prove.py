"""`sipfw prove`: attacks and good calls against the policy, in namespaces of their own."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sipfw.cli.options import Choice, compile_wanted, load_policy, policy_options, stored_lists
from sipfw.cli.output import complain, say, say_json, say_lines, table
from sipfw.errors import Exit

if TYPE_CHECKING:
    from sipfw.policy.scenario import Scenarios
    from sipfw.prove.programme import Programme
    from sipfw.prove.verdict import Proof, Result


@click.command("prove")
@policy_options
@click.option(
    "--backend",
    metavar="BACKEND",
    default="auto",
    show_default=True,
    help="What carries the rules, as for `sipfw apply`; `all`: each, one after the other. `auto` "
    "takes what was applied on this host.",
)
@click.option("--no-ipset", is_flag=True, help="Prove the rules for a host without ipset.")
@click.option(
    "--scenario", "names", multiple=True, metavar="NAME", help="Play only this one. Repeatable."
)
@click.option(
    "--scenarios",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Play the scenarios of this file instead of the shipped ones.",
)
@click.option("--junit", "junit", is_flag=True, help="Print JUnit XML, for a CI.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    choice: Choice,
    backend: str,
    no_ipset: bool,
    names: tuple[str, ...],
    file: Path | None,
    junit: bool,
    as_json: bool,
) -> int:
    """Play attacks and good calls against the policy, on this kernel, touching nothing.

    All of it happens in namespaces that end with the command. Exit code 1 means that an attack
    passes, or that a good call is hurt.
    """
    from sipfw.prove.junit import junit_text
    from sipfw.prove.play import prove

    if junit and as_json:
        raise click.UsageError("--json and --junit are two forms; choose one")
    wanted = _backends(backend, choice)
    programme = _programme(choice, _scenarios(file, names), ipset=not no_ipset)
    proofs = []
    for name in wanted:
        proof = prove(replace(programme, backend=name), _Progress(programme.rounds))
        proofs.append(proof)
        if not (as_json or junit):
            say_lines(_shown(proof))
    if as_json:
        say_json([{**asdict(each), "proven": each.proven} for each in proofs])
    elif junit:
        say(junit_text(proofs), end="")
    return Exit.CLEAN if all(each.proven for each in proofs) else Exit.DIFFERENT


def _backends(word: str, choice: Choice) -> list[str]:
    from sipfw.deploy.applied import read_applied
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import backends

    known = {item.facts.words[-1]: item.name for item in backends()}
    if word == "all":
        return list(known.values())
    if word == "auto":
        # What was applied is root's to read.
        applied = read_applied(Layout(choice.root)) if os.geteuid() == 0 else None
        return [next(iter(known.values())) if applied is None else applied.backend]
    if word not in known:
        raise click.UsageError(f"no backend is called {word}; there are: {', '.join(known)}, all")
    return [known[word]]


def _scenarios(file: Path | None, names: tuple[str, ...]) -> Scenarios:
    from sipfw.policy.document import bytes_of
    from sipfw.policy.scenario import read_scenarios
    from sipfw.resources import package_folder

    path = file or package_folder() / "data" / "scenarios.yaml"
    found = read_scenarios(bytes_of(path), str(path))
    known = [each.name for each in found.all()]
    for name in names:
        if name not in known:
            raise click.UsageError(f"no scenario is called {name}; there are: {', '.join(known)}")
    return found.only(names) if names else found


def _programme(choice: Choice, scenarios: Scenarios, *, ipset: bool) -> Programme:
    from sipfw.prove.programme import programme_for
    from sipfw.prove.trial import with_trial_peer

    loaded, added = with_trial_peer(load_policy(choice, prints=True))
    if added:
        complain(f"note: {added}")
    if not ipset:
        loaded.require_setless()
    wanted = compile_wanted(loaded, lists=stored_lists(choice, loaded))
    policy = wanted.loaded.policy
    return programme_for(
        policy, wanted.ruleset, wanted.resolution.addresses, scenarios, ipset=ipset
    )


class _Progress:
    """A line that is written over at a terminal, and nothing elsewhere."""

    def __init__(self, rounds: int) -> None:
        self._rounds, self._done = rounds, 0

    def __call__(self, result: Result) -> None:
        self._done += 1
        if sys.stderr.isatty():
            line = f"\r{self._done} of {self._rounds}: {result.label}"
            sys.stderr.write(line[:78].ljust(79) + ("\n" if self._done == self._rounds else ""))
            sys.stderr.flush()


def _shown(proof: Proof) -> list[str]:
    from sipfw.prove.verdict import Verdict

    rows = [("scenario", "sent", "came", "verdict", "decided by", "why")]
    rows += [
        (
            each.label,
            str(each.tried),
            str(each.got),
            str(each.verdict),
            each.rule or "-",
            each.why or "-",
        )
        for each in proof.results
    ]
    played = [each for each in proof.results if each.verdict is not Verdict.SKIPPED]
    as_expected = f"{len(played) - len(proof.failed)} of {len(played)} as expected"
    skipped = len(proof.results) - len(played)
    not_played = f", {skipped} not played" if skipped else ""
    said = f"{proof.backend}: {as_expected}{not_played}, in {proof.seconds:.0f} s"
    return [*table(rows, right=(1, 2)), "", said if proof.proven else f"{said}: NOT PROVEN"]
