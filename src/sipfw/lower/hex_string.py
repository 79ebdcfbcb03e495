"""How iptables writes the bytes of a search text."""

from __future__ import annotations

import re

# Characters of a search text that need no hex in any of shell, iptables-restore and hex-string.
_PLAIN = re.compile(rb"[A-Za-z0-9 ./:@<>_=;+-]+")


def hex_string(pattern: bytes) -> str:
    """Write bytes in iptables' mixed form: plain letters, everything else as `|0d0a|`.

    Unlike `--string`, this form cannot be taken for an option or a negation.
    """
    parts = []
    position = 0
    while position < len(pattern):
        plain = _PLAIN.match(pattern, position)
        if plain is not None:
            parts.append(plain[0].decode("ascii"))
            position = plain.end()
            continue
        following = _PLAIN.search(pattern, position)
        end = len(pattern) if following is None else following.start()
        parts.append(f"|{pattern[position:end].hex()}|")
        position = end
    return "".join(parts)
