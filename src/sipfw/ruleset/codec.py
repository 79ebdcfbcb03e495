"""A ruleset as JSON and back, without loss: what a generation on disk is.

Works from the type annotations of the dataclasses, so that a new match, action or field needs
nothing here. Every object carries its type's name; what the annotations do not allow is refused,
also in a file that somebody has edited.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import pkgutil
import re
import types
import typing
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any, cast

import sipfw.ruleset
from sipfw.ruleset.lint import lint
from sipfw.ruleset.model import Ruleset
from sipfw.ruleset.rule import Log

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

FORMAT = 1

# A word of Python, so that no field can have this name.
_TAG = "is"
_AS_IT_IS = frozenset({str, int, bool, types.NoneType})
_ADDRESSES = (IPv4Address, IPv4Network, IPv6Address, IPv6Network)
# Where an error is: deeper than a ruleset ever is, and short enough for one line.
_MOST_SHOWN = 80
_LAST_GROUP = 65535
# These become words of a kernel interface or a file name below /proc/sys.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
_LOG_PREFIX = re.compile(r"sipfw [A-Za-z0-9_.~-]{1,22} ")
_SYSCTL = re.compile(r"net\.netfilter\.nf_conntrack_[a-z0-9_]{1,64}")


class DecodeError(ValueError):
    """The text is not a ruleset that this version can read; the message says where and why."""


def encode(ruleset: Ruleset) -> str:
    """Return the ruleset as JSON text, the same text for the same ruleset."""
    data = {"format": FORMAT, "ruleset": _plain(ruleset)}
    return json.dumps(data) + "\n"


def decode(text: str) -> Ruleset:
    """Read what `encode` wrote. Raises DecodeError for anything else."""
    try:
        ruleset = _ruleset(json.loads(text, parse_constant=_no_number))
    except RecursionError as error:
        raise DecodeError("nested too deeply") from error
    except DecodeError:
        raise
    except ValueError as error:
        raise DecodeError(f"not JSON: {error}") from error
    _require_sound(ruleset)
    return ruleset


def _ruleset(data: object) -> Ruleset:
    if not isinstance(data, dict) or set(data) != {"format", "ruleset"}:
        raise DecodeError("not a ruleset")
    if data["format"] != FORMAT or isinstance(data["format"], bool):
        raise DecodeError(f"format {_shown(data['format'])}, this version reads {FORMAT}")
    return cast("Ruleset", _value(data["ruleset"], Ruleset, "ruleset"))


def _plain(value: object) -> Any:
    kind = type(value)
    if kind in _AS_IT_IS:
        return value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(kind):
        fields = {item.name: _plain(getattr(value, item.name)) for item in _fields(kind)}
        return {_TAG: kind.__name__, **fields}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, _ADDRESSES):
        return str(value)
    raise AssertionError(f"a ruleset holds no {kind.__name__}")


def _value(data: object, kind: Any, at: str) -> Any:
    """Return `data` as a value of the annotated type `kind`."""
    return _reader(kind)(data, at)


# Asking a type what it is costs more than reading the value, and a ruleset has 36,000 of them.
@functools.lru_cache(maxsize=256)
def _reader(kind: Any) -> Callable[[object, str], Any]:
    origin = typing.get_origin(kind)
    if origin in {typing.Union, types.UnionType}:
        kinds = typing.get_args(kind)
        return lambda data, at: _member(data, kinds, at)
    if origin is tuple:
        kinds = typing.get_args(kind)
        return lambda data, at: _items(data, kinds, at)
    if dataclasses.is_dataclass(kind):
        return lambda data, at: _object(data, cast("type[Any]", kind), at)
    if kind is str:
        return _text
    if kind in {int, bool, bytes, types.NoneType} or kind in _ADDRESSES:
        return lambda data, at: _scalar(data, kind, at)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return lambda data, at: _choice(data, kind, at)
    raise AssertionError(f"no rule for {kind}")


def _text(data: object, at: str) -> str:
    # The plain case of `_scalar`, which most values are.
    return data if type(data) is str and data.isprintable() else str(_scalar(data, str, at))


def _choice(data: object, kind: type[Enum], at: str) -> Enum:
    try:
        return kind(_scalar(data, str, at))
    except ValueError:
        raise DecodeError(f"{at}: {_shown(data)} is no {kind.__name__}") from None


def _member(data: object, kinds: tuple[Any, ...], at: str) -> Any:
    """Choose among a union's types: objects by their tag, others by the first that fits."""
    if isinstance(data, dict):
        tag = data.get(_TAG)
        for kind in kinds:
            if getattr(kind, "__name__", None) == tag and dataclasses.is_dataclass(kind):
                return _value(data, kind, at)
        raise DecodeError(f"{at}: no type {_shown(tag)} here")
    for kind in kinds:
        if not dataclasses.is_dataclass(kind):
            try:
                return _value(data, kind, at)
            except DecodeError:
                continue
    raise DecodeError(f"{at}: {_shown(data)} does not belong here")


