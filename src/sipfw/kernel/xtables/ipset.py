"""Our ipsets in the kernel: load, snapshot, restore, destroy, list.

A set is never emptied in place. A new version is built under a temporary name and swapped in, so
that rules see the old contents or the new ones. Names outside `sipfw-` are only ever listed.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from sipfw.errors import BackendError
from sipfw.host.runner import MissingProgramError
from sipfw.kernel.xtables.ipset_text import (
    carried_element,
    elements_of,
    header_options,
    renamed_save,
    temporary_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sipfw.host.runner import Completed, Runner
    from sipfw.lower.xtables import XSet

OUR_PREFIX = "sipfw-"
_OUR_NAME = re.compile(r"sipfw-[A-Za-z0-9_.-]{1,25}")  # 31 in all: IPSET_MAXNAMELEN - 1
_FAILED_LINE = re.compile(r"Error in line (\d+): (.*)")
# Building 100,000 elements takes about half a second; the deadline is for a hung kernel.
_TIMEOUT = 60.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class LiveSet:
    """One set in the kernel, without its elements."""

    name: str
    type: str
    header: tuple[str, ...]
    entries: int
    memory: int
    references: int


@dataclass(frozen=True, slots=True)
class SetSnapshot:
    """Sets as `ipset save` printed them; None for a set that did not exist."""

    saved: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Names that were created or replaced (the others were kept), and notes for the operator."""

    changed: tuple[str, ...]
    notes: tuple[str, ...]


