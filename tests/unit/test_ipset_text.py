from __future__ import annotations

import pytest

from sipfw.kernel.xtables.ipset_text import (
    carried_element,
    elements_of,
    header_options,
    renamed_save,
    temporary_name,
)

SAVED = """\
create sipfw-a hash:ip family inet hashsize 1024 maxelem 65536 timeout 60 initval 0x150a210b
add sipfw-a 192.0.2.1 timeout 5
add sipfw-a 192.0.2.2 timeout 0 comment "two words"
"""


def test_header_is_compared_by_meaning() -> None:
    wanted = header_options(["timeout", "60", "family", "inet"], "hash:ip")
    live = [
        "family",
        "inet",
        "hashsize",
        "4096",
        "maxelem",
        "65536",
        "timeout",
        "60",
        "bucketsize",
        "12",
        "initval",
        "0x1",
    ]
    assert header_options(live, "hash:ip") == wanted
    assert header_options(["timeout", "61"], "hash:ip") != wanted
    assert header_options(["timeout", "60", "counters"], "hash:ip") != wanted
    assert header_options(["size", "4"], "list:set") == {"size": "4"}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["timeout", "60", "counters", "comment"], 'timeout 5 packets 3 bytes 4 comment "a b"'),
        (["timeout", "60"], "timeout 5"),
        (["counters"], "packets 3 bytes 4"),
        (["comment"], 'comment "a b"'),
    ],
)
def test_carried_elements_lose_what_the_new_header_forbids(options: list[str], kept: str) -> None:
    element = '192.0.2.0/24 nomatch timeout 5 packets 3 bytes 4 comment "a b"'
    header = header_options(options, "hash:net")
    assert carried_element(element, header) == f"192.0.2.0/24 nomatch {kept}"


def test_saved_text_is_taken_apart_and_renamed() -> None:
    assert list(elements_of(SAVED))[1] == '192.0.2.2 timeout 0 comment "two words"'
    assert renamed_save(SAVED, "x")[0].startswith("create x hash:ip family inet ")
    assert renamed_save(SAVED, "x")[1] == "add x 192.0.2.1 timeout 5"


def test_temporary_names_fit_and_differ() -> None:
    names = {temporary_name("sipfw-" + "x" * 25), temporary_name("sipfw-" + "x" * 24 + "y")}
    assert len(names) == 2
    assert all(len(name) <= 31 and name.startswith("sipfw-tmp-") for name in names)
