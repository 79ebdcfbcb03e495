"""Edits the peers in the text of a policy file, and leaves every other byte of it as it is.

The places come from the marks of the YAML parser, so that comments, order and quoting of the
operator stay. What comes out is read again: an edit that would mean anything but what was asked
for is refused. A library that rewrites whole files would be a dependency, and it moves comments.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from sipfw.diagnostics import Diagnostic, Location
from sipfw.errors import PolicyError
from sipfw.policy.shorthand import name_of_address, written_out
from sipfw.policy.yaml_tree import core_scalar, read_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

_PEERS = "trusted_peers"
_NULL = "tag:yaml.org,2002:null"
_NOT_EDITED = "the peers are written in a way that is not edited here; edit them by hand"


@dataclass(frozen=True, slots=True)
class _Cut:
    """Characters `start` to `end` of the text are replaced."""

    start: int
    end: int
    text: str


def add_to_peer(text: str, name: str, addresses: Sequence[str], file: str) -> str:
    """Return the text with these addresses in the peer, which is made where there is none.

    Raises PolicyError for a text that cannot be read or edited, and for addresses that it has.
    """
    data = _data(text, file)
    peer = _peer(data, name)
    if peer is not None and (known := [a for a in addresses if a in peer["signalling"]]):
        raise _error(f"{', '.join(known)}: is in {name} already", file)
    wanted = deepcopy(data)
    if peer is None:
        made = {"name": name, "signalling": list(addresses)}
        wanted[_PEERS] = [*(wanted.get(_PEERS) or []), made]
        cut = _new_peer(text, name, addresses)
    else:
        _peer(wanted, name)["signalling"] += addresses  # type: ignore[index]  # it is there
        cut = _more_items(text, _entry(text, name, file), addresses)
    return _checked(text, cut, wanted, file)


def remove_from_peer(text: str, name: str, addresses: Sequence[str], file: str) -> str:
    """Return the text without these addresses of the peer; without any, without the peer.

    Raises PolicyError for a peer or an address that is not there, and for all of its addresses.
    """
    data = _data(text, file)
    peer = _peer(data, name)
    if peer is None:
        raise _error(f"there is no peer {name}; see sipfw peer list", file)
    known = peer["signalling"]
    if strangers := [address for address in addresses if address not in known]:
        raise _error(f"{', '.join(strangers)}: is not in {name} as it is written there", file)
    if addresses and set(addresses) >= set(known):
        raise _error(f"that is all of {name}; take out the peer: sipfw peer remove {name}", file)
    wanted = deepcopy(data)
    if not addresses:
        wanted[_PEERS] = [item for item in wanted[_PEERS] if item["name"] != name]
        return _checked(text, _without_peer(text, _entry(text, name, file)), wanted, file)
    for address in addresses:
        _peer(wanted, name)["signalling"].remove(address)  # type: ignore[index]  # it is there
        node = _entry(text, name, file).addresses
        spans = [(_start(item), _last(item)) for item in node.value]
        number = [item.value for item in node.value].index(address)
        text = _applied(text, _without_item(text, spans, number, flow=node.flow_style))
    return _checked(text, None, wanted, file)


def _data(text: str, file: str) -> dict[str, Any]:
    """Return what the text means, every short form written out."""
    tree = written_out(read_tree(text.encode(), file), file)
    if tree.faults:
        raise PolicyError(tree.faults)
    peers = tree.data.get(_PEERS)
    if not (peers is None or (isinstance(peers, list) and all(map(_is_peer, peers)))):
        raise _error(_NOT_EDITED, file)
    return tree.data


def _is_peer(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and isinstance(item.get("name"), str)
        and isinstance(item.get("signalling"), list)
        and all(isinstance(address, str) for address in item["signalling"])
    )


def _peer(data: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((peer for peer in data.get(_PEERS) or [] if peer["name"] == name), None)


def _checked(text: str, cut: _Cut | None, wanted: dict[str, Any], file: str) -> str:
    """Return the edited text if it means what is wanted, and that only."""
    after = text if cut is None else _applied(text, cut)
    try:
        found = _data(after, file)
    except PolicyError:
        found = None
    if found != wanted:
        raise _error(_NOT_EDITED, file)
    return after


def _applied(text: str, cut: _Cut) -> str:
    # Files of Windows stay such.
    new = cut.text.replace("\n", "\r\n") if "\r\n" in text else cut.text
    return text[: cut.start] + new + text[cut.end :]


def _compose(text: str) -> Any:
    # Only nodes, no values: no tag of the file means anything here.
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _field(node: Any, name: str) -> Any:
    return next((value for key, value in node.value if key.value == name), None)


def _root(text: str, name: str) -> Any:
    return _field(_compose(text), name)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a peer stands: the places of all entries beside it, its own number among them.

    `addresses` is the node of its addresses, one or a list; None where the peer is nothing else.
    """

    spans: tuple[tuple[int, int], ...]
    number: int
    flow: bool
    addresses: Any


def _entry(text: str, name: str, file: str) -> _Entry:
    """Find a peer, in whichever of the ways it is written."""
    peers = _root(text, _PEERS)
    named = peers.value if isinstance(peers, yaml.MappingNode) else ()
    if named and not {key.value for key, _ in named} & {"name", "signalling"}:
        found = [(_start(key), _last(value), key.value, value) for key, value in named]
    elif isinstance(peers, yaml.SequenceNode):
        found = [(_start(item), _last(item), *_named(item)) for item in peers.value]
    else:
        raise _error(_NOT_EDITED, file)
    number = next((n for n, entry in enumerate(found) if entry[2] == name), None)
    if number is None:
        raise _error(_NOT_EDITED, file)
    node = found[number][3]
    addresses = _field(node, "signalling") if isinstance(node, yaml.MappingNode) else node
    spans = tuple((start, end) for start, end, *_ in found)
    return _Entry(spans, number, bool(peers.flow_style), addresses)