def _items(data: object, kinds: tuple[Any, ...], at: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise DecodeError(f"{at}: {_shown(data)} is no list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        read = _reader(kinds[0])
        return tuple([read(item, f"{at}[{index}]") for index, item in enumerate(data)])
    if len(kinds) != len(data):
        raise DecodeError(f"{at}: {len(data)} items, not {len(kinds)}")
    pairs = zip(data, kinds, strict=True)
    return tuple(_value(item, kind, f"{at}[{index}]") for index, (item, kind) in enumerate(pairs))


def _object(data: object, kind: type[Any], at: str) -> Any:
    if not isinstance(data, dict) or data.get(_TAG) != kind.__name__:
        raise DecodeError(f"{at}: {_shown(data)} is no {kind.__name__}")
    hints = _hints(cast("Hashable", kind))
    values = {
        name: _reader(hint)(data[name], f"{at}.{name}")
        for name, hint in hints.items()
        if name in data
    }
    if len(values) + 1 != len(data):
        unknown = set(data) - set(hints) - {_TAG}
        raise DecodeError(f"{at}: a {kind.__name__} has no {_shown(min(unknown))}")
    # A field that an older version did not know has its default, which means what it did then.
    if len(values) != len(hints):
        fields = _fields(cast("Hashable", kind))
        missing = [item.name for item in fields if item.name not in data and _required(item)]
        if missing:
            raise DecodeError(f"{at}: a {kind.__name__} needs {missing[0]}")
    return kind(**values)


def _scalar(data: object, kind: type[Any], at: str) -> Any:
    # bool is an int to Python; 1 is no answer to a question of yes or no.
    wanted = kind if kind in {str, int, bool, types.NoneType} else str
    if type(data) is not wanted:
        raise DecodeError(f"{at}: {_shown(data)} is no {kind.__name__}")
    if kind in {int, bool, types.NoneType}:
        return data
    text = str(data)
    if not text.isprintable():
        raise DecodeError(f"{at}: {_shown(text)} holds what cannot be printed")
    try:
        return bytes.fromhex(text) if kind is bytes else kind(text)
    except ValueError:
        raise DecodeError(f"{at}: {_shown(text)} is no {kind.__name__}") from None


def _require_sound(ruleset: Ruleset) -> None:
    """Refuse what no compiler wrote: names that mean more than a name, references to nothing."""
    names = [
        *(chain.name for chain in ruleset.chains),
        *(item.name for item in ruleset.sets),
        *(rule.id for chain in ruleset.chains for rule in chain.rules),
    ]
    for name in names:
        if not _NAME.fullmatch(name):
            raise DecodeError(f"{_shown(name)} is no name of a chain, set or rule")
    for action in (rule.action for chain in ruleset.chains for rule in chain.rules):
        if isinstance(action, Log):
            _require_sound_log(action)
    for item in ruleset.sysctls:
        if not _SYSCTL.fullmatch(item.name):
            raise DecodeError(f"{_shown(item.name)} is no setting of connection tracking")
    faults = lint(ruleset)
    if faults:
        raise DecodeError(_shown(faults[0]))


def _require_sound_log(action: Log) -> None:
    if not _LOG_PREFIX.fullmatch(action.prefix):
        raise DecodeError(f"{_shown(action.prefix)} is no prefix of a log line")
    if action.group is not None and not 1 <= action.group <= _LAST_GROUP:
        raise DecodeError(f"{action.group} is no NFLOG group")


@functools.cache
def _fields(kind: Hashable) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cast("type[Any]", kind))


def _required(item: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return item.default is missing and item.default_factory is missing


@functools.cache
def _hints(kind: Hashable) -> dict[str, Any]:
    """Return the annotations as types; some are imported for the type checker only."""
    return typing.get_type_hints(kind, globalns=_namespace())


@functools.cache
def _namespace() -> dict[str, Any]:
    found: dict[str, Any] = {item.__name__: item for item in _ADDRESSES}
    for module in pkgutil.iter_modules(sipfw.ruleset.__path__):
        if module.name != "codec":
            found |= vars(importlib.import_module(f"sipfw.ruleset.{module.name}"))
    return found


def _no_number(text: str) -> float:
    raise DecodeError(f"not JSON: {text}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
