"""The nftables plumbing without a kernel: bytes, answers, nft's errors and its listing."""

from __future__ import annotations

import errno
import json
import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import pytest

from sipfw.errors import BackendError
from sipfw.host.runner import Completed
from sipfw.kernel.netlink import rules as nft_text_rules
from sipfw.kernel.netlink import socket as nft_netlink
from sipfw.kernel.netlink.rules import TextRule, Verdict, fill_chain, probe
from sipfw.kernel.netlink.socket import NetlinkError, NetlinkRequest, attribute, attributes, nested
from sipfw.kernel.nft.tool import NftTool, live_from_json
from sipfw.ruleset.rule import Goto, Jump

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RULE = TextRule("sipfw:a#01234567", b"friendly-scanner", 28, "drop")
KERNEL = (0, 0)
LOST = OSError(errno.ENOBUFS, "lost")


def test_attributes_are_padded_and_found_again() -> None:
    data = attribute(1, b"abcde") + nested(2, attribute(3, b"x"))
    assert len(data) == 12 + 12
    first, (kind, second) = attributes(data)
    assert (first, kind, list(attributes(second))) == ((1, b"abcde"), 2, [(3, b"x")])


def test_a_damaged_attribute_ends_the_list() -> None:
    assert list(attributes(attribute(1, b"a") + b"\0\0\0\0")) == [(1, b"a")]


def test_a_batch_numbers_its_requests_between_begin_and_end() -> None:
    data = nft_netlink.encode_batch(
        "ip6", [NetlinkRequest(0xA06, b"1234", "x", nft_netlink.CREATE)] * 2
    )
    seen = []
    while data:
        length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", data)
        seen.append((kind, flags, sequence, data[16], data[18:20]))
        data = data[length:]
    assert seen == [
        (0x10, 0x1, 0, 0, b"\0\n"),
        (0xA06, 0x405, 1, 10, b"\0\0"),
        (0xA06, 0x405, 2, 10, b"\0\0"),
        (0x11, 0x1, 3, 0, b"\0\n"),
    ]


@pytest.mark.parametrize("pointer", [4, 8])
def test_the_kernel_structure_has_160_bytes_with_either_pointer(
    pointer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft_text_rules, "_POINTER", pointer)
    data = nft_text_rules.encode_rule(replace(RULE, pattern=b"p" * 128))
    start = data.index(b"\x1c\x00\xff\xffkmp\0")
    length, kind = struct.unpack_from("=HH", data, start - 4)
    assert (length, kind) == (164, 3)
    assert data[start + 20 : start + 148] == b"p" * 128
    assert data[start + 148 : start + 160] == bytes([128, 2]) + bytes(10)


@pytest.mark.parametrize("verdict", ["drop", "return", "accept", Goto("elsewhere"), Jump("ban")])
def test_an_encoded_rule_reads_back_as_itself(verdict: Verdict) -> None:
    rule = replace(
        RULE, pattern=bytes(range(1, 9)), verdict=verdict, packets=1 << 40, bytes=1 << 50
    )
    fields = dict(attributes(nft_text_rules.encode_rule(rule)))
    assert nft_text_rules._decode_rule(fields) == rule


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pattern": b""}, "1 to 128 bytes, not 0"),
        ({"pattern": b"x" * 129}, "1 to 128 bytes, not 129"),
        ({"comment": ""}, "comment"),
        ({"comment": "é" * 65}, "comment"),
        ({"comment": 'a"b'}, "comment"),
        ({"comment": "a\nb"}, "comment"),
        ({"comment": "a\0b"}, "comment"),
        ({"from_offset": 65536}, "offset 65536"),
        ({"from_offset": -1}, "offset -1"),
        ({"packets": 1 << 64}, "counter"),
        ({"bytes": -1}, "counter"),
        ({"verdict": Jump("")}, "name"),
        ({"verdict": Goto("x" * 128)}, "name"),
    ],
)
def test_a_rule_that_cannot_be_is_named_before_anything_is_sent(
    change: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[object] = []
    monkeypatch.setattr(nft_text_rules, "send_batch", lambda *batch: sent.append(batch))
    with pytest.raises(BackendError, match=r"^chain ua4: rule 2 of 2 ") as caught:
        fill_chain("ua4", [RULE, replace(RULE, **change)])
    assert says in caught.value.message
    assert sent == []


def ack(sequence: int, code: int = 0, tail: bytes = b"", flags: int = 0x100) -> bytes:
    """Return the kernel's answer to one message; 0x100 says that it quotes only the header."""
    quoted = struct.pack("=IHHII", 24, 0xA06, 0, sequence, 0)
    payload = struct.pack("=i", -code) + quoted + tail
    return struct.pack("=IHHII", 16 + len(payload), 2, flags, sequence, 0) + payload


@dataclass
class FakeSocket:
    """What the kernel would say, datagram by datagram."""

    answers: list[bytes | OSError | tuple[bytes, tuple[int, int]]]
    sent: list[bytes] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def recvfrom(self, _: int) -> tuple[bytes, tuple[int, int]]:
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer if isinstance(answer, tuple) else (answer, KERNEL)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeSocket]:
    def script(*answers: bytes | OSError | tuple[bytes, tuple[int, int]]) -> FakeSocket:
        fake = FakeSocket(list(answers))
        monkeypatch.setattr(nft_netlink, "_open", lambda *_: fake)
        return fake

    return script


