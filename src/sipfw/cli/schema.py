"""`sipfw schema`: the JSON Schema of the policy file."""

from __future__ import annotations

import click

from sipfw.cli.output import say_json
from sipfw.errors import Exit


@click.command("schema")
@click.option("--json", is_flag=True, expose_value=False, help="Print JSON, as always.")
def command() -> int:
    """Print the JSON Schema, so that an editor completes and checks the policy file."""
    from sipfw.policy.schema import json_schema

    say_json(json_schema())
    return Exit.CLEAN
