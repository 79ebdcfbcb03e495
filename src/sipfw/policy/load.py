"""From files and options to one checked Policy.

Merge order: built-in < switch < profile < file < command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sipfw.diagnostics import Diagnostic, Location, Severity
from sipfw.errors import PolicyError
from sipfw.policy import messages
from sipfw.policy.fields import field_name, is_list_at
from sipfw.policy.file_safety import why_unsafe
from sipfw.policy.merge import BUILT_IN, Layer, Origins, merge
from sipfw.policy.model import Policy
from sipfw.policy.quantities import shown
from sipfw.policy.rules import Finding, apply_blockers, findings, setless_blockers
from sipfw.policy.salvage import salvage
from sipfw.policy.shorthand import written_out
from sipfw.policy.yaml_tree import MAX_BYTES, Path, Tree, read_tree
from sipfw.resources import shipped_folder
from sipfw.words import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path as FilePath

COMMAND_LINE = "command line"
_CHOSEN = ("profile", "switch")


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for; every part is optional."""

    file: FilePath | None = None
    profile: str | None = None
    switch: str | None = None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A valid policy, where its values came from, and what is worth saying about it.

    `sources` names the layers that were merged, lowest first. `doubts` say who else than root may
    change the file.
    """

    policy: Policy
    origins: Origins
    remarks: tuple[Diagnostic, ...]
    sources: tuple[str, ...]
    doubts: tuple[Diagnostic, ...] = ()

    def locate(self, finding: Finding) -> Diagnostic:
        """Give a finding its field name and line."""
        return _located(finding, self.policy.model_dump(mode="json", by_alias=True), self.origins)

    def blockers(self) -> list[Diagnostic]:
        """Return what forbids to apply this policy although it is valid."""
        return [self.locate(item) for item in apply_blockers(self.policy)]

    def require_setless(self) -> None:
        """Raise PolicyError for what a host without ipset cannot do."""
        found = [self.locate(item) for item in setless_blockers(self.policy)]
        if found:
            raise PolicyError(found)


def load(request: Request) -> LoadedPolicy:
    """Read, merge and check. Raises PolicyError with all faults found."""
    layers, faults, doubts = _layers(request)
    data, origins = merge(layers)
    try:
        policy = Policy.model_validate(data)
    except ValidationError as error:
        unread = {path for layer in layers for path in layer.tree.unread}
        # A profile that could not be chosen needs no second complaint.
        unread |= {(fault.field,) for fault in faults if fault.field in _CHOSEN}
        faults += _all_faults(error, data, origins, unread)
        raise PolicyError(sorted(faults, key=_place)) from error
    found = [_located(item, data, origins) for item in findings(policy)]
    if errors := faults + [item for item in found if item.severity is Severity.ERROR]:
        raise PolicyError(sorted(errors, key=_place))
    names = tuple(layer.name for layer in layers)
    return LoadedPolicy(policy, origins, tuple(found), names, doubts)


def _all_faults(
    error: ValidationError, data: dict[str, Any], origins: Origins, unread: Collection[Path]
) -> list[Diagnostic]:
    """Add what the checks across fields find in the rest to what is wrong by itself."""
    found = messages.diagnostics(error, data, origins, unread)
    rest = salvage(data, origins, error)
    if rest is not None:
        plain = rest.model_dump(mode="json", by_alias=True)
        found += [
            _located(item, plain, origins)
            for item in findings(rest)
            if item.severity is Severity.ERROR
        ]
    return found


def _place(diagnostic: Diagnostic) -> tuple[str, int]:
    location = diagnostic.location or Location("")
    return location.file, location.line or 0


def shipped_profiles() -> list[str]:
    """Name the shipped profiles."""
    return sorted(path.stem for path in shipped_folder("profiles").glob("*.yaml"))


def shipped_switches() -> list[str]:
    """Name the softswitches whose ports are known."""
    return sorted(path.stem for path in (shipped_folder("profiles") / "switches").glob("*.yaml"))


def read_shipped(name: str) -> str:
    """Return the text of a shipped profile or switch. Raises PolicyError for an unknown name."""
    switches = shipped_switches()
    meant = nearest(name, [*shipped_profiles(), *switches])
    kind = "switch" if meant in switches else "profile"
    return _shipped(kind, name, Location(COMMAND_LINE)).read_text(encoding="utf-8")


def headline(name: str) -> str:
    """Return the sentence on a shipped file's first lines, without its name."""
    lines = []
    for line in read_shipped(name).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines).partition(": ")[2].partition(". ")[0].rstrip(".")


def _layers(request: Request) -> tuple[list[Layer], list[Diagnostic], tuple[Diagnostic, ...]]:
    """Return the layers, lowest first; faults that do not keep the rest from being checked; doubts.

    Each file is read once, so that what is judged is what is obeyed.
    """
    options = _option_layer(request)
    file, doubts = (None, ()) if request.file is None else _file_layer(request.file)
    top = [] if file is None else [file]
    top += [] if options is None else [options]
    faults = [fault for layer in top for fault in layer.tree.faults]
    profile = _chosen_layer("profile", top, "default", faults)
    below = [] if profile is None else [profile]
    switch = _chosen_layer("switch", [*below, *top], None, faults)
    return [*([] if switch is None else [switch]), *below, *top], faults, doubts


