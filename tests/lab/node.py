"""One namespace of the lab: run programs in it, send from it, listen in it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from itertools import count
from typing import TYPE_CHECKING, Any

from lab import namespaces
from lab.channel import Channel
from lab.handles import (
    Arrival,
    Family,
    Payloads,
    Sink,
    TcpConnection,
    UdpSocket,
    encoded,
    family_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from lab.replies import Reply

KEEP = 20_000


class CommandError(subprocess.CalledProcessError):
    """A command failed inside a namespace; the message carries what it printed."""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.stdout or ''}{self.stderr or ''}"


class Node:
    """A namespace with an agent; every address and port below is seen from inside it."""

    def __init__(self, role: str, namespace: str) -> None:
        self.role = role
        self.namespace = namespace
        self._channel = Channel(namespace)
        self._programs: list[subprocess.Popen[Any]] = []
        self._keys = count(1)

    def run(
        self,
        argv: Sequence[str],
        input: str | None = None,  # noqa: A002 -- named as in subprocess.run
        *,
        timeout: float = 30.0,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; `env` is added to the environment."""
        done = namespaces.run(self.namespace, argv, input, timeout=timeout, env=env, cwd=cwd)
        if check and done.returncode:
            raise CommandError(done.returncode, list(argv), done.stdout, done.stderr)
        return done

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        output: Path | None = None,
    ) -> subprocess.Popen[str]:
        """Start a program; the lab ends it on exit.

        A program that prints all the time needs a file as `output`: it would stop at a full pipe.
        """
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(output.open("w")) if output else None
            program = namespaces.popen(
                self.namespace,
                argv,
                stdin=subprocess.DEVNULL,
                stdout=file or subprocess.PIPE,
                stderr=subprocess.STDOUT if file else subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, **(env or {})},
                cwd=cwd,
            )
        self._programs.append(program)
        return program

    def udp_sink(
        self, port: int, reply: Reply = None, family: Family | None = None, *, keep: int = KEEP
    ) -> Sink:
        """Listen for datagrams; `reply` as in `lab.replies`, `keep` payloads are stored."""
        return self._sink("udp", port, reply, family, keep)

    def tcp_sink(
        self, port: int, reply: Reply = None, family: Family | None = None, *, keep: int = KEEP
    ) -> Sink:
        """Listen for connections and record every segment."""
        return self._sink("tcp", port, reply, family, keep)

    def udp_socket(self, source_port: int | None = None, *, source: str | None = None) -> UdpSocket:
        """Return a client whose source port stays the same over all its datagrams."""
        return UdpSocket(self._channel, f"socket-{next(self._keys)}", source_port, source)

    def send_udp(
        self,
        destination: str,
        port: int,
        payloads: Payloads,
        *,
        source_port: int | None = None,
        source: str | None = None,
        gap: float = 0.0,
        replies: float = 0.0,
    ) -> list[Arrival]:
        """Send datagrams; wait up to `replies` seconds for one answer to each of them.

        A given source port keeps its socket over all calls; otherwise each call has a new one.
        """
        key = f"{source}:{source_port}" if source_port else f"once-{next(self._keys)}"
        client = UdpSocket(self._channel, key, source_port, source)
        each = [payloads] if isinstance(payloads, bytes) else payloads
        try:
            client.send_many(destination, port, each, gap=gap)
            return client.replies(replies) if replies else []
        finally:
            if not source_port:
                client.close()

    def tcp_connect(
        self,
        destination: str,
        port: int,
        *,
        source_port: int | None = None,
        source: str | None = None,
        timeout: float = 1.0,
    ) -> TcpConnection:
        """Connect, or raise ConnectionRefusedError or TimeoutError."""
        answer = self._channel.ask(
            "tcp_connect",
            family=family_of(destination),
            destination=destination,
            port=port,
            source=source,
            source_port=source_port,
            timeout=timeout,
        )
        return TcpConnection(self._channel, answer["connection"], answer["source_port"])

    def spoof_udp(
        self,
        sources: Iterable[str],
        destination: str,
        sport: int | Sequence[int],
        dport: int,
        payload: bytes,
        *,
        pps: float | None = None,
    ) -> int:
        """Send one datagram from each claimed source and return how many were sent."""
        return int(
            self._channel.ask(
                "spoof",
                sources=list(sources),
                destination=destination,
                sports=[sport] if isinstance(sport, int) else list(sport),
                dport=dport,
                payload=encoded(payload),
                pps=pps,
            )
        )

    def send_fragments(
        self,
        destination: str,
        sport: int,
        dport: int,
        payload: bytes,
        split_at: int | Sequence[int],
        *,
        source: str,
    ) -> int:
        """Send one datagram cut at these offsets of its payload, which are multiples of 8."""
        return int(
            self._channel.ask(
                "fragments",
                source=source,
                destination=destination,
                sport=sport,
                dport=dport,
                payload=encoded(payload),
                splits=[split_at] if isinstance(split_at, int) else list(split_at),
            )
        )

    def send_icmp(self, destination: str, kind: int, body: bytes, *, code: int = 0) -> None:
        """Send one ICMP or ICMPv6 message; `body` is everything behind the checksum."""
        self._channel.ask(
            "icmp_send", destination=destination, kind=kind, code=code, body=encoded(body)
        )

    def ping(self, destination: str, timeout: float = 1.0) -> bool:
        """Tell whether an echo request was answered."""
        return bool(self._channel.ask("icmp_ping", destination=destination, timeout=timeout))

    def too_big(self, destination: str, mtu: int, quoted: bytes) -> None:
        """Tell `destination` that its packet, quoted in part, met a link of that MTU."""
        self._channel.ask("icmp_too_big", destination=destination, mtu=mtu, quoted=encoded(quoted))

    def counters(self) -> dict[str, int]:
        """Return the kernel's counts of this namespace: `UdpOutDatagrams`, `Ip6ReasmOKs`, ..."""
        return dict(self._channel.ask("counters"))

    def reset(self) -> None:
        """Close all sinks, sockets and connections and end the programs; keep the namespace."""
        self._end_programs()
        if self._channel.used:
            self._channel.ask("reset")

    def close(self) -> None:
        """End the agent and every program that `popen` started."""
        self._end_programs()
        self._channel.close()

    def _end_programs(self) -> None:
        for program in self._programs:
            if program.poll() is None:
                program.kill()
            program.wait()
            # Not communicate(): a detached grandchild may hold the pipe open for ever.
            for stream in (program.stdout, program.stderr):
                if stream is not None:
                    stream.close()
        self._programs.clear()

    def _sink(
        self, protocol: str, port: int, reply: Reply, family: Family | None, keep: int
    ) -> Sink:
        number = self._channel.ask(
            "listen", protocol=protocol, port=port, family=family, reply=reply, keep=keep
        )
        return Sink(self._channel, number, port)
