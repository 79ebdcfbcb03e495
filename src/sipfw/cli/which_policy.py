"""Which policy file a command reads, and when shipped values may take its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sipfw.cli.ask import ask, at_terminal
from sipfw.cli.output import complain, remark
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.errors import PolicyError

if TYPE_CHECKING:
    from sipfw.cli.options import Choice

DEFAULT_POLICY = "etc/sipfw/policy.yaml"
# The word for `--policy` that means no file; one of that name is `./none`.
NO_FILE = Path("none")


def is_there(path: Path) -> bool:
    """Tell whether a file exists; one that this user may not look for is read, and named, later."""
    try:
        return path.exists()
    except PermissionError:
        return True


def chosen_file(choice: Choice, *, changes: bool, prints: bool) -> Path | None:
    """Return the file that is meant, None for shipped values.

    A command that `changes` the firewall never takes shipped values unasked, and no other does
    where a policy file made what is in force: PolicyError. One that only `prints` warns instead.
    """
    if choice.policy == NO_FILE:
        return None
    usual = choice.root / DEFAULT_POLICY
    if choice.policy is not None or is_there(usual):
        return choice.policy or usual
    before = _in_force(choice)
    if before is not None:
        _beside(choice, usual, before, changes=changes, prints=prints)
    elif changes and choice.profile is None:
        raise _error(
            f"no policy at {usual}; sipfw init writes one, --profile wholesale takes the shipped "
            "values"
        )
    else:
        complain("no policy file: using shipped values; `sipfw init` writes a starter policy")
    return None


def _in_force(choice: Choice) -> str | None:
    from sipfw.deploy.made_from import policy_file_in_force
    from sipfw.host.files import Layout

    return policy_file_in_force(Layout(choice.root))


def _beside(choice: Choice, usual: Path, before: str, *, changes: bool, prints: bool) -> None:
    """Say, ask or refuse where shipped values would stand for a file that is in force."""
    fact = f"no policy at {usual}, and what is in force was made from {before}"
    if prints or (choice.profile is not None and not changes):
        message = f"{fact}: these are shipped values, not those of this host"
        remark([Diagnostic(message, severity=Severity.WARNING)])
        return
    if choice.profile is not None and at_terminal():
        message = f"{fact}; its values, your peers among them, would be gone"
        remark([Diagnostic(message, severity=Severity.WARNING)])
        if ask("take the shipped values instead?"):
            return
    raise _error(f"{fact}; name it with --policy, or take shipped values with --policy none")


def _error(message: str) -> PolicyError:
    return PolicyError([Diagnostic(message)])
