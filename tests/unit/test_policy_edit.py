"""Peers are edited in the operator's own text: what else stands there stays, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipfw.errors import PolicyError
from sipfw.policy.edit import add_to_peer, remove_from_peer
from sipfw.policy.shorthand import written_out
from sipfw.policy.starter import starter_policy
from sipfw.policy.yaml_tree import read_tree

if TYPE_CHECKING:
    from typing import Any

BLOCK = """\
# the head
profile: wholesale   # chosen by anna

trusted_peers:
  # our carriers
  - name: carrier-a      # since 2019
    signalling:
      - 203.0.113.10     # primary
      - 203.0.113.20
    tier: large
  # the second one
  - {name: carrier-b, signalling: [198.51.100.7, "2001:db8::/64"]}   # cheap
  # nothing below

bans: {duration: 1h}  # the tail
"""


def _data(text: str) -> dict[str, Any]:
    tree = written_out(read_tree(text.encode(), "p"), "p")
    assert tree.faults == ()
    return tree.data


def _peers(text: str) -> dict[str, list[str]]:
    return {peer["name"]: peer["signalling"] for peer in _data(text)["trusted_peers"] or []}


def _changed(before: str, after: str) -> tuple[list[str], list[str]]:
    old, new = before.splitlines(), after.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


def test_a_peer_comes_behind_the_last_one() -> None:
    after = add_to_peer(BLOCK, "new", ["203.0.113.30", "2001:db8:5::1", "sip.c.example:5060"], "p")
    assert _changed(BLOCK, after) == (
        [],
        [
            "  - name: new",
            '    signalling: [203.0.113.30, "2001:db8:5::1", "sip.c.example:5060"]',
        ],
    )
    assert after.index("# cheap") < after.index("name: new") < after.index("# nothing below")


@pytest.mark.parametrize("name", ["null", "true", "false"])
def test_a_name_that_is_a_word_of_yaml_stays_a_name(name: str) -> None:
    after = add_to_peer(BLOCK, name, ["203.0.113.30"], "p")
    assert _peers(after)[name] == ["203.0.113.30"]
    assert remove_from_peer(after, name, [], "p") == BLOCK


def test_an_address_joins_a_block_and_a_flow_list() -> None:
    after = add_to_peer(BLOCK, "carrier-a", ["203.0.113.30"], "p")
    assert _changed(BLOCK, after) == ([], ["      - 203.0.113.30"])
    after = add_to_peer(BLOCK, "carrier-b", ["198.51.100.8"], "p")
    assert '[198.51.100.7, "2001:db8::/64", 198.51.100.8]}   # cheap' in after


def test_an_address_leaves_with_its_line_or_its_comma() -> None:
    after = remove_from_peer(BLOCK, "carrier-a", ["203.0.113.10"], "p")
    assert _changed(BLOCK, after) == (["      - 203.0.113.10     # primary"], [])
    for gone, left in (("198.51.100.7", '["2001:db8::/64"]'), ("2001:db8::/64", "[198.51.100.7]")):
        after = remove_from_peer(BLOCK, "carrier-b", [gone], "p")
        assert f"signalling: {left}}}   # cheap" in after


def test_a_peer_leaves_with_its_lines() -> None:
    after = remove_from_peer(BLOCK, "carrier-a", [], "p")
    assert _peers(after) == {"carrier-b": ["198.51.100.7", "2001:db8::/64"]}
    assert "# our carriers" in after
    assert "# since 2019" not in after
    alone = remove_from_peer(after, "carrier-b", [], "p")
    assert _peers(alone) == {}
    assert "trusted_peers: []\n  # our carriers\n" in alone
    assert "bans: {duration: 1h}  # the tail\n" in alone
    again = add_to_peer(alone, "carrier-b", ["198.51.100.7"], "p")
    assert _peers(again) == {"carrier-b": ["198.51.100.7"]}
    assert "# our carriers" in again


@pytest.mark.parametrize(
    "text",
    [
        "profile: default\n",
        "profile: default",
        "profile: default\ntrusted_peers: []\n",
        "profile: default\ntrusted_peers: []  # none yet\nbans: {duration: 1h}\n",
        "trusted_peers:\nprofile: default\n",
        "trusted_peers: # later\nprofile: default\n",
        "trusted_peers: null\n",
        "{profile: default, trusted_peers: []}\n",
        "trusted_peers: [{name: a, signalling: [203.0.113.10]}]\n",
        "trusted_peers: [{name: a, signalling: [203.0.113.10]},]  # x\n",
        "trusted_peers:\n- name: a\n  signalling: [203.0.113.10]",
        "trusted_peers:\r\n  - name: a\r\n    signalling: [203.0.113.10]\r\nbans: {}\r\n",
        "\ufefftrusted_peers: []\n",
        "trusted_peers:\n  - signalling:\n    - 203.0.113.10\n    name: 'a'\n# end\n",
        "---\ntrusted_peers: []\n",
        "trusted_peers:\n  a: 203.0.113.10  # first\n  b: [203.0.113.11]\nbans: {duration: 1h}\n",
        "trusted_peers:\n  a:\n    signalling: 203.0.113.10\n    tier: small\n# end\n",
        "trusted_peers: {a: 203.0.113.10, b: [203.0.113.11]}\n",
        "trusted_peers: {}\n",
        "trusted_peers: [203.0.113.10, 203.0.113.11]\n",
        "trusted_peers:\n  - 203.0.113.10\n  - b: [203.0.113.11]\n  - c: {signalling: 192.0.2.9}\n",
        "trusted_peers: 203.0.113.10\n",
        BLOCK,
    ],
)
def test_every_way_to_write_peers(text: str) -> None:
    after = add_to_peer(text, "new", ["203.0.113.30"], "p")
    assert _peers(after)["new"] == ["203.0.113.30"]
    assert all(part.strip() in after for part in text.splitlines() if part.startswith("#"))
    more = add_to_peer(after, "new", ["203.0.113.31"], "p")
    assert _peers(more)["new"] == ["203.0.113.30", "203.0.113.31"]
    less = remove_from_peer(more, "new", ["203.0.113.30"], "p")
    assert _peers(less)["new"] == ["203.0.113.31"]
    gone = _data(remove_from_peer(less, "new", [], "p"))
    assert gone == {**_data(text), "trusted_peers": _data(text).get("trusted_peers") or []}
    assert "\n" not in after.replace("\r\n", "") or "\r\n" not in text


SHORT = """\
trusted_peers:
  carrier-a: 203.0.113.10     # primary
  carrier-b: [198.51.100.7]
  carrier-c:                  # the third
    signalling: 198.51.100.9
