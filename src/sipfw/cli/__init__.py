"""The `sipfw` command: one file per subcommand, found and imported only when it is called."""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from contextlib import suppress

import click

from sipfw import __version__
from sipfw.cli.examples import EXAMPLES, FIRST_STEPS, epilog
from sipfw.cli.machine import failure, with_json
from sipfw.cli.output import complain
from sipfw.cli.usage import one_line, unknown_command
from sipfw.errors import Exit, SipfwError

# Listing a command must not import it: the help page answers without pydantic, jinja2 or iptc.
_SECTIONS = {
    "Policy": {
        "init": "write a commented starter policy",
        "check": "check a policy and explain its values",
        "peer": "add, remove, list and test the trusted peers of the policy file",
        "profiles": "list and show the shipped profiles and switches",
        "schema": "print the JSON Schema of the policy file",
        "render": "print the firewall as a script or as rule files",
        "test": "try what you expect of the policy, one request each",
        "prove": "play attacks and good calls against the policy, touching nothing",
    },
    "Firewall of this host": {
        "diff": "show what an apply would change in the live firewall",
        "apply": "make the policy live on this host",
        "panic": "let nobody in but trusted peers and admins, for a time",
        "confirm": "keep what was applied with --confirm",
        "rollback": "bring an earlier firewall back",
        "history": "list what was applied and what became of it",
        "refresh": "resolve host names again, and fetch block lists",
        "install-service": "restore the firewall at boot and follow host names",
        "keep": "restore what another program took away of it",
        "saved": "rules of sipfw in files that others load at boot",
        "restore": "make the last confirmed firewall live, as at boot",
        "remove": "take everything of sipfw off this host",
    },
    "What it does": {
        "verify": "show counters, and whether it is what was applied",
        "top": "show who is being dropped, by which layer and why",
        "events": "show who was dropped or banned lately, why and for how long",
        "why": "say what happens to a source now, and what would change it",
        "doctor": "say what is wrong with this host for SIP",
        "report": "write a page with charts for a browser",
        "support": "write one file for whoever helps from afar",
        "metrics": "print, write or serve figures for Prometheus",
    },
    "Bans, trust, block lists": {
        "bans": "show who is banned, why and for how long; export the list",
        "ban": "ban addresses by hand, for a time",
        "unban": "free addresses from every ban",
        "trust": "trust a source for a time, without a word in the policy",
        "feeds": "show the block lists: entries, age, errors, hits",
    },
}
_OBJECTS_PER_COLLECTION = 100_000
_COMMANDS = {name: text for section in _SECTIONS.values() for name, text in section.items()}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"sipfw.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        command.epilog = epilog(EXAMPLES[cmd_name])
        with_json(command, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(unknown_command(args[0], _COMMANDS), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _COMMANDS))
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in commands.items()])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=epilog(FIRST_STEPS),
)
@click.version_option(__version__, prog_name="sipfw")
def cli() -> None:
    """Turn one policy file into a layered SIP firewall, and watch it.

    Exit codes: 0 clean, 1 difference found, 2 usage, 3 invalid policy,
    4 host refused (nothing changed), 5 went live and failed (see the message),
    6 done, but a host name has no address or a block list has no entries.
    """


def main() -> None:
    """Run the command line and turn every error into a message and an exit code."""
    # A ruleset is some 100,000 objects that live to the end: walking them for garbage each time
    # that 700 are made is a tenth of an apply.
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    try:
        code = cli.main(prog_name="sipfw", standalone_mode=False)
    except SipfwError as error:
        complain(str(error))
        _say_failure(error, error.exit_code)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        # click 8.2 and later: `sipfw` alone is an error whose text is the help page.
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            error.show()
        else:
            complain(one_line(error))
            _say_failure(click.ClickException(one_line(error)), error.exit_code)
        sys.exit(error.exit_code)
    except click.Abort:
        complain("interrupted; an apply that had begun was finished or taken back")
        sys.exit(130)
    except BrokenPipeError:
        # `sipfw verify | head`: the reader has gone; a second write would fail at exit again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.DIFFERENT)
    except Exception as error:
        if os.environ.get("SIPFW_DEBUG"):
            raise
        complain(f"a fault in sipfw itself: {type(error).__name__}: {error}")
        complain("please report it with the output of the same command under SIPFW_DEBUG=1")
        sys.exit(70)
    sys.exit(code if isinstance(code, int) else Exit.CLEAN)


def _say_failure(error: Exception, code: int) -> None:
    """Print the error for a program that has asked for JSON."""
    words = sys.argv[1:]
    if "--json" in words:
        name = next((word for word in words if word in _COMMANDS), "")
        with suppress(OSError):
            click.echo(json.dumps(failure(name, error, code), indent=2))
