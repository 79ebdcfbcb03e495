"""`sipfw report`: one page about the firewall and its last days, complete in one file."""

from __future__ import annotations

import time
from pathlib import Path

import click

from sipfw.cli.moments import moment_of
from sipfw.cli.options import Seconds, root_option
from sipfw.cli.output import complain, say, wait_for
from sipfw.errors import Exit


@click.command("report")
@click.option(
    "--html",
    "target",
    required=True,
    type=click.Path(path_type=Path, allow_dash=True, writable=False),
    metavar="FILE",
    help="Write the page to this file; - is stdout.",
)
@click.option(
    "--since",
    default="7d",
    show_default=True,
    metavar="WHEN",
    help="Chart from this time on: a duration ago such as 12h or 30d, or a timestamp.",
)
@click.option(
    "--seconds",
    type=Seconds(0.0, 60.0),
    metavar="SECONDS",
    default=2.0,
    show_default=True,
    help="Look at arriving packets for this long.",
)
@click.option("--names", is_flag=True, help="Query DNS for the names of sources.")
@click.option(
    "--template-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Prefer report.html.j2 in this folder over the shipped one.",
)
@root_option
def command(
    *,
    target: Path,
    since: str,
    seconds: float,
    names: bool,
    template_dir: Path | None,
    root: Path,
) -> int:
    """Write a page for a browser: verdict, charts, sources, rules, sets, peers, drift.

    The page fetches nothing and holds addresses, so only root may read the file. Charts come from
    kept readings; this look is kept too. No rule is touched.

    Exit code 0: the page is written, whatever it says; `sipfw verify` is the check. 4: no firewall
    of sipfw is in force.
    """
    from sipfw.cli.report_view import page_of
    from sipfw.deploy.none_active import HINT, NOTHING
    from sipfw.host.files import Layout
    from sipfw.monitor.page import gather
    from sipfw.render.report import report_html

    moment = moment_of(since, time.time())
    _refuse(target)
    wait_for(f"looking at arriving packets for {seconds:g} s")
    facts = gather(Layout(root), since=moment, seconds=seconds, names=names)
    if facts is None:
        complain(f"{NOTHING}; {HINT}")
        return Exit.BACKEND
    _write(target, report_html(page_of(facts), template_dir))
    return Exit.CLEAN


def _refuse(target: Path) -> None:
    """Raise click.BadParameter where no file can be; better now than after looking."""
    if str(target) == "-":
        return
    # A file takes the place of what was there: a device must not lose its own.
    if target.is_symlink() or (target.exists() and not target.is_file()):
        message = f"{target} is not a plain file; write - for standard output"
        raise click.BadParameter(message, param_hint="--html")
    if not target.parent.is_dir():
        raise click.BadParameter(f"{target.parent} is not a folder", param_hint="--html")


def _write(target: Path, text: str) -> None:
    from sipfw.host.files import write_atomically

    if str(target) == "-":
        say(text, end="")
        return
    write_atomically(target, text)
    complain(f"{target}: written, for root only")
