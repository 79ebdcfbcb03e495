"""What `apply` shows before it changes anything, and the question it asks at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.cli.ask import ask as asked
from sipfw.cli.ask import at_terminal
from sipfw.cli.machine import did
from sipfw.cli.output import complain

if TYPE_CHECKING:
    from sipfw.host.files import Layout
    from sipfw.kernel.backend import Backend
    from sipfw.kernel.snapshot import HostSnapshot
    from sipfw.ruleset.model import Ruleset


def agreed(
    ruleset: Ruleset,
    chosen: Backend,
    layout: Layout,
    *,
    ask: bool,
    host: HostSnapshot | None = None,
) -> bool:
    """Print the plan on stderr; with `ask`, and at a terminal, return the operator's answer."""
    from sipfw.cli.plan_view import as_lines
    from sipfw.deploy.plan import plan_apply

    plan = plan_apply(ruleset, chosen, layout)
    for line in as_lines(plan, brief=True):
        complain(line)
    if plan.same or not (ask and at_terminal()):
        return True
    if asked("apply these changes?"):
        # Others may have changed something while the question stood.
        if host is not None:
            host.forget()
        return True
    did(changed=False)
    complain("nothing was changed")
    return False