"""


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        (SHORT, "carrier-a", "  carrier-a: [203.0.113.10, 192.0.2.1]     # primary"),
        (SHORT, "carrier-b", "  carrier-b: [198.51.100.7, 192.0.2.1]"),
        (SHORT, "carrier-c", "    signalling: [198.51.100.9, 192.0.2.1]"),
        (
            "trusted_peers:\n  - 203.0.113.10   # primary\n",
            "203-0-113-10",
            "  - {name: 203-0-113-10, signalling: [203.0.113.10, 192.0.2.1]}   # primary",
        ),
        (
            "trusted_peers:\n  - carrier-a: 203.0.113.10\n",
            "carrier-a",
            "  - carrier-a: [203.0.113.10, 192.0.2.1]",
        ),
    ],
)
def test_an_address_joins_one_that_stands_alone(text: str, name: str, line: str) -> None:
    after = add_to_peer(text, name, ["192.0.2.1"], "p")
    assert _changed(text, after)[1] == [line]
    back = remove_from_peer(after, name, ["192.0.2.1"], "p")
    assert _peers(back) == _peers(text)


def test_a_peer_of_a_short_form_leaves_alone() -> None:
    for name in ("carrier-a", "carrier-b", "carrier-c"):
        after = remove_from_peer(SHORT, name, [], "p")
        assert set(_peers(after)) == {"carrier-a", "carrier-b", "carrier-c"} - {name}
        assert _changed(SHORT, after)[1] == []


def test_the_starter_policy_can_be_edited() -> None:
    text = starter_policy(
        profile="default", switch=None, admin_networks=["192.0.2.0/28"], udp_ports=[5060],
        tcp_ports=[], interfaces=[],
    )  # fmt: skip
    after = add_to_peer(text, "carrier-a", ["203.0.113.10"], "p")
    assert _changed(text, after)[1] == [
        "trusted_peers:", "  - name: carrier-a", "    signalling: [203.0.113.10]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "addresses", "said"),
    [
        ("nobody", [], "there is no peer nobody"),
        ("carrier-a", ["198.51.100.9"], "is not in carrier-a as it is written there"),
        ("carrier-a", ["203.0.113.10", "203.0.113.20"], "that is all of carrier-a"),
    ],
)
def test_what_cannot_be_taken_out(name: str, addresses: list[str], said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        remove_from_peer(BLOCK, name, addresses, "p")


def test_what_is_there_is_not_added() -> None:
    with pytest.raises(PolicyError, match=r"203\.0\.113\.10: is in carrier-a already"):
        add_to_peer(BLOCK, "carrier-a", ["203.0.113.10"], "p")


@pytest.mark.parametrize(
    "text",
    [
        "trusted_peers: &x []\n",
        "trusted_peers: 7\n",
        "trusted_peers: {name: a, signalling: 203.0.113.10}\n",
        "a: b\na: c\n",
        "trusted_peers:\n  - name: new\n    signalling: 7\n",
        "[]\n",
        "",
    ],
)
def test_what_is_not_understood_is_not_edited(text: str) -> None:
    with pytest.raises(PolicyError):
        add_to_peer(text, "new", ["203.0.113.30"], "p")


_WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=8)


@given(comment=_WORDS, indent=st.integers(0, 6), flow=st.booleans())
def test_comments_and_indents_survive(comment: str, indent: int, flow: bool) -> None:
    margin = " " * indent
    signalling = "[203.0.113.10]" if flow else f"\n{margin}    - 203.0.113.10"
    text = (
        f"trusted_peers:  # {comment}\n{margin}# {comment}\n{margin}- name: a # {comment}\n"
        f"{margin}  signalling: {signalling} # {comment}\n# {comment}\nprofile: default\n"
    )
    after = add_to_peer(add_to_peer(text, "a", ["203.0.113.11"], "p"), "b", ["198.51.100.7"], "p")
    assert _peers(after) == {"a": ["203.0.113.10", "203.0.113.11"], "b": ["198.51.100.7"]}
    assert after.count("# ") == text.count("# ")
    back = remove_from_peer(remove_from_peer(after, "b", [], "p"), "a", ["203.0.113.11"], "p")
    assert back == text
