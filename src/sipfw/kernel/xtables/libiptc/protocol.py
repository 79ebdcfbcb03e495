"""What the parent process and the iptc worker say to each other, and its JSON form.

Pure data: neither side's knowledge of kernels or files is here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sipfw.lower.xtables import (
    Family,
    XChain,
    XJump,
    XMatch,
    XParam,
    XRule,
    XTable,
    XTarget,
)
from sipfw.plain_data import to_plain


class Operation(StrEnum):
    """What the worker shall do. To remove is to apply tables without chains and jumps."""

    APPLY = "apply"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class WorkerRequest:
    """One job for the worker.

    A table without chains and jumps means: take everything of ours out of it. `adopt_chains` of
    somebody else are taken over, and with them those of the tables' own names; none where it is
    empty. `features` are the match and target names that a probe asks about.
    """

    operation: Operation
    tables: tuple[XTable, ...] = ()
    adopt_chains: tuple[str, ...] = ()
    reposition: bool = False
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Feature:
    """One extension in one family; `accepted` is None where the kernel could not be asked."""

    family: Family
    name: str
    found: bool
    accepted: bool | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WorkerReply:
    """How the job went.

    `committed` names the tables (`ip raw`) that are in the kernel already, also when `error` is
    set. `retry` means that another program changed the table meanwhile.
    """

    error: str | None = None
    retry: bool = False
    foreign: tuple[str, ...] = ()
    committed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    features: tuple[Feature, ...] = ()


def encode_request(request: WorkerRequest) -> str:
    """Return the JSON text of a request."""
    return json.dumps(to_plain(request), separators=(",", ":"))


def encode_reply(reply: WorkerReply) -> str:
    """Return the JSON text of a reply.

    An error reply may be written after libxtables jumped out of a Python frame, when Python 3.12
    crashes in the first generator that runs: hence neither asdict nor a generator here.
    """
    return json.dumps(
        {
            "error": reply.error,
            "retry": reply.retry,
            "foreign": reply.foreign,
            "committed": reply.committed,
            "notes": reply.notes,
            "features": [asdict(feature) for feature in reply.features],
        }
    )


def decode_request(text: str) -> WorkerRequest:
    """Read what `encode_request` wrote."""
    data = json.loads(text)
    return WorkerRequest(
        operation=Operation(data["operation"]),
        tables=tuple(_table(item) for item in data["tables"]),
        adopt_chains=tuple(data["adopt_chains"]),
        reposition=data["reposition"],
        features=tuple(data["features"]),
    )


def decode_reply(text: str) -> WorkerReply:
    """Read what `encode_reply` wrote; ValueError for anything else."""
    try:
        data = json.loads(text)
        return WorkerReply(
            error=data["error"],
            retry=data["retry"],
            foreign=tuple(data["foreign"]),
            committed=tuple(data["committed"]),
            notes=tuple(data["notes"]),
            features=tuple(
                Feature(Family(item.pop("family")), **item) for item in data["features"]
            ),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a worker's reply: {error}") from error


# The values below come from `encode` in the same release, so there is no shape to check: a wrong
# one is a bug and shows as a KeyError in the worker's error report.
def _table(data: dict[str, Any]) -> XTable:
    return XTable(
        name=data["name"],
        family=Family(data["family"]),
        chains=tuple(
            XChain(item["name"], tuple(_rule(rule) for rule in item["rules"]))
            for item in data["chains"]
        ),
        jumps=tuple(XJump(item["hook"], _rule(item["rule"])) for item in data["jumps"]),
    )


def _rule(data: dict[str, Any]) -> XRule:
    target = data["target"]
    return XRule(
        comment=data["comment"],
        protocol=data["protocol"],
        source=data["source"],
        destination=data["destination"],
        in_interface=data["in_interface"],
        out_interface=data["out_interface"],
        matches=tuple(XMatch(item["name"], _params(item)) for item in data["matches"]),
        target=target and XTarget(target["name"], _params(target), target["goto"]),
    )


def _params(data: dict[str, Any]) -> tuple[XParam, ...]:
    return tuple(
        XParam(item["name"], tuple(item["values"]), item["negate"]) for item in data["params"]
    )
