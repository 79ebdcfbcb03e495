"""Block lists in force: asks the sources that are due, keeps what is good, says what is in each.

A list is taken as a whole or not at all. An answer that fails, is empty, or has less than half of
the entries of the copy leaves the copy in force until that expires; the operator may accept it.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sipfw.deploy.lists.exempt import Exempt, cut_exempt, exempt_by_host, exempt_by_policy
from sipfw.deploy.lists.files import KnownList, forget_others, read_known, write_copy, write_tries
from sipfw.deploy.names.cache import age_text
from sipfw.diagnostics import Diagnostic, Severity
from sipfw.feeds.coverage import require_coverage
from sipfw.feeds.errors import FeedError
from sipfw.feeds.fetch import DEADLINE, NOTHING_SEEN, FeedResponse, fetch, read_file
from sipfw.feeds.parse import parse
from sipfw.feeds.store import Copy, Tries
from sipfw.words import pluralize

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from sipfw.feeds.fetch import Seen
    from sipfw.host.files import Layout
    from sipfw.policy.feed import Feed
    from sipfw.policy.model import Policy
    from sipfw.policy.types import Network

    Ask = Callable[[str, Seen], FeedResponse]

# A source that failed is asked again before its time, but not at every tick of the timer.
_RETRY = 900
# Threads end by themselves a little after the deadline, or never.
_PATIENCE = 2.0
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Lists:
    """What the block lists of a policy hold now, by name.

    `networks` has no entry for a list of which nothing is on file. `missing` are those by which
    nothing is dropped.
    """

    networks: Mapping[str, tuple[Network, ...]]
    remarks: tuple[Diagnostic, ...]
    missing: tuple[str, ...]


NO_LISTS = Lists({}, (), ())


def read_all(layout: Layout, policy: Policy) -> dict[str, KnownList]:
    """Return what is on file of a policy's lists."""
    return {feed.name: read_known(layout, feed) for feed in policy.feeds}


def is_due(feed: Feed, known: KnownList, now: float) -> bool:
    """Tell whether the source has to be asked: after `refresh`, and after a failure a little later.

    Where the clock has gone back, it has to.
    """
    if known.good is not None and 0 <= now - known.good < feed.refresh:
        return False
    if known.tries is None:
        return True
    return not 0 <= now - known.tries.tried < min(feed.refresh, _RETRY)


def ask_sources(
    feeds: Iterable[Feed],
    known: Mapping[str, KnownList],
    *,
    accept: Collection[str] = (),
    ask: Ask = fetch,
) -> dict[str, KnownList]:
    """Ask all at once; return what is known now, with the failures. Writes nothing."""
    wanted = list(feeds)
    answers: queue.Queue[tuple[str, FeedResponse | FeedError]] = queue.Queue()
    for feed in wanted:
        seen = _seen(known[feed.name])
        # Daemon threads: one that hangs in a resolver, or on a head without end, is left behind.
        threading.Thread(target=_get, args=(feed, seen, ask, answers), daemon=True).start()
    end = time.monotonic() + DEADLINE + _PATIENCE
    came: dict[str, FeedResponse | FeedError] = {}
    for _ in wanted:
        try:
            name, answer = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        came[name] = answer
    late = FeedError(f"no answer within {DEADLINE:g} s")
    now = time.time()
    return {
        feed.name: _judged(
            feed, known[feed.name], came.get(feed.name, late), now, accept=feed.name in accept
        )
        for feed in wanted
    }


def keep(layout: Layout, policy: Policy, asked: Mapping[str, KnownList]) -> None:
    """Write down what was asked, and forget other policies' lists. Raises BackendError."""
    forget_others(layout, policy.feeds)
    for feed in policy.feeds:
        found = asked.get(feed.name)
        if found is None or found.tries is None:
            continue
        # One that the source stands by has an older time, and is on file.
        if found.copy is not None and found.copy.time == found.tries.tried:
            write_copy(layout, feed, found.copy)
        write_tries(layout, feed, found.tries)


def lists_of(
    policy: Policy,
    known: Mapping[str, KnownList],
    addresses: Mapping[str, tuple[Network, ...]],
    *,
    now: float | None = None,
) -> Lists:
    """Return what each list drops: its copy without exempt networks, nothing once it expired."""
    if not policy.feeds:
        return NO_LISTS
    moment = time.time() if now is None else now
    exempt = [*exempt_by_policy(policy, addresses), *exempt_by_host()]
    networks: dict[str, tuple[Network, ...]] = {}
    remarks: list[Diagnostic] = []
    missing = []
    for feed in policy.feeds:
        found = known.get(feed.name, KnownList())
        met: list[Exempt] = []
        much = _too_much(feed, found)
        if found.copy is not None:
            usable = not is_expired(feed, found, moment) and much is None
            kept = found.copy.networks if usable else ()
            networks[feed.name], met = cut_exempt(kept, exempt)
        meant = much is None and _is_meant_empty(feed, found, moment)
        if not networks.get(feed.name) and not meant:
            missing.append(feed.name)
        remarks += _remarks(feed, found, met, moment, much)
    return Lists(networks, tuple(remarks), tuple(missing))