def _chosen_layer(
    kind: str, layers: Sequence[Layer], default: str | None, faults: list[Diagnostic]
) -> Layer | None:
    try:
        name, asked_at = _choice(kind, layers, default=default)
        return None if name is None else _shipped_layer(kind, name, asked_at)
    except PolicyError as error:
        faults += error.diagnostics
        return None


def _choice(
    field: str, layers: Sequence[Layer], default: str | None
) -> tuple[str | None, Location]:
    """Find which layer names the profile or the switch; the last one wins."""
    value, location = default, Location(COMMAND_LINE)
    for layer in layers:
        if layer.tree.data.get(field) is not None:
            value, location = layer.tree.data[field], layer.location((field,))
    if value is not None and not isinstance(value, str):
        message = f"'{value}' is not the name of a {field}; see `sipfw profiles`"
        raise PolicyError([Diagnostic(message, field, location)])
    return value, location


def _shipped_layer(kind: str, name: str, asked_at: Location) -> Layer:
    path = _shipped(kind, name, asked_at)
    return Layer(f"{kind} {name}", read_tree(path.read_bytes(), f"{kind} {name}"))


def _shipped(kind: str, name: str, asked_at: Location) -> FilePath:
    folder = shipped_folder("profiles") / ("switches" if kind == "switch" else "")
    known = shipped_switches() if kind == "switch" else shipped_profiles()
    # Only a listed name becomes a path, so `../../etc/shadow` never does.
    if name in known:
        return folder / f"{name}.yaml"
    other = "profile" if kind == "switch" else "switch"
    if name in (shipped_profiles() if kind == "switch" else shipped_switches()):
        line = f"--{other} {name}" if asked_at.file == COMMAND_LINE else f"{other}: {name}"
        advice = f"it is a {other}, write {line}"
    elif near := nearest(name, known):
        advice = f"did you mean {near}?"
    else:
        advice = f"known: {', '.join(known)}"
    raise PolicyError(
        [Diagnostic(f"{shown(name)} is not a known {kind}; {advice}", kind, asked_at)]
    )


def _file_layer(path: FilePath) -> tuple[Layer, tuple[Diagnostic, ...]]:
    try:
        with path.open("rb") as file:
            doubt = why_unsafe(path, file.fileno())
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"cannot be read: {reason}"
        raise PolicyError([Diagnostic(message, location=Location(str(path)))]) from error
    place = Location(str(path))
    found = () if doubt is None else (Diagnostic(doubt, "", place, Severity.WARNING),)
    return Layer(str(path), written_out(read_tree(raw, str(path)), str(path))), found


def _option_layer(request: Request) -> Layer | None:
    data: dict[str, object] = {}
    lines: dict[Path, int] = {}
    for name in _CHOSEN:
        value = getattr(request, name)
        if value is not None:
            data[name] = value
    for setting in request.settings:
        _apply_setting(data, setting)
    return Layer(COMMAND_LINE, written_out(Tree(data, lines), COMMAND_LINE)) if data else None


def _apply_setting(data: dict[str, object], setting: str) -> None:
    """Put `limits.hashlimit.rate=5/second` into the option layer."""
    key, equals, text = setting.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        message = f"'{setting}' is not a setting; write --set limits.hashlimit.rate=5/second"
        raise PolicyError([Diagnostic(message, "--set", Location(COMMAND_LINE))])
    # The command line may hold bytes that are no text: they come back as what they were.
    raw = f"value: {text}".encode("utf-8", "surrogateescape")
    tree = read_tree(raw, COMMAND_LINE)
    if tree.faults:
        raise PolicyError(tree.faults)
    value = tree.data["value"]
    _refuse_part_of_list(setting, steps)
    place = data
    for step in steps[:-1]:
        inner = place.setdefault(step, {})
        if not isinstance(inner, dict):
            message = f"'{setting}' contradicts an earlier --set; give each field once"
            raise PolicyError([Diagnostic(message, "--set", Location(COMMAND_LINE))])
        place = inner
    place[steps[-1]] = value


def _refuse_part_of_list(setting: str, steps: list[str]) -> None:
    """An entry of its own would replace all the others: a list is given whole, or not at all."""
    for length in range(1, len(steps)):
        if is_list_at(tuple(steps[:length])):
            name = ".".join(steps[:length])
            message = (
                f"{shown(setting)} would replace all of {name}, and is not a list; "
                f"give it whole: --set '{name}=[...]'"
            )
            raise PolicyError([Diagnostic(message, "--set", Location(COMMAND_LINE))])


def _located(finding: Finding, data: object, origins: Origins) -> Diagnostic:
    tree = data if isinstance(data, dict) else {}
    location = origins.nearest(finding.path)
    if location == BUILT_IN and finding.related:
        location = origins.nearest(finding.related)
    return Diagnostic(
        finding.message,
        field_name(finding.path, tree),
        None if location == BUILT_IN else location,
        finding.severity,
    )
