"""Digest authentication (RFC 2617) without qop, as every switch still takes it."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELD = re.compile(r'(\w+)="?([^",]*)"?')


def fields(header: str) -> dict[str, str]:
    """Return the fields of a challenge or of credentials."""
    return dict(_FIELD.findall(header))


def response(given: Mapping[str, str], password: str, method: str) -> str:
    """Return what the fields of credentials prove, if the password is this one."""
    secret = _md5(f"{given.get('username')}:{given.get('realm')}:{password}")
    asked = _md5(f"{method}:{given.get('uri')}")
    return _md5(f"{secret}:{given.get('nonce')}:{asked}")


def authorization(
    challenge: str, method: str, uri: str, *, user: str, password: str
) -> tuple[str, str]:
    """Return the header that answers a challenge."""
    asked = fields(challenge)
    given = {
        "username": user,
        "realm": asked.get("realm", ""),
        "nonce": asked.get("nonce", ""),
        "uri": uri,
        "algorithm": "MD5",
    }
    given["response"] = response(given, password, method)
    return "Authorization", "Digest " + ", ".join(
        f'{key}="{value}"' for key, value in given.items()
    )


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
