"""Secrets in what people write: passwords, tokens, keys, and what a URL may hold."""

from __future__ import annotations

import re

REPLACED = "(a secret was here)"
_FIELD = re.compile(
    r"(?im)(\b[\w-]*(?:password|passwd|secret|token|api[_-]?key|auth|credential|community)[\w-]*"
    r"[\"']?\s*[:=]\s*)(?!\s)([^\n,}#]+)"
)
_USER = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s@]+@")
_QUERY = re.compile(r"(?i)(https?://[^\s?\"']+\?)[^\s\"']+")
_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL)


def without_secrets(text: str) -> str:
    """Return the text with whatever looks like a secret replaced.

    A value is taken for one by the name of its field, so what is hidden elsewhere stays: the
    operator has to look, and is told so.
    """
    text = _BLOCK.sub(REPLACED, text)
    text = _USER.sub(rf"\1{REPLACED}@", text)
    text = _QUERY.sub(rf"\1{REPLACED}", text)
    return _FIELD.sub(rf"\1{REPLACED}", text)
