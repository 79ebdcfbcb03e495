"""`sipfw metrics`: figures for Prometheus, to stdout, into a file, or over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sipfw.cli.options import root_option
from sipfw.cli.output import complain, say
from sipfw.errors import BackendError, Exit
from sipfw.metrics.address import DEFAULT, Address, parse_address

if TYPE_CHECKING:
    from sipfw.deploy.files import Layout
    from sipfw.metrics.families import Rules
    from sipfw.metrics.scrape import Scrape
    from sipfw.metrics.text import Format


def _address(ctx: click.Context, param: click.Parameter, value: str | None) -> Address | None:
    try:
        return None if value is None else parse_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


@click.command("metrics")
@root_option
@click.option(
    "--textfile",
    metavar="FILE.prom",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it for node_exporter's textfile collector; below no --root.",
)
@click.option(
    "--listen",
    callback=_address,
    is_flag=False,
    flag_value=DEFAULT,
    metavar="[[ADDRESS:]PORT]",
    help=f"Answer scrapes at http://{DEFAULT}/metrics until SIGTERM.",
)
@click.option(
    "--rules",
    type=click.Choice(["deciding", "all", "none"]),
    default="deciding",
    show_default=True,
    help="Rules with series of their own: those that drop or let through, all, or none.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["openmetrics", "prometheus"]),
    help="What stdout gets; prometheus is the older format.  [default: openmetrics]",
)
def command(
    *, root: Path, textfile: Path | None, listen: Address | None, rules: str, form: str | None
) -> int:
    """Print what the live firewall counts and how it is, for Prometheus.

    Without an applied firewall, --textfile and --listen report sipfw_up 0, so that an alert fires.
    """
    from sipfw.deploy.files import Layout
    from sipfw.deploy.privilege import require_root
    from sipfw.metrics.families import Rules
    from sipfw.metrics.text import Format

    if (textfile is not None) + (listen is not None) + (form is not None) > 1:
        raise click.UsageError("choose one of --textfile, --listen and --format")
    require_root()
    layout, wanted = Layout(root), Rules(rules)
    if listen is not None:
        _serve(layout, listen, wanted)
    elif textfile is not None:
        _write(layout, textfile, wanted)
    else:
        _print(layout, Format(form or Format.OPENMETRICS), wanted)
    return Exit.CLEAN


def _page(found: Scrape, rules: Rules, form: Format) -> str:
    from sipfw.metrics.families import metrics_of
    from sipfw.metrics.text import as_text

    return as_text(metrics_of(found, rules), form)


def _print(layout: Layout, form: Format, rules: Rules) -> None:
    from sipfw.metrics.scrape import scrape

    found = scrape(layout)
    if found.problem:
        raise BackendError(found.problem)
    if found.note:
        complain(found.note)
    say(_page(found, rules, form), end="")


def _write(layout: Layout, path: Path, rules: Rules) -> None:
    from sipfw.metrics.scrape import scrape
    from sipfw.metrics.text import Format
    from sipfw.metrics.textfile import SUFFIX, write_textfile

    if path.suffix != SUFFIX:
        raise click.UsageError(f"{path}: node_exporter reads only files that end in {SUFFIX}")
    found = scrape(layout)
    write_textfile(path, _page(found, rules, Format.PROMETHEUS))
    for text in filter(None, (found.problem, found.note)):
        complain(f"{path}: {text}")


def _serve(layout: Layout, address: Address, rules: Rules) -> None:
    from sipfw.metrics.scrape import Cached, scrape
    from sipfw.metrics.server import Exporter, serve, until_told_to_end

    said: set[str] = set()

    def page(form: Format) -> str:
        found = looks.get()
        texts = set(filter(None, (found.problem, found.note)))
        for text in texts - said:
            complain(text)
        said.clear()
        said.update(texts)
        return _page(found, rules, form)

    looks = Cached(lambda: scrape(layout))
    with until_told_to_end() as told:
        exporter = Exporter(address, page, complain)
        if not address.loopback:
            complain(
                f"WARNING: everybody who reaches {address} can read what this firewall counts; "
                f"--listen {DEFAULT} shows it to this host only"
            )
        complain(f"listening on http://{address}/metrics")
        serve(exporter, told)
        # A reading that is being written is not to be left half.
        looks.finish(5.0)
