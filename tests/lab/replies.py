"""What a sink answers: behaviours named by plain data, so that they travel as JSON.

A behaviour is one of

- ``None``: silence;
- ``"echo-status"``: 200 to everything;
- ``{"REGISTER": 401, "INVITE": [100, 180, 200], "*": 200}``: statuses by method;
- ``{"mode": "registrar", "good": ["substring"], "users": ["1000"], "refuse": 403,
  "others": {...}}``: REGISTER without Authorization is challenged, one whose Authorization
  contains a good substring is accepted, any other is refused.  With ``users``, other names get
  404.  ``others`` is a mapping by method for everything that is not REGISTER; methods named in
  ``challenge`` need good credentials like it.

Knows SIP and no sockets.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from lab import sip

Reply: TypeAlias = str | Mapping[str, Any] | None
Behaviour: TypeAlias = Callable[[bytes, str], list[bytes]]

REALM = "lab.example"


def behaviour(spec: Reply) -> Behaviour:
    """Return the function from (request, own address) to responses that `spec` names."""
    if spec is None:
        return _silent
    if isinstance(spec, str):
        if spec != "echo-status":
            msg = f"unknown reply behaviour {spec!r}; use None, 'echo-status' or a mapping"
            raise ValueError(msg)
        return _by_method({"*": 200})
    if "mode" not in spec:
        return _by_method(spec)
    if spec["mode"] != "registrar":
        msg = f"unknown reply mode {spec['mode']!r}; the only mode is 'registrar'"
        raise ValueError(msg)
    return _registrar(spec)


def _silent(_data: bytes, _own: str) -> list[bytes]:
    return []


def _by_method(statuses: Mapping[str, Any]) -> Behaviour:
    def answer(data: bytes, own: str) -> list[bytes]:
        message = sip.parse(data)
        # RFC 3261 17: an ACK never gets a response, whatever the mapping says.
        if message is None or not message.is_request or message.method == "ACK":
            return []
        wanted = statuses.get(message.method, statuses.get("*"))
        if wanted is None:
            return []
        tag = secrets.token_hex(4)
        each = wanted if isinstance(wanted, list | tuple) else (wanted,)
        return [_response(int(status), message, data, own, tag) for status in each]

    return answer


def _registrar(spec: Mapping[str, Any]) -> Behaviour:
    good = tuple(spec.get("good", ()))
    users = spec.get("users")
    refuse = int(spec.get("refuse", 403))
    others = _by_method(spec.get("others", {"*": 200}))
    challenged = {"REGISTER", *spec.get("challenge", ())}

    def answer(data: bytes, own: str) -> list[bytes]:
        message = sip.parse(data)
        if message is None or message.method not in challenged:
            return others(data, own)
        credentials = message.header("authorization")
        if (
            users is not None
            and message.method == "REGISTER"
            and _address_user(message) not in users
        ):
            status = 404
        elif credentials is None:
            status = 401
        else:
            status = 200 if any(token in credentials for token in good) else refuse
        return [_response(status, message, data, own, secrets.token_hex(4))]

    return answer


def _address_user(message: sip.Message) -> str:
    to = message.header("to") or ""
    return to.partition("sip:")[2].partition("@")[0]


def _response(status: int, message: sip.Message, data: bytes, own: str, tag: str) -> bytes:
    headers: list[tuple[str, str]] = []
    body = b""
    challenge = f'Digest realm="{REALM}", nonce="{secrets.token_hex(8)}", algorithm=MD5'
    if status == 401:
        headers.append(("WWW-Authenticate", challenge))
    elif status == 407:
        headers.append(("Proxy-Authenticate", challenge))
    elif 200 <= status < 300:
        own_contact = f"<sip:{sip.host_text(own)}>"
        contact = message.header("contact") if message.method == "REGISTER" else own_contact
        headers.append(("Contact", contact or own_contact))
        if message.method == "INVITE":
            body = sip.sdp(own)
    return sip.response(status, data, to_tag=tag, extra_headers=headers, body=body)
