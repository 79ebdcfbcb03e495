"""`sipfw render`: the firewall as text on stdout."""

from __future__ import annotations

from pathlib import Path

import click

from sipfw.cli.options import (
    Choice,
    compile_wanted,
    load_policy,
    policy_options,
    stored_lists,
)
from sipfw.cli.output import remark, say
from sipfw.errors import Exit


@click.command("render")
@policy_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["script", "restore", "ipset", "nft", "sysctl"]),
    default="script",
    show_default=True,
    help="Print a shell script, iptables-restore, ipset-restore or nft text, or a sysctl.d file.",
)
@click.option(
    "--family",
    type=click.Choice(["ip", "ip6"]),
    help="With --format restore: print only this family, ready for ip(6)tables-restore --noflush.",
)
@click.option(
    "--no-ipset", is_flag=True, help="Render for a host without ipset; prints what that costs."
)
@click.option(
    "--no-u32",
    is_flag=True,
    help="Use xt_bpf instead of xt_u32 (RHEL, Alma and Rocky 9 and later).",
)
@click.option(
    "--template-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Prefer the templates in this folder over the shipped ones.",
)
def command(
    *,
    choice: Choice,
    form: str,
    family: str | None,
    no_ipset: bool,
    no_u32: bool,
    template_dir: Path | None,
) -> int:
    """Print the firewall: `sipfw render > firewall.sh`.

    Needs no root and no iptables; the script needs no Python.
    """
    from sipfw.lower.iptables import lower
    from sipfw.lower.without_ipset import warnings
    from sipfw.render.text import rendered

    if family is not None and form != "restore":
        raise click.UsageError("--family goes with --format restore")
    loaded = load_policy(choice, prints=True)
    wanted = compile_wanted(loaded, lists=stored_lists(choice, loaded))
    if no_ipset:
        wanted.loaded.require_setless()
        remark(warnings(wanted.ruleset))
    plan = lower(wanted.ruleset, ipset=not no_ipset, u32=not no_u32)
    say(rendered(wanted.ruleset, plan, form, family, template_dir).rstrip("\n"))
    return Exit.INCOMPLETE if wanted.resolution.failures else Exit.CLEAN