def _named(item: Any) -> tuple[str, Any]:
    """Return the name of an entry of a list, and the node of its fields or addresses."""
    if not isinstance(item, yaml.MappingNode):
        return name_of_address(item.value), item
    name = _field(item, "name")
    if name is not None or len(item.value) != 1:
        return "" if name is None else name.value, item
    key, value = item.value[0]
    return key.value, value


def _new_peer(text: str, name: str, addresses: Sequence[str]) -> _Cut:
    peers = _root(text, _PEERS)
    listed = f"[{', '.join(map(_scalar, addresses))}]"
    if peers is None:
        end = len(text.rstrip())
        return _Cut(end, len(text), f"\n\n{_PEERS}:\n{_block(2, name, addresses)}\n")
    mapping = isinstance(peers, yaml.MappingNode)
    entry = f"{{name: {_scalar(name)}, signalling: {listed}}}"
    if isinstance(peers, yaml.ScalarNode) and peers.tag != _NULL:
        start, end = _start(peers), _end(peers)
        return _Cut(start, end, f"[{text[start:end]}, {entry}]")
    if isinstance(peers, yaml.ScalarNode):
        return _Cut(_start(peers), _end(peers), f"\n{_block(2, name, addresses)}")
    if peers.flow_style and not peers.value and not _compose(text).flow_style:
        start = len(text[: _start(peers)].rstrip(" "))
        return _Cut(start, _end(peers), f"\n{_block(2, name, addresses)}")
    if peers.flow_style:
        flow = f"{_scalar(name)}: {listed}" if mapping else entry
        place = _last(peers.value[-1][1] if mapping else peers.value[-1]) if peers.value else 0
        place = place or _start(peers) + 1
        return _Cut(place, place, f", {flow}" if peers.value else flow)
    place = _end_of_line(text, _last(peers))
    margin = peers.start_mark.column
    line = f"{' ' * margin}{_scalar(name)}: {listed}"
    return _Cut(place, place, f"\n{line if mapping else _block(margin, name, addresses)}")


def _block(indent: int, name: str, addresses: Sequence[str]) -> str:
    margin = " " * indent
    listed = ", ".join(map(_scalar, addresses))
    return f"{margin}- name: {_scalar(name)}\n{margin}  signalling: [{listed}]"


def _more_items(text: str, entry: _Entry, addresses: Sequence[str]) -> _Cut:
    node, texts = entry.addresses, list(map(_scalar, addresses))
    if isinstance(node, yaml.ScalarNode):
        start, end = _start(node), _end(node)
        listed = f"[{', '.join([text[start:end], *texts])}]"
        if start == entry.spans[entry.number][0]:  # an address in the place of a peer
            listed = f"{{name: {name_of_address(node.value)}, signalling: {listed}}}"
        return _Cut(start, end, listed)
    if node.flow_style:
        place = _end(node.value[-1])
        return _Cut(place, place, "".join(f", {item}" for item in texts))
    place = _end_of_line(text, _last(node))
    margin = " " * node.start_mark.column
    return _Cut(place, place, "".join(f"\n{margin}- {item}" for item in texts))


def _without_peer(text: str, entry: _Entry) -> _Cut:
    return _without_item(text, entry.spans, entry.number, flow=entry.flow)


def _without_item(text: str, spans: Sequence[tuple[int, int]], number: int, *, flow: bool) -> _Cut:
    """Cut an item with its mark and its comma, or with its lines."""
    start, end = spans[number]
    if flow and number:
        return _Cut(spans[number - 1][1], end, "")
    if flow:
        return _Cut(start, spans[1][0] if len(spans) > 1 else end, "")
    start, end = text.rfind("\n", 0, start) + 1, _line_after(text, end)
    if len(spans) > 1:
        return _Cut(start, end, "")
    # An empty block list would be a null: it gets brackets behind its name. A comment that stands
    # between them stays.
    colon = _colon_of_peers(text)
    return _Cut(colon + 1, end, f" []{text[colon + 1 : start]}")


def _colon_of_peers(text: str) -> int:
    """Return where the colon behind the name of the peers stands."""
    key = next(key for key, _ in _compose(text).value if key.value == _PEERS)
    return text.index(":", _end(key))


def _scalar(text: str) -> str:
    """Write a text; one with a colon would be a field within brackets, and `null` no text."""
    return json.dumps(text) if ":" in text or core_scalar(text) != text else text


def _start(node: Any) -> int:
    return int(node.start_mark.index)


def _end(node: Any) -> int:
    return int(node.end_mark.index)


def _last(node: Any) -> int:
    """Return where the last value ends: a block's own mark is behind the comments below it."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style or not node.value:
        return _end(node)
    last = node.value[-1]
    return _last(last[1] if isinstance(last, tuple) else last)


def _end_of_line(text: str, place: int) -> int:
    found = text.find("\n", place)
    if found < 0:
        return len(text)
    return found - 1 if text[found - 1] == "\r" else found


def _line_after(text: str, place: int) -> int:
    found = text.find("\n", place)
    return len(text) if found < 0 else found + 1


def _error(message: str, file: str) -> PolicyError:
    return PolicyError([Diagnostic(message, _PEERS, Location(file))])
