"""Dataclasses as the plain data of JSON and back, by their annotations: for the state files.

What a dataclass does not name or does not allow is refused, since root may have edited the file.
The rulesets of generations have a codec of their own, `ruleset/codec.py`, that tags its unions.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable

T = TypeVar("T")

_SCALARS = frozenset({str, int, float, bool, types.NoneType})


class NotPlainDataError(ValueError):
    """The data are not those of the dataclass; `field` names the part of it that is wrong."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


def from_plain(data: object, kind: type[T], optional: Collection[str] = ()) -> T:
    """Return `data` as a value of this dataclass. Raises NotPlainDataError.

    The fields that are named in `optional` may be missing, as they are in files of a version
    before them, and have their defaults then; in a dataclass inside of it, all fields with a
    constant default may.
    """
    if not isinstance(data, dict):
        raise NotPlainDataError("", f"no {kind.__name__}")
    hints = _hints(cast("Hashable", kind))
    unknown, missing = data.keys() - hints, hints.keys() - data - set(optional)
    if unknown or missing:
        raise NotPlainDataError(
            "", f"a {kind.__name__} without {min(missing)}" if missing else "an unknown field"
        )
    return kind(**{name: _value(value, hints[name], name) for name, value in data.items()})


def to_plain(value: object) -> Any:
    """Return what `from_plain` reads: dataclasses and mappings as objects, tuples as lists."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if dataclasses.is_dataclass(kind):
        return {name: to_plain(getattr(value, name)) for name in _names(kind)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: to_plain(item) for name, item in value.items()}
    if isinstance(value, IPv4Address | IPv6Address):
        return str(value)
    raise AssertionError(f"state files hold no {kind.__name__}")


@functools.cache
def _names(kind: Hashable) -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(cast("type[Any]", kind)))


@functools.cache
def _hints(kind: Hashable) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {item.name: hints[item.name] for item in dataclasses.fields(cast("type[Any]", kind))}


def _value(data: object, kind: Any, at: str) -> Any:
    return _reader(kind)(data, at)


# Asking a type what it is costs more than reading the value, and a record has thousands.
@functools.lru_cache(maxsize=256)
def _reader(kind: Any) -> Callable[[object, str], Any]:
    origin = typing.get_origin(kind)
    kinds = typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        return lambda data, at: _first_that_fits(data, kinds, at)
    if origin is tuple and kinds[-1] is not Ellipsis:
        return lambda data, at: _fixed(data, kinds, at)
    if origin is tuple:
        return lambda data, at: _items(data, kinds[0], at)
    if origin is Mapping:
        return lambda data, at: _mapping(data, kinds[1], at)
    if dataclasses.is_dataclass(kind):
        made = cast("type[Any]", kind)
        optional = _with_default(made)
        return lambda data, _at: from_plain(data, made, optional)
    if kind in {IPv4Address, IPv6Address}:
        return lambda data, at: _address(data, kind, at)
    if issubclass(kind, Enum):
        return lambda data, at: _member(data, kind, at)
    return lambda data, at: _scalar(data, kind, at)


def _first_that_fits(data: object, kinds: tuple[Any, ...], at: str) -> Any:
    for kind in kinds:
        try:
            return _value(data, kind, at)
        except NotPlainDataError:
            continue
    raise NotPlainDataError(at, f"{at} is damaged")


def _items(data: object, kind: Any, at: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise NotPlainDataError(at, f"{at} is no list")
    return tuple([_value(item, kind, at) for item in data])


def _fixed(data: object, kinds: tuple[Any, ...], at: str) -> tuple[Any, ...]:
    if not isinstance(data, list) or len(data) != len(kinds):
        raise NotPlainDataError(at, f"{at} is no list of {len(kinds)}")
    return tuple([_value(item, kind, at) for item, kind in zip(data, kinds, strict=True)])


def _mapping(data: object, kind: Any, at: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise NotPlainDataError(at, f"{at} is no object")
    return {name: _value(value, kind, at) for name, value in data.items()}


def _address(data: object, kind: type[Any], at: str) -> Any:
    # An interface of an address ("fe80::1%eth0") is none of ours.
    if isinstance(data, str) and "%" not in data:
        with suppress(ValueError):
            return kind(data)
    raise NotPlainDataError(at, f"{at} is no address")


def _with_default(kind: type[Any]) -> set[str]:
    fields = dataclasses.fields(kind)
    return {item.name for item in fields if item.default is not dataclasses.MISSING}


def _member(data: object, kind: type[Enum], at: str) -> Enum:
    try:
        return kind(data)
    except ValueError:
        raise NotPlainDataError(at, f"{at} is no {kind.__name__}") from None


def _scalar(data: object, kind: type[Any], at: str) -> Any:
    # bool is an int to Python; 1 is no answer to a question of yes or no. JSON has 5 for 5.0.
    fits = type(data) in {int, float} if kind is float else type(data) is kind
    if not fits or (isinstance(data, float) and not math.isfinite(data)):
        raise NotPlainDataError(at, f"{at} is damaged")
    return data
