"""What a command looks at: the firewall on record, or what the options' policy would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.cli.options import Choice, compile_wanted, load_policy
from sipfw.cli.output import complain, remark

if TYPE_CHECKING:
    from sipfw.monitor.observe import Subject


def find_subject(choice: Choice, backend: str, *, ipset: bool) -> Subject:
    """Return the applied firewall, unless the options name a policy or nothing was applied."""
    from sipfw.deploy.choose import choose
    from sipfw.host.files import Layout
    from sipfw.kernel.snapshot import HostSnapshot
    from sipfw.monitor.observe import Subject, applied_subject

    layout = Layout(choice.root)
    if not choice.explicit:
        applied = applied_subject(layout)
        if applied is not None:
            return applied
        complain("no apply is on record; comparing with the policy itself")
    loaded = load_policy(choice)
    wanted = compile_wanted(loaded, layout)
    host = HostSnapshot()
    chosen = choose(backend, layout, ipset=ipset, host=host)
    remark(chosen.remarks)
    expectation = chosen.backend.expectation(wanted.ruleset)
    source = ", ".join(loaded.sources)
    return Subject(expectation, chosen.backend, source, ruleset=lambda: wanted.ruleset, host=host)
