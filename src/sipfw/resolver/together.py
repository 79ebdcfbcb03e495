"""Asks all questions at once, within one deadline: a name that hangs costs the others nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sipfw.resolver.hosts_file import read_hosts
from sipfw.resolver.locate import locate
from sipfw.resolver.name_servers import NameServers
from sipfw.resolver.records import DnsQuestion, Located, Unanswered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from sipfw.ruleset.addresses import IpAddress

    Lookup = Callable[[DnsQuestion], Awaitable[Located]]


def ask_all(
    questions: Mapping[str, DnsQuestion], deadline: float, lookup: Lookup | None = None
) -> dict[str, Located | str]:
    """Return the answers by key; a text in the place of one says why there is none."""
    return asyncio.run(_all(questions, deadline, lookup))


@dataclass(slots=True)
class _Dns:
    """The host's own way: its hosts file, then its name servers."""

    servers: NameServers = field(default_factory=NameServers)
    hosts: dict[str, tuple[IpAddress, ...]] = field(default_factory=read_hosts)

    async def __call__(self, question: DnsQuestion) -> Located:
        return await locate(question, self.servers.ask, self.hosts)


async def _all(
    questions: Mapping[str, DnsQuestion], deadline: float, lookup: Lookup | None
) -> dict[str, Located | str]:
    try:
        ask = lookup or _Dns()
    except (OSError, ValueError) as error:
        return dict.fromkeys(questions, f"/etc/resolv.conf cannot be used: {error}")
    tasks = {key: asyncio.ensure_future(ask(question)) for key, question in questions.items()}
    await asyncio.wait(tasks.values(), timeout=deadline)
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    return {key: _outcome(task) for key, task in tasks.items()}


def _outcome(task: asyncio.Future[Located]) -> Located | str:
    if task.cancelled():
        return "no answer in time"
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, Unanswered | OSError):
        return str(error)
    # What a hostile answer may do to a parser must not cost the other names theirs.
    return f"the answer cannot be read: {type(error).__name__}"
