"""Whatever bytes a signature holds, one rule stays one line and means exactly those bytes.

The decoders here follow iptables' own: `add_param_to_argv` of iptables-restore for words, and
`parse_hex_string` of libxt_string for the mixed form.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lowered import lines

from sipfw.lower.hex_string import hex_string
from sipfw.lower.xtables_words import quoted
from sipfw.ruleset.match import L4Proto, PayloadAt, PayloadContains

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Sipfw

HOSTILE = [
    '"', "'", "\\", "|", "!", "--", "$", "`", "|41|", "||", "|zz|", '\\"', "\\\\", "\\|", "!x",
    "! x", "--hex-string x", "-j ACCEPT", "$(reboot)", "`reboot`", "${IFS}x", "; reboot #x",
    "a && b", "a > /etc/x", "*filter", ":INPUT ACCEPT", "COMMIT", "# comment", "%s%n%x",
    "{{ 7*7 }}", "{% raw %}", "'; DROP x", "a\\nb", "!!", "~/*?[a]",
    "it's |42| \"quoted\" \\ `x` $y !",
    " leading", "trailing ", "  ", "=", "a=b", "|", "|6", "EOF", "sipfw:x#00000000",
]  # fmt: skip


# The policy takes no text that honest messages hold.
_COMMON = {'"', "'", "!", "--", "  ", "="}
SIGNATURES = [f"{text}q7x{text}" if text in _COMMON else text for text in HOSTILE]


def words_of(line: str) -> list[str]:
    """Split a line as iptables-restore does: blanks, double quotes, backslash inside quotes."""
    words: list[str] = []
    word, quoting, escaped, started = "", False, False, False
    for character in line:
        if quoting:
            if escaped:
                word, escaped = word + character, False
            elif character == "\\":
                escaped = True
            elif character == '"':
                quoting = False
            else:
                word += character
        elif character == '"':
            quoting = started = True
        elif character in " \t\n":
            if started:
                words.append(word)
            word, started = "", False
        else:
            word, started = word + character, True
    assert not quoting, f"a quote is left open: {line}"
    return [*words, word] if started else words


def bytes_of(text: str) -> bytes:
    """Read the mixed form: `|0d 0a|` is hex, a backslash takes the next character literally."""
    found, position, in_hex = bytearray(), 0, False
    while position < len(text):
        character = text[position]
        if character == "|":
            in_hex = not in_hex
            position += 1
        elif in_hex and character in " \t":
            position += 1
        elif in_hex:
            digits = text[position : position + 2]
            assert len(digits) == 2, f"half a byte in {text}"
            found.append(int(digits, 16))
            position += 2
        elif character == "\\":
            found += text[position + 1].encode("ascii")
            position += 2
        else:
            found += character.encode("ascii")
            position += 1
    assert not in_hex, f"a bar is left open: {text}"
    return bytes(found)


def _pattern(line: str) -> bytes:
    words = words_of(line)
    return bytes_of(words[words.index("--hex-string") + 1])


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_searched_as_it_is(text: str) -> None:
    [line] = lines(PayloadContains(text.encode()))
    assert line.isprintable()
    assert _pattern(line) == text.encode()
    assert words_of(line)[-2:] == ["-j", "DROP"]
    assert words_of(line).count("-j") == 1


@given(st.binary(min_size=1, max_size=127))
def test_any_bytes_are_searched_as_they_are(pattern: bytes) -> None:
    [line] = lines(PayloadContains(pattern))
    assert line.isascii()
    assert line.isprintable()
    assert _pattern(line) == pattern


@given(st.binary(min_size=4, max_size=40))
def test_any_bytes_are_compared_word_by_word(pattern: bytes) -> None:
    [line] = lines(PayloadAt(L4Proto.UDP, pattern))
    words = words_of(line)
    found = bytearray(len(pattern))
    tests = words[words.index("--u32") + 1].split("&&")
    for test in tests:
        offset, value = test.split("=")
        found[int(offset) - 28 : int(offset) - 24] = int(value, 16).to_bytes(4, "big")
    assert bytes(found) == pattern
    assert len(tests) <= 10


@pytest.mark.parametrize("size", [1, 3, 41, 127])
def test_lengths_that_words_cannot_say_are_searched_in_a_window(size: int) -> None:
    [line] = lines(PayloadAt(L4Proto.UDP, b"x" * size))
    assert f"--from 28 --to {28 + size}" in line


@given(st.binary(max_size=40))
def test_the_mixed_form_needs_no_shell_quoting_but_double_quotes(pattern: bytes) -> None:
    """Within double quotes a shell looks at `$`, a backtick, a backslash, `!` and the quote."""
    assert not set(hex_string(pattern)) & set("$`\\!\"'\n\0")


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_a_quoted_word_is_one_word(value: str) -> None:
    assert words_of(f"-x {quoted(value)} -y") == ["-x", value, "-y"]


def test_a_text_of_128_bytes_is_cut_where_libxt_string_stops() -> None:
    [line] = lines(PayloadContains(b"x" * 128))
    assert _pattern(line) == b"x" * 127


# A policy's own texts are searched in datagrams and in streams.
_OWN = re.compile(r"(scanner|stream)\.ua\.user-")


@pytest.mark.parametrize("form", ["restore", "script"])
def test_hostile_signatures_stay_inside_their_rules(
    form: str, sipfw: Sipfw, tmp_path: Path
) -> None:
    """The same number of lines as with harmless texts: none broke out of its own.

    Comments are not counted: rules whose words come out the same share one.
    """
    harmless = [f"harmless-{number}-signature" for number in range(len(SIGNATURES))]
    texts = {}
    for name, signatures in (("hostile", SIGNATURES), ("harmless", harmless)):
        policy = tmp_path / f"{name}.yaml"
        items = "\n".join(f"    - {_in_yaml(text)}" for text in dict.fromkeys(signatures))
        policy.write_text(f"scanners:\n  user_agents:\n   add:\n{items}\n", encoding="utf-8")
        ran = sipfw("render", "--format", form, "--policy", str(policy), "--root", str(tmp_path))
        assert ran.code == 0, ran.stderr
        texts[name] = ran.stdout
    rules = {
        name: [line for line in text.splitlines() if _OWN.search(line)]
        for name, text in texts.items()
    }
    others = {
        name: [
            line for line in text.splitlines() if not _OWN.search(line) and not line.startswith("#")
        ]
        for name, text in texts.items()
    }
    assert len(others["hostile"]) == len(others["harmless"])
    shipped = {text.encode().lower() for text in SIGNATURES}
    found, on_streams = (
        {_pattern(line.partition("-A")[2]).lower() for line in rules["hostile"] if where in line}
        for where in ("scanner.ua.user-", "stream.ua.user-")
    )
    assert found == on_streams
    # Texts that another one on the list already catches are left out.
    assert found <= shipped
    for text in shipped - found:
        assert any(other in text for other in found)


def _in_yaml(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
