"""`verify --deep`: loads the generation in force in a network namespace of its own and compares.

The namespace belongs to one child process and ends with it. The live namespace is only read.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sipfw.compare.deep import Definitions, as_listed, drift_by_listing, with_recorded
from sipfw.compare.expected import from_json, to_json
from sipfw.deploy.activate import Firewall, stored
from sipfw.deploy.applied import read_applied
from sipfw.deploy.generations import Damaged
from sipfw.deploy.plan import possible
from sipfw.errors import BackendError
from sipfw.host.child import child_command
from sipfw.host.privilege import require_root
from sipfw.host.runner import Runner, SubprocessRunner
from sipfw.kernel.backend import Options, backend_of
from sipfw.ruleset.codec import decode, encode

if TYPE_CHECKING:
    from sipfw.compare.drift import Drift
    from sipfw.compare.expected import Expectation
    from sipfw.host.files import Layout

_CLONE_NEWNET = 0x40000000
# Loading 100,000 elements and listing them takes some seconds; the deadline is for a hung kernel.
_TIMEOUT = 180.0


def deep_drift(layout: Layout, runner: Runner | None = None) -> tuple[Drift, ...]:
    """Return how the live firewall differs from the generation in force, listing by listing.

    Raises BackendError where there is no such generation, or where no network namespace can be
    made: a container may own its packet filter without CAP_SYS_ADMIN.
    """
    require_root()
    applied = read_applied(layout)
    if applied is None:
        raise BackendError("no apply is on record to compare with", hint="verify without --deep")
    if applied.generation is None:
        raise BackendError(
            "what is live was applied by an older sipfw, which kept no rules", hint="apply again"
        )
    firewall = stored(layout, applied.generation)
    if isinstance(firewall, Damaged):
        raise BackendError(
            f"generation {firewall.number} is damaged: {firewall.reason}", hint="apply again"
        )
    loaded, definitions = _load_aside(firewall, runner or SubprocessRunner())
    resolved = {item.name for item in firewall.ruleset.sets if item.resolved}
    followed = frozenset(item.name for item in loaded.sets if item.of in resolved)
    wanted = with_recorded(possible(loaded, applied.expectation), applied.expectation, followed)
    meant = {name: words for name, words in definitions.items() if name not in followed}
    live, now = backend_of(firewall.backend, ipset=firewall.ipset).read_fully(wanted)
    return tuple(drift_by_listing(wanted, meant, live, now))


def _load_aside(firewall: Firewall, runner: Runner) -> tuple[Expectation, Definitions]:
    """Return the firewall in the kernel's words, and the definitions of its sets."""
    request = {
        "backend": firewall.backend,
        "ipset": firewall.ipset,
        "ruleset": encode(firewall.ruleset),
    }
    with tempfile.TemporaryDirectory(prefix="sipfw-deep-") as folder:
        done = runner.run(
            child_command(__name__, "serve"),
            stdin=json.dumps(request),
            timeout=_TIMEOUT,
            # Nobody shares that namespace, so other programs need not wait for its tables.
            env={"XTABLES_LOCKFILE": str(Path(folder, "xtables.lock"))},
        )
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        said = " ".join(done.stderr.strip().splitlines()[-1:])
        raise BackendError(f"--deep: the rules could not be loaded aside: {said}") from error
    if "error" in answer:
        raise BackendError(answer["error"], hint="verify without --deep needs none of this")
    definitions = {name: tuple(words) for name, words in answer["definitions"].items()}
    return from_json(answer["expectation"]), definitions


def serve() -> None:
    """Answer one request in a network namespace that is left at the end. For the child only."""
    json.dump(_answer(json.load(sys.stdin)), sys.stdout)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        needs = ", which takes CAP_SYS_ADMIN" if code == errno.EPERM else ""
        reason = os.strerror(code).lower()
        return {"error": f"--deep needs a network namespace of its own{needs}: {reason}"}
    chosen = backend_of(request["backend"], ipset=request["ipset"])
    try:
        change = chosen.apply(decode(request["ruleset"]), Options())
        live, definitions = chosen.read_fully(change.expectation)
    except BackendError as error:
        return {"error": f"--deep: the rules could not be loaded aside: {error.message}"}
    listed = as_listed(change.expectation, live)
    return {"expectation": to_json(listed), "definitions": definitions}
