"""`sipfw test`: the operator's own expectations, as unit tests of the policy."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sipfw.cli.options import Choice, compile_wanted, load_policy, policy_options, stored_lists
from sipfw.cli.output import say, say_json, say_lines, table
from sipfw.errors import Exit
from sipfw.words import pluralize

if TYPE_CHECKING:
    from sipfw.prove.cases import Tried


@click.command("test")
@policy_options
@click.argument("file", metavar="CASES", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--junit", is_flag=True, help="Print JUnit XML, for a CI.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, choice: Choice, file: Path, junit: bool, as_json: bool) -> int:
    """Try what you expect of the policy: one request each, without a kernel and without root.

    Exit code 1 means that something is not as expected.
    """
    from sipfw.policy.case import Cases
    from sipfw.policy.document import bytes_of, read_as
    from sipfw.prove.cases import try_cases
    from sipfw.prove.junit import case, document, suite

    if junit and as_json:
        raise click.UsageError("--json and --junit are two forms; choose one")
    cases, origins = read_as(Cases, bytes_of(file), str(file))
    loaded = load_policy(choice, prints=True)
    wanted = compile_wanted(loaded, lists=stored_lists(choice, loaded))
    found = try_cases(cases, origins, wanted.ruleset)
    if junit:
        made = [case(each.name, "case", failure=each.failure) for each in found]
        say(document([suite(file.name, 0.0, made)]), end="")
    elif as_json:
        say_json([asdict(each) for each in found])
    else:
        say_lines(_shown(found))
    return Exit.DIFFERENT if any(each.failure for each in found) else Exit.CLEAN


def _shown(found: list[Tried]) -> list[str]:
    rows = [("case", "result", "decided by")]
    rows += [
        (each.name, each.failure or "as expected", " and ".join(each.decided) or "-")
        for each in found
    ]
    failed = sum(bool(each.failure) for each in found)
    end = pluralize(len(found), "case")
    return [*table(rows), "", f"{end}, {failed} not as expected" if failed else f"{end} passed"]