def send(count: int = 2) -> None:
    body = attribute(1, b"sipfw\0") + attribute(2, b"ua4\0")
    requests = [NetlinkRequest(0xA06, body, f"rule {n}") for n in range(1, count + 1)]
    nft_netlink.send_batch("inet", requests)


def test_every_request_needs_its_answer(kernel: Callable[..., FakeSocket]) -> None:
    fake = kernel(ack(1), ack(2))
    send()
    assert fake.answers == []
    kernel(ack(1), TimeoutError())
    with pytest.raises(BackendError, match="no answer from the kernel within"):
        send()


def test_answers_of_other_processes_do_not_count(kernel: Callable[..., FakeSocket]) -> None:
    kernel((ack(1) + ack(2), (4711, 0)), ack(1, errno.EBUSY), ack(2))
    with pytest.raises(NetlinkError, match="rule 1: Device or resource busy"):
        send()


def test_the_first_refused_request_is_named_after_all_answers(
    kernel: Callable[..., FakeSocket],
) -> None:
    fake = kernel(ack(3, errno.EINVAL) + ack(1), ack(2, errno.ENOENT))
    with pytest.raises(NetlinkError, match=r"rule 2: No such file or directory \(ENOENT\)"):
        send(3)
    assert fake.answers == []


@pytest.mark.parametrize("quotes_all", [False, True])
def test_the_kernels_own_words_and_the_blamed_attribute(
    kernel: Callable[..., FakeSocket], *, quotes_all: bool
) -> None:
    # Offset 32 is the second attribute: 16 bytes of header, 4 of nfgenmsg, 12 of the first one.
    said = attribute(1, b"Bad chain\0") + attribute(2, struct.pack("=I", 32))
    tail, flags = (bytes(8) + said, 0x200) if quotes_all else (said, 0x300)
    kernel(ack(1, errno.EINVAL, tail, flags), ack(2))
    with pytest.raises(NetlinkError, match=r"rule 1: Bad chain: Invalid argument") as caught:
        send()
    assert (caught.value.attribute, caught.value.errno) == (2, errno.EINVAL)


def test_an_error_of_the_whole_batch_ends_the_wait(kernel: Callable[..., FakeSocket]) -> None:
    kernel(ack(0, errno.EPERM))
    with pytest.raises(NetlinkError, match="batch of 2 requests: Operation not permitted"):
        send()


def test_lost_answers_repeat_the_batch(kernel: Callable[..., FakeSocket]) -> None:
    fake = kernel(ack(1), LOST, ack(1), ack(2))
    send()
    assert len(fake.sent) == 2
    assert fake.sent[0] == fake.sent[1]
    kernel(*[LOST] * 20)
    with pytest.raises(BackendError, match="not known what the kernel did"):
        send()


def test_an_interrupted_dump_is_asked_again(kernel: Callable[..., FakeSocket]) -> None:
    def part(payload: bytes, kind: int, flags: int = 2) -> bytes:
        return struct.pack("=IHHII", 20 + len(payload), kind, flags, 1, 0) + bytes(4) + payload

    done = part(b"", 3)
    fake = kernel(part(b"old.", 0xA06), part(b"half", 0xA06, 0x12), part(b"new.", 0xA06) + done)
    request = NetlinkRequest(0xA07, b"", "list", nft_netlink.DUMP)
    assert nft_netlink.ask("inet", request) == [b"new."]
    assert len(fake.sent) == 2


