"""`sipfw metrics`: figures for Prometheus, to stdout, into a file, or over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sipfw.cli.options import root_option
from sipfw.cli.output import complain, say
from sipfw.cli.remember import remember
from sipfw.errors import BackendError, Exit
from sipfw.monitor.metrics.address import DEFAULT, ListenAddress, parse_address

if TYPE_CHECKING:
    from sipfw.host.files import Layout
    from sipfw.monitor.metrics.families import RuleSeries
    from sipfw.monitor.metrics.scrape import Scrape
    from sipfw.monitor.metrics.text import Format


def _address(ctx: click.Context, param: click.Parameter, value: str | None) -> ListenAddress | None:
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
    help="Write the file of node_exporter's textfile collector; --root does not apply to it.",
)
@click.option(
    "--listen",
    callback=_address,
    is_flag=False,
    flag_value=DEFAULT,
    metavar="[[ADDRESS:]PORT]",
    help=f"Serve scrapes at http://{DEFAULT}/metrics until SIGTERM.",
)
@click.option(
    "--rules",
    type=click.Choice(["deciding", "all", "none"]),
    default="deciding",
    show_default=True,
    help="Export a series for each rule that drops or passes packets, for all rules, or for none.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["openmetrics", "prometheus"]),
    help="Print this format; prometheus is the older one.  [default: openmetrics]",
)
def command(
    *, root: Path, textfile: Path | None, listen: ListenAddress | None, rules: str, form: str | None
) -> int:
    """Print what the live firewall counts and how it is, for Prometheus.

    Without an applied firewall, --textfile and --listen report sipfw_up 0, so that an alert fires.
    """
    from sipfw.host.files import Layout
    from sipfw.host.privilege import require_root
    from sipfw.monitor.metrics.families import RuleSeries
    from sipfw.monitor.metrics.text import Format, require_library

    if (textfile is not None) + (listen is not None) + (form is not None) > 1:
        raise click.UsageError("choose one of --textfile, --listen and --format")
    require_root()
    require_library()
    layout, wanted = Layout(root), RuleSeries(rules)
    if listen is not None:
        _serve(layout, listen, wanted)
    elif textfile is not None:
        _write(layout, textfile, wanted)
    else:
        _print(layout, Format(form or Format.OPENMETRICS), wanted)
    return Exit.CLEAN


def _page(found: Scrape, rules: RuleSeries, form: Format) -> str:
    from sipfw.monitor.metrics.families import metrics_of
    from sipfw.monitor.metrics.text import as_text

    return as_text(metrics_of(found, rules), form)


def _print(layout: Layout, form: Format, rules: RuleSeries) -> None:
    from sipfw.monitor.metrics.scrape import scrape

    found = scrape(layout)
    if found.problem:
        raise BackendError(found.problem)
    if found.note:
        complain(found.note)
    say(_page(found, rules, form), end="")


def _write(layout: Layout, path: Path, rules: RuleSeries) -> None:
    from sipfw.monitor.metrics.scrape import scrape
    from sipfw.monitor.metrics.text import Format
    from sipfw.monitor.metrics.textfile import SUFFIX, write_textfile

    if path.suffix != SUFFIX:
        raise click.UsageError(f"{path}: node_exporter reads only files that end in {SUFFIX}")
    found = scrape(layout)
    write_textfile(path, _page(found, rules, Format.PROMETHEUS))
    remember(layout)
    for text in filter(None, (found.problem, found.note)):
        complain(f"{path}: {text}")


def _serve(layout: Layout, address: ListenAddress, rules: RuleSeries) -> None:
    from sipfw.monitor.metrics.scrape import Cached, scrape
    from sipfw.monitor.metrics.server import Exporter, serve, until_told_to_end

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