def is_expired(feed: Feed, known: KnownList, now: float) -> bool:
    """Tell whether the source has not stood by the copy for too long."""
    return feed.expiry is not None and known.good is not None and now - known.good > feed.expiry


def _too_much(feed: Feed, known: KnownList) -> str | None:
    """Say what of a copy is too much: the policy may have become stricter since."""
    try:
        require_coverage(() if known.copy is None else known.copy.networks, feed)
    except FeedError as error:
        return f"the last good one {error}"
    return None


def _is_meant_empty(feed: Feed, known: KnownList, now: float) -> bool:
    """An empty copy was accepted by hand, and one of exempt networks alone has nobody to drop."""
    return known.copy is not None and not is_expired(feed, known, now)


def _seen(known: KnownList) -> Seen:
    return NOTHING_SEEN if known.copy is None else known.copy.seen


def _get(
    feed: Feed, seen: Seen, ask: Ask, answers: queue.Queue[tuple[str, FeedResponse | FeedError]]
) -> None:
    try:
        if feed.url is not None:
            answers.put((feed.name, ask(feed.url, seen)))
        else:
            answers.put((feed.name, FeedResponse(read_file(feed.file or ""))))
    except FeedError as error:
        answers.put((feed.name, error))
    except Exception as error:  # noqa: BLE001 - a thread that dies in silence would cost the deadline
        answers.put((feed.name, FeedError(f"a fault in sipfw itself: {type(error).__name__}")))


def _judged(
    feed: Feed, known: KnownList, answer: FeedResponse | FeedError, now: float, *, accept: bool
) -> KnownList:
    """Return the new copy where the answer is good, and the old one with the reason where not."""
    if isinstance(answer, FeedError):
        return replace(known, tries=Tries(now, known.good, str(answer)))
    if answer.data is None:
        return replace(known, tries=Tries(now, now, None))
    try:
        parsed = parse(answer.data, feed)
        if not accept:
            _require_enough(len(parsed.networks), known, feed, now)
    except FeedError as error:
        return replace(known, tries=Tries(now, known.good, str(error)))
    copy = Copy(now, parsed.networks, parsed.left_out, answer.seen)
    return KnownList(copy, Tries(now, now, None))


def _require_enough(count: int, known: KnownList, feed: Feed, now: float) -> None:
    if not count:
        raise FeedError(f"is empty; if that is right: sipfw refresh --accept {feed.name}")
    if known.copy is None or is_expired(feed, known, now):
        return
    before = len(known.copy.networks)
    if 2 * count < before:
        raise FeedError(
            f"has shrunk from {before:,} to {count:,} entries; if that is right: sipfw refresh "
            f"--accept {feed.name}"
        )


def _remarks(
    feed: Feed, known: KnownList, met: list[Exempt], now: float, much: str | None
) -> list[Diagnostic]:
    """Say what stands in for a source that failed, and who was left out.

    `much` says that the copy covers too much.
    """
    field = f"feeds.{feed.name}"
    found = []
    error = None if known.tries is None else known.tries.error
    state = _in_force(feed, known, now) if much is None else f"{much}; nothing is dropped by it"
    if error is not None:
        message = f"the last try failed: {error}; {state}"
        found.append(Diagnostic(message, field, severity=Severity.WARNING))
    elif known.copy is None or is_expired(feed, known, now) or much is not None:
        found.append(Diagnostic(state, field, severity=Severity.WARNING))
    if met:
        more = len(met) - _MOST_NAMED
        names = ", ".join(map(str, met[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
        found.append(Diagnostic(f"lists exempt, left out: {names}", field, severity=Severity.NOTE))
    return found


def _in_force(feed: Feed, known: KnownList, now: float) -> str:
    if known.unreadable:
        return "only root may read the copy, so the set is empty here"
    if known.copy is None:
        return "there is no copy yet, so nothing is dropped by it"
    age = now - (known.good or now)
    old = age_text(age if age >= 0 else None)
    if is_expired(feed, known, now):
        return f"the last good one is {old} and has expired, so nothing is dropped by it"
    size = pluralize(len(known.copy.networks), "entry", "entries")
    return f"the last good one stays in force: {size}, {old}"
