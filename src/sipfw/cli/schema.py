"""`sipfw schema`: the JSON Schema of the policy file."""

from __future__ import annotations

import click

from sipfw.cli.output import say_json
from sipfw.errors import Exit


@click.command("schema")
@click.option("--json", is_flag=True, expose_value=False, help="Print JSON, as always.")
@click.option(
    "--of",
    "subject",
    type=click.Choice(["policy", "scenarios", "cases"]),
    default="policy",
    show_default=True,
    help="Of the policy file, of scenarios of `sipfw prove`, or of cases of `sipfw test`.",
)
def command(*, subject: str) -> int:
    """Print the JSON Schema, so that an editor completes and checks the policy file."""
    from sipfw.policy.case import case_schema
    from sipfw.policy.scenario import scenario_schema
    from sipfw.policy.schema import json_schema

    schemas = {"policy": json_schema, "scenarios": scenario_schema, "cases": case_schema}
    say_json(schemas[subject]())
    return Exit.CLEAN
