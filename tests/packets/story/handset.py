"""A phone, or any other place with a way to the switch, that does what RFC 3261 asks of it.

It repeats its requests over UDP (timers A and E), answers calls and repeats its 200 until the ACK
comes (13.3). Every request is written into a ledger: a good one is lost when no final answer
of the wanted kind has come in its time.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab import sip
from packets.story.account import Account, all_of, dialog_of

if TYPE_CHECKING:
    from packets.story.ways import Way

T1, T2 = 0.5, 4.0
# Of 32 s (timers B and F), as everything here is compressed.
PATIENCE = 8.0


@dataclass
class Count:
    """The transactions of one kind."""

    tried: int = 0
    done: int = 0
    resent: int = 0
    slowest: float = 0.0


@dataclass
class Ledger:
    """The good transactions of everybody."""

    counts: dict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    lost: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, who: str, *, outcome: str, seconds: float, resent: int = 0) -> None:
        """Write one down; an `outcome` says why it was lost, none that it was not."""
        with self._lock:
            count = self.counts[kind]
            count.tried += 1
            count.done += not outcome
            count.resent += resent
            count.slowest = max(count.slowest, seconds)
            if outcome:
                begun = time.monotonic() - seconds - self.started
                self.lost.append(f"{begun:5.1f} s: {kind} of {who}: {outcome} in {seconds:.1f} s")

    def table(self) -> str:
        head = f"{'transaction':<22}{'tried':>7}{'done':>7}{'lost':>6}{'resent':>8}{'slowest':>9}"
        lines = [
            f"{kind:<22}{count.tried:>7}{count.done:>7}{count.tried - count.done:>6}"
            f"{count.resent:>8}{count.slowest:>7.2f} s"
            for kind, count in sorted(self.counts.items())
        ]
        return "\n".join([head, *lines])


@dataclass
class Ringing:
    """A 200 that waits for its ACK."""

    answer: bytes
    started: float
    due: float
    pause: float = T1


class Handset:
    """One account at one end of a way."""

    patience = PATIENCE

    def __init__(self, account: Account, way: Way, ledger: Ledger, label: str = "") -> None:
        self.account, self.way, self._ledger = account, way, ledger
        self._label = f" {label}" if label else ""
        self._ringing: dict[str, Ringing] = {}
        self._acks: dict[str, bytes] = {}

    def login(self, method: str, number: str | None = None, **headers: str) -> sip.Message | None:
        """Ask, answer the challenge and ask again; return the success."""
        extra = [(name.replace("_", "-"), value) for name, value in headers.items()]
        request = self.account.request(method, number, headers=extra)
        call_id = (sip.parse(request) or _NOTHING).header("call-id")
        challenge = self.ask(request, {401, 407})
        if challenge is None:
            return None
        if method == "INVITE":
            self._refused(request, challenge)
        extra.append(self.account.credentials(challenge, request))
        request = self.account.request(method, number, headers=extra, call_id=call_id)
        return self.ask(request, {200})

    def register(self, expires: int) -> bool:
        return self.login("REGISTER", Expires=str(expires)) is not None

    def watch(self, lamps: list[str]) -> None:
        for lamp in lamps:
            self.login("SUBSCRIBE", lamp, Event="dialog", Expires="60")

    def call(self, number: str, seconds: float, *, trusted: bool = False) -> None:
        """Call somebody, talk and hang up."""
        if trusted:
            answer = self.ask(self.account.request("INVITE", number), {200})
        else:
            answer = self.login("INVITE", number)
        if answer is None:
            return
        dialog = dialog_of(answer)
        cseq = int((answer.header("cseq") or "0").split()[0])
        self._acks[dialog.call_id] = self.account.within(dialog, "ACK", cseq)
        self.way.send(self._acks[dialog.call_id])
        self.idle(seconds)
        self.ask(self.account.within(dialog, "BYE"), {200})

    def ask(self, request: bytes, wanted: set[int]) -> sip.Message | None:
        """Send a request until it is answered; return the answer if it is one that is wanted."""
        asked = sip.parse(request)
        assert asked is not None
        started = now = time.monotonic()
        pause, due, resent = T1, started + T1, 0
        rings = False
        self.way.send(request)
        while now < started + self.patience:
            answer = self._receive(min(due, started + self.patience) - now, asked)
            now = time.monotonic()
            if answer is not None and (answer.status or 0) >= 200:
                good = answer.status in wanted
                outcome = "" if good else f"answered {answer.status}"
                self._note(asked, outcome, now - started, resent)
                return answer if good else None
            rings = rings or (answer is not None and asked.method == "INVITE")
            if now >= due:
                if not self.way.reliable and not rings:
                    self.way.send(request)
                    resent += 1
                pause = 2 * pause if asked.method == "INVITE" else min(2 * pause, T2)
                due = now + pause
        self._note(asked, "no answer", now - started, resent)
        return None

    def idle(self, seconds: float) -> None:
        """Do nothing but answer who calls."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._receive(min(left, 0.25), None)

    def _note(self, asked: sip.Message, outcome: str, seconds: float, resent: int) -> None:
        kind = f"{asked.method}{self._label}"
        number = asked.uri_user if asked.method in {"INVITE", "SUBSCRIBE"} else ""
        login = any(key.endswith("authorization") for key, _ in asked.headers)
        who = f"{self.account.user} {self.account.transport} {number}{' login' * login}".rstrip()
        self._ledger.note(kind, who, outcome=outcome, seconds=seconds, resent=resent)

    def _refused(self, request: bytes, answer: sip.Message) -> None:
        """Acknowledge a refusal of an INVITE (RFC 3261, 17.1.1)."""
        asked = sip.parse(request)
        assert asked is not None
        lines = [f"ACK {request.decode().split(' ')[1]} SIP/2.0"]
        kept = {"via": "Via", "from": "From", "call-id": "Call-ID", "max-forwards": "Max-Forwards"}
        lines += [f"{kept[key]}: {value}" for key, value in asked.headers if key in kept]
        number = (asked.header("cseq") or "0").split()[0]
        lines += [f"To: {answer.header('to')}", f"CSeq: {number} ACK", "Content-Length: 0", "", ""]
        self.way.send("\r\n".join(lines).encode())

    def _receive(self, timeout: float, asked: sip.Message | None) -> sip.Message | None:
        """Return an answer to that request, if one comes in time; serve everybody else."""
        due = min((each.due for each in self._ringing.values()), default=float("inf"))
        data = self.way.receive(max(0.0, min(timeout, due - time.monotonic())))
        self._ring_on()
        message = sip.parse(data) if data else None
        if data is None or message is None:
            return None
        if message.is_request:
            self._serve(data, message)
        elif asked is not None and _answers(message, asked):
            return message
        elif message.status == 200 and (message.header("cseq") or "").endswith(" INVITE"):
            # A 200 that is repeated wants its ACK again.
            ack = self._acks.get(message.header("call-id") or "")
            if ack is not None:
                self.way.send(ack)
        return None

    def _serve(self, data: bytes, message: sip.Message) -> None:
        call_id = message.header("call-id") or ""
        if message.method == "ACK":
            found = self._ringing.pop(call_id, None)
            if found is not None:
                self._acknowledged("", found)
        elif message.method == "INVITE":
            copied = [("Record-Route", each) for each in all_of(message, "record-route")]
            extra = [*copied, ("Contact", self.account.contact)]
            tag = f"{self.account.user}-{call_id[:6]}"
            self.way.send(sip.response(180, data, to_tag=tag, extra_headers=extra))
            answer = sip.response(200, data, to_tag=tag, extra_headers=extra)
            now = time.monotonic()
            self._ringing.setdefault(call_id, Ringing(answer, now, now + T1))
            self.way.send(answer)
        else:
            self.way.send(sip.response(200, data, to_tag=self.account.user))

    def _ring_on(self) -> None:
        now = time.monotonic()
        for call_id, each in list(self._ringing.items()):
            if now > each.started + self.patience:
                del self._ringing[call_id]
                self._acknowledged("never came", each)
            elif now >= each.due:
                each.pause = min(2 * each.pause, T2)
                each.due = now + each.pause
                self.way.send(each.answer)

    def _acknowledged(self, outcome: str, ringing: Ringing) -> None:
        seconds = time.monotonic() - ringing.started
        who = self.account.user
        self._ledger.note(f"ACK{self._label}", who, outcome=outcome, seconds=seconds)


_NOTHING = sip.Message("", (), b"")


def _answers(message: sip.Message, asked: sip.Message) -> bool:
    return all(
        (message.header(name) or "").split(";rport")[0].split(";received")[0]
        == (asked.header(name) or "").split(";rport")[0]
        for name in ("call-id", "cseq")
    ) and _branch(message) == _branch(asked)


def _branch(message: sip.Message) -> str:
    return (message.header("via") or "").partition("branch=")[2].partition(";")[0]