class Ipsets:
    """The ipsets of one network namespace, through the `ipset` program.

    `patience` is how long a set that is to be destroyed may stay in use: nf_tables lets go of the
    sets of a deleted rule only some time after its transaction, in a work queue.
    """

    def __init__(self, runner: Runner, patience: float = 0.0) -> None:
        self._runner = runner
        self._patience = patience

    def list_sets(self) -> tuple[LiveSet, ...]:
        """Return all sets, foreign ones too; cost does not depend on the number of elements."""
        done = self._ipset("list", "-t")
        _require(done, "cannot list sets")
        return tuple(_live_set(block) for block in done.stdout.split("\n\n") if block.strip())

    def list_if_installed(self) -> tuple[LiveSet, ...]:
        """Return all sets; none where the program is missing, which alone could have made some."""
        try:
            return self.list_sets()
        except MissingProgramError:
            return ()

    def snapshot(self, names: Iterable[str]) -> SetSnapshot:
        """Return the present contents of the named sets of ours."""
        wanted = _ours(names)
        # Without a set there is nothing to ask, and a host without ipset could not answer.
        existing = {item.name for item in self.list_sets()} if wanted else set()
        return SetSnapshot({name: self._save(name, existing) for name in wanted})

    def snapshot_before(self, sets: Sequence[XSet]) -> SetSnapshot:
        """Return the present contents of those sets that `load` would replace or add to."""
        if not _ours(item.name for item in sets):
            return SetSnapshot({})
        live = {item.name: item for item in self.list_sets()}
        return self.snapshot(
            item.name for item in sets if item.elements or not _keeps_contents(item, live)
        )

    def load(self, sets: Sequence[XSet]) -> LoadResult:
        """Make the sets as wanted; those that are already stay untouched.

        When building fails, no set was replaced; a kept one may have got new elements.
        """
        if not _ours(item.name for item in sets):
            return LoadResult((), ())
        live = {item.name: item for item in self.list_sets()}
        _refuse_conflicts(sets, live)
        kept = [item for item in sets if _keeps_contents(item, live)]
        rebuilt = [item for item in sets if item not in kept and not self._is_as_wanted(item, live)]
        lines: list[str] = []
        notes: list[str] = []
        for item in rebuilt:
            lines += self._creation(item, item.name in live, notes)
        for item in kept:
            lines += [f"add -exist {item.name} {element}" for element in item.elements]
        self._build_and_switch([item.name for item in rebuilt], lines, set(live))
        return LoadResult(tuple(item.name for item in rebuilt), tuple(notes))

    def _is_as_wanted(self, item: XSet, live: dict[str, LiveSet]) -> bool:
        """Tell whether a static set has its header and just its elements."""
        old = live.get(item.name)
        if old is None or not item.static or old.entries != len(item.elements):
            return False
        if not _has_header(item, old):
            return False
        saved = self._save(item.name, set(live))
        return saved is not None and set(elements_of(saved)) == set(item.elements)

    def restore(self, snapshot: SetSnapshot) -> None:
        """Bring the sets back to the snapshot; rules that use new sets must be gone before."""
        if not snapshot.saved:
            return
        existing = {item.name for item in self.list_sets()}
        texts = {name: text for name, text in snapshot.saved.items() if text is not None}
        lines: list[str] = []
        for name, text in texts.items():
            lines += renamed_save(text, temporary_name(name))
        self._build_and_switch(list(texts), lines, existing)
        self.destroy(name for name in snapshot.saved if name not in texts and name in existing)

    def destroy(self, names: Iterable[str], *, patient: bool = True) -> None:
        """Destroy sets of ours that exist; BackendError when a rule still uses one."""
        pending = _ours(names)
        deadline = time.monotonic() + (self._patience if patient else 0.0)
        while pending:
            try:
                self._restore([f"destroy {name}" for name in pending])
            except BackendError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_SECONDS)
                present = {item.name for item in self.list_sets()}
                pending = [name for name in pending if name in present]
            else:
                return

    def _save(self, name: str, existing: set[str]) -> str | None:
        if name not in existing:
            return None
        done = self._ipset("save", name)
        _require(done, f"cannot save set {name}")
        return done.stdout

    def _creation(self, item: XSet, exists: bool, notes: list[str]) -> list[str]:
        name = temporary_name(item.name)
        header = header_options(item.options, item.type)
        elements = list(item.elements)
        if exists and not item.static:
            saved = self._save(item.name, {item.name}) or ""
            room = max(int(header.get("maxelem", "65536")) - len(elements), 0)
            learned = [carried_element(line, header) for line in elements_of(saved)]
            elements += islice(learned, room)
            notes.append(f"set {item.name}: new options, {min(room, len(learned))} elements kept")
        return [
            f"create {name} {item.type} {' '.join(item.options)}",
            # -exist: a carried element may be in the policy as well.
            *(f"add -exist {name} {element}" for element in elements),
        ]

    def _build_and_switch(
        self, names: Sequence[str], lines: Sequence[str], existing: set[str]
    ) -> None:
        """Build temporary sets with `lines`, then put them in place of `names`."""
        temporaries = [temporary_name(name) for name in names]
        # A run that was killed may have left one.
        leftovers = [f"destroy {name}" for name in temporaries if name in existing]
        try:
            self._restore([*leftovers, *lines])
        except BackendError:
            present = {item.name for item in self.list_sets()}
            self.destroy(name for name in temporaries if name in present)
            raise
        switch: list[str] = []
        for name, temporary in zip(names, temporaries, strict=True):
            if name in existing:
                switch += [f"swap {temporary} {name}", f"destroy {temporary}"]
            else:
                switch.append(f"rename {temporary} {name}")
        self._restore(switch)

    def _restore(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        done = self._ipset("restore", stdin="\n".join(lines) + "\n")
        if done.returncode == 0:
            return
        failed = _FAILED_LINE.search(done.stderr)
        if failed is None:
            _require(done, "cannot load sets")
            return
        line = lines[int(failed[1]) - 1]
        raise BackendError(f"ipset: {failed[2].strip()}: {line}")

    def _ipset(self, *arguments: str, stdin: str = "") -> Completed:
        return self._runner.run(["ipset", *arguments], stdin=stdin, timeout=_TIMEOUT)


def _ours(names: Iterable[str]) -> list[str]:
    result = list(names)
    for name in result:
        if not _OUR_NAME.fullmatch(name):
            raise BackendError(
                f"set name {name!r}: must be {OUR_PREFIX} and 1 to 25 of A-Z a-z 0-9 _ . -"
            )
    return result


def _refuse_conflicts(sets: Sequence[XSet], live: dict[str, LiveSet]) -> None:
    """Refuse what a swap cannot do, before anything is built."""
    for item in sets:
        if any("\n" in text for text in (*item.options, *item.elements)):
            raise BackendError(f"set {item.name}: line feed in an option or element")
        old = live.get(item.name)
        if old is None:
            continue
        now = header_options(old.header, old.type).get("family")
        wanted = header_options(item.options, item.type).get("family")
        if old.type != item.type or now != wanted:
            raise BackendError(
                f"set {item.name} exists as {old.type} {now or ''}, "
                f"wanted is {item.type} {wanted or ''}".rstrip(),
                hint="run sipfw remove first: a set in use cannot change its type",
            )


def _keeps_contents(item: XSet, live: dict[str, LiveSet]) -> bool:
    if item.static or item.name not in live:
        return False
    return _has_header(item, live[item.name])


def _has_header(item: XSet, old: LiveSet) -> bool:
    wanted = header_options(item.options, item.type)
    return old.type == item.type and header_options(old.header, old.type) == wanted


def _live_set(block: str) -> LiveSet:
    fields = dict(line.partition(": ")[::2] for line in block.splitlines())
    try:
        return LiveSet(
            name=fields["Name"],
            type=fields["Type"],
            header=tuple(fields["Header"].split()),
            entries=int(fields["Number of entries"]),
            memory=int(fields["Size in memory"]),
            references=int(fields["References"]),
        )
    except (KeyError, ValueError) as error:
        raise BackendError(f"ipset list: cannot read {block!r}") from error


def _require(done: Completed, what: str) -> None:
    if done.returncode != 0:
        raise BackendError(f"ipset: {what}: {done.stderr.strip()}")