@pytest.mark.parametrize(
    ("step", "code", "says"),
    [
        ("make a table", errno.EPERM, "no permission"),
        ("open a netlink socket", errno.EPROTONOSUPPORT, "no nf_tables"),
        ("batch of 2 requests", errno.EOPNOTSUPP, "no nf_tables"),
        ("ask for the string match", errno.EINVAL, "no nft_compat"),
        ("ask for the string match", errno.ENOENT, "no xt_string"),
        ("ask for the string match", errno.EPERM, "no permission"),
        ("ask for the string match", errno.EOPNOTSUPP, "Operation not supported"),
        ("make a chain", errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_the_probe_says_what_is_missing(
    step: str, code: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str, request: object) -> None:
        if (step == "ask for the string match") == isinstance(request, NetlinkRequest):
            raise NetlinkError(step, code)

    monkeypatch.setattr(nft_text_rules, "send_batch", refuse)
    monkeypatch.setattr(nft_text_rules, "ask", refuse)
    assert says in (probe() or "")


@dataclass
class FakeNft:
    """One answer for every run of nft."""

    done: Completed
    argv: Sequence[str] = ()
    stdin: str = ""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        del timeout, env
        self.argv, self.stdin = argv, stdin
        return self.done


def nft(returncode: int = 0, stdout: str = "", stderr: str = "") -> NftTool:
    return NftTool(FakeNft(Completed(returncode, stdout, stderr)))


def test_a_long_line_is_quoted_around_the_fault() -> None:
    text = "x" * 5000 + "FAULT" + "y" * 5000
    with pytest.raises(BackendError) as caught:
        nft(1, stderr="/dev/stdin:1:5001-5005: Error: bad\n").apply(text)
    assert "FAULT" in caught.value.message
    assert len(caught.value.message) < 160


def test_many_errors_are_counted() -> None:
    stderr = "".join(f"/dev/stdin:{n}:1-1: Error: bad\n" for n in range(1, 10))
    with pytest.raises(BackendError, match=r"line 5: bad: l\n +and 4 more$"):
        nft(1, stderr=stderr).apply("l\n" * 9)


@pytest.mark.parametrize(
    ("code", "stderr", "says"),
    [
        (1, "internal:0:0-0: Error: Could not process rule: No space left on device\n", "No space"),
        (1, "Error: Operation not permitted (you must be root)\n", "you must be root"),
        (1, "libxtables: unhandled NFPROTO in x\n", "exit status 1"),
        (-11, "", "signal 11"),
    ],
)
def test_an_error_without_a_line_is_still_told(code: int, stderr: str, says: str) -> None:
    with pytest.raises(BackendError) as caught:
        nft(code, stderr=stderr).apply("flush table inet sipfw\n")
    assert says in caught.value.message
    assert "libxtables" not in caught.value.message


def test_only_check_has_the_option_to_check() -> None:
    fake = FakeNft(Completed(0, "", ""))
    for feed, argv in ((NftTool(fake).check, "nft -c -f -"), (NftTool(fake).apply, "nft -f -")):
        feed("text")
        assert (list(fake.argv), fake.stdin) == (argv.split(), "text")


def test_a_missing_table_is_none_and_no_permission_is_an_error() -> None:
    missing = "Error: No such file or directory\nlist table inet sipfw\n                ^^^^^\n"
    assert nft(1, stderr=missing).list_table() is None
    with pytest.raises(BackendError, match="cannot list table inet sipfw: Error: Operation not"):
        nft(1, stderr="Error: Operation not permitted\n").list_table()


def test_a_listing_survives_the_remarks_about_text_rules() -> None:
    remark = "# Warning: table inet sipfw is managed by iptables-nft, do not touch!\n"
    plain = json.dumps({"nftables": [{"metainfo": {}}, {"table": {"name": "sipfw"}}]})
    for stdout in (plain, remark + plain):
        tool = nft(0, stdout, remark + "libxtables: unhandled NFPROTO in x\n")
        assert tool.list_table() == [{"table": {"name": "sipfw"}}]
    with pytest.raises(BackendError, match="cannot read its listing"):
        nft(0, '{"nftables": [{"table": ').list_table()


def test_version_is_comparable() -> None:
    assert nft(0, "nftables v1.0.6 (Lester Gooch #5)\n").version() == (1, 0, 6)
    with pytest.raises(BackendError, match="cannot read"):
        nft(0, "something else").version()


def rule(expr: list[Any], **more: object) -> dict[str, Any]:
    return {"rule": {"chain": "c", "handle": 7, "expr": expr, **more}}


def test_rules_keep_their_order_ids_and_counters() -> None:
    objects: list[dict[str, Any]] = [
        {"counter": {"name": "n1", "packets": 8, "bytes": 80}},
        {"chain": {"name": "c", "hook": "input", "prio": -5, "policy": "drop"}},
        {"chain": {"name": "empty"}},
        rule([{"counter": {"packets": 3, "bytes": 4}}], comment="sipfw:a.b/2#0123abcd"),
        rule([{"counter": "n1"}, {"drop": None}], comment="by hand"),
        rule([{"accept": None}]),
    ]
    listing = live_from_json(objects)
    chain = listing.chains["c"]
    assert (chain.hook, chain.priority, chain.policy) == ("input", -5, "drop")
    first, second, third = chain.rules
    assert (first.rule_id, first.digest, first.packets, first.bytes) == ("a.b/2", "0123abcd", 3, 4)
    assert first.line == '[{"counter":null}]'
    assert (second.rule_id, second.packets, second.bytes) == (None, 8, 80)
    assert second.line == '[{"counter":"n1"},{"drop":null}]'
    assert (third.packets, third.line) == (0, '[{"accept":null}]')
    assert (listing.chains["empty"].rules, listing.chains["empty"].hook) == ((), None)


def test_a_line_changes_with_the_rule_and_not_with_its_counts_or_handle() -> None:
    def line(packets: int, handle: int, rate: int) -> str:
        update = {"op": "add", "set": "@s", "stmt": [{"counter": {"packets": packets, "bytes": 1}}]}
        expr = [{"limit": {"rate": rate}}, {"set": update}]
        found = live_from_json([{"chain": {"name": "c"}}, rule(expr, handle=handle)])
        return found.chains["c"].rules[0].line

    assert line(1, 1, 5) == line(2, 9, 5)
    assert line(1, 1, 5) != line(1, 1, 6)


def nft_set(name: str, *elements: object, **more: object) -> dict[str, Any]:
    return {"set": {"name": name, "type": "ipv4_addr", "elem": list(elements), **more}}


def test_static_sets_show_their_elements_and_dynamic_ones_only_their_number() -> None:
    static = nft_set(
        "s",
        {"prefix": {"addr": "192.0.2.0", "len": 24}},
        "198.51.100.7",
        {"range": ["203.0.113.4", "203.0.113.9"]},
        {"concat": [{"prefix": {"addr": "2001:db8::", "len": 32}}, {"range": [1, 2]}]},
        {"elem": {"val": 5060, "comment": "x"}},
        type=["a", "b"],
        flags=["interval"],
    )
    banned = {"elem": {"val": "192.0.2.4", "timeout": 60, "expires": 9}}
    options = {"flags": ["timeout"], "timeout": 60, "size": 9, "stmt": [{"counter": None}]}
    objects = [static, nft_set("d", banned, **options)]
    sets = live_from_json(objects).sets
    assert sets["s"].type == "a . b"
    assert sets["s"].elements == frozenset(
        [
            "192.0.2.0/24",
            "198.51.100.7",
            "203.0.113.4-203.0.113.9",
            "2001:db8::/32 . 1-2",
            "5060",
        ]
    )
    assert sets["d"].header == ("flags", "timeout", "timeout", "60", "size", "9", "counter")
    assert (sets["d"].entries, sets["d"].elements) == (1, None)
    assert live_from_json(objects, frozenset({"d"})).sets["d"].elements == frozenset(["192.0.2.4"])
    assert live_from_json(objects, frozenset({"d"})).sets["s"].elements is None


def test_an_element_of_an_unknown_form_is_not_passed_over() -> None:
    with pytest.raises(BackendError, match="cannot read the set element"):
        live_from_json([nft_set("s", {"new": 1})])
