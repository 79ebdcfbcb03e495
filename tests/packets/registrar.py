"""A real registrar in the switch's namespace, kamailio, and the phones that log in to it.

Accounts need no database: the password of every user follows from its name.  The registrar's log
says whom it judged and how, so a test can count what reached it without trusting the firewall.
Knows no firewall.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import subprocess
import time
from ipaddress import ip_address
from string import Template
from typing import TYPE_CHECKING, NamedTuple, Self

import pytest

from lab import LabError, sip

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from lab import Family, Host, Lab

PORT = 5060
REALM = "sip.example"
READY = "registrar is ready"
JUDGED = re.compile(r"judged (\w+) (\d{3}) (\S+) (\d+)$", re.MULTILINE)
CHALLENGE = re.compile(r'nonce="([^"]+)"')

# `$au` is the user that logs in; a carrier is known by its address and needs no login.
CONFIG = Template("""#!KAMAILIO
debug=1
log_stderror=yes
children=1
auto_aliases=no
dns=no
rev_dns=no
disable_tcp=yes
$listen
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "auth.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
modparam("usrloc", "db_mode", 0)
modparam("usrloc", "timer_interval", 1)
modparam("registrar", "min_expires", 1)

request_route {
    if (method == "REGISTER") route(REGISTER);
    if (method == "OPTIONS" && src_ip == myself) route(LOOKUP);
    $carriers
    if (method == "ACK") exit;
    xlog("L_NOTICE", "judged $$rm 407 $$si $$sp\\n");
    proxy_challenge("$realm", "1");
}

route[REGISTER] {
    if (!pv_www_authenticate("$realm", "password-of-$$au", "0")) {
        xlog("L_NOTICE", "judged $$rm 401 $$si $$sp\\n");
        www_challenge("$realm", "1");
        exit;
    }
    xlog("L_NOTICE", "judged $$rm 200 $$si $$sp\\n");
    save("location");
    exit;
}

route[LOOKUP] {
    if (registered("location")) sl_send_reply("200", "OK");
    else sl_send_reply("404", "Not Found");
    exit;
}

route[CALL] {
    xlog("L_NOTICE", "judged $$rm 200 $$si $$sp\\n");
    if (method != "ACK") sl_send_reply("200", "OK");
    exit;
}

event_route[core:worker-one-init] {
    xlog("L_NOTICE", "$ready\\n");
}
""")


def needs(*tools: str) -> pytest.MarkDecorator:
    missing = [tool for tool in tools if shutil.which(tool) is None and not os.environ.get("CI")]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def password(user: str) -> str:
    return f"password-of-{user}"


class Verdict(NamedTuple):
    """One request that reached the registrar, and its answer; an ACK, which has none, says 200."""

    method: str
    status: int
    source: str
    source_port: int


class Registrar:
    """Kamailio on every address of the switch; carriers may call, everybody else must log in."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab = lab
        self._folder = folder
        self._log = folder / "registrar.log"

    def __enter__(self) -> Self:
        config = self._folder / "registrar.cfg"
        config.write_text(_config(self._lab))
        argv = ["kamailio", "-DD", "-E", "-m", "32", "-M", "4", "-f", str(config)]
        places = ["-Y", str(self._folder), "-w", str(self._folder)]
        self._program = self._lab.switch.popen([*argv, *places], output=self._log)
        deadline = time.monotonic() + 10
        while READY not in self._log.read_text():
            if self._program.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"kamailio does not start:\n{self._log.read_text()}")
            time.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Kamailio ends its workers only when it is asked; killed, it would leave them the port.
        self._program.terminate()
        try:
            self._program.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._program.kill()

    def verdicts(self, status: int | None = None, source: str | None = None) -> list[Verdict]:
        """Return what reached the registrar, oldest first, as it logged it."""
        found = [
            Verdict(method, int(code), _compressed(address), int(port))
            for method, code, address, port in JUDGED.findall(self._log.read_text())
        ]
        return [
            each
            for each in found
            if status in (None, each.status) and source in (None, each.source)
        ]

    def settle(self, quiet: float = 0.1) -> None:
        """Return once the registrar has judged nothing for `quiet` seconds."""
        before = -1
        while before != (before := self._log.stat().st_size):
            time.sleep(quiet)

    def has(self, user: str) -> bool:
        """Ask the registrar itself, over loopback, whether a user is registered now."""
        own = self._lab.switch.address_for(self._lab.office)
        question = sip.request("OPTIONS", source=own, destination=own, user=user)
        (answer,) = self._lab.switch.send_udp(own, PORT, question, replies=2.0)
        message = sip.parse(answer.payload)
        return message is not None and message.status == 200


def _config(lab: Lab) -> str:
    hosts = lab.hosts.values()
    addresses = [lab.switch.address_for(host, family) for host in hosts for family in _FAMILIES]
    carriers = [lab.carrier.address(family) for family in _FAMILIES]
    return CONFIG.substitute(
        listen="\n".join(f"listen=udp:{sip.host_text(each)}:{PORT}" for each in addresses),
        carriers="\n    ".join(
            f"if (src_ip == {sip.host_text(each)}) route(CALL);" for each in carriers
        ),
        realm=REALM,
        ready=READY,
    )


_FAMILIES: Sequence[Family] = ("ip", "ip6")


class DigestPhone:
    """One account on one port of `host`; it never repeats a request, so every try is the first.

    A mistaken phone has a password that nobody accepts.
    """

    def __init__(
        self,
        lab: Lab,
        host: Host,
        user: str,
        source_port: int,
        *,
        family: Family = "ip",
        mistaken: bool = False,
    ) -> None:
        self.user = user
        self.target = lab.switch.address_for(host, family)
        self.own = host.address(family)
        self._password = f"old-{password(user)}" if mistaken else password(user)
        self._socket = host.udp_socket(source_port)
        self._port = source_port
        self._call_id = f"{secrets.token_hex(8)}@{user}"
        self._cseq = 0

    def register(self, *, expires: int = 60, timeout: float = 0.5) -> list[int | None]:
        """Log in once, each request sent once; return the statuses, None for no answer."""
        challenge = self._ask([("Expires", str(expires))], timeout)
        if challenge is None:
            return [None]
        credentials = self._credentials(challenge)
        answer = self._ask([("Expires", str(expires)), ("Authorization", credentials)], timeout)
        return [challenge.status, answer.status if answer else None]

    def send(self, method: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Send one request and wait for nothing."""
        self._cseq += 1
        request = sip.request(
            method,
            source=self.own,
            destination=self.target,
            source_port=self._port,
            user=self.user,
            call_id=self._call_id,
            cseq=self._cseq,
            user_agent="Desk Phone 1.0",
            extra_headers=headers,
        )
        self._socket.send(self.target, PORT, request)

    def _ask(self, headers: Sequence[tuple[str, str]], timeout: float) -> sip.Message | None:
        self.send("REGISTER", headers)
        return self._answer(timeout)

    def _answer(self, timeout: float) -> sip.Message | None:
        """Return the answer to the last request; what a spoofer provoked belongs to nobody."""
        deadline = time.monotonic() + timeout
        while (remaining := deadline - time.monotonic()) > 0:
            for reply in self._socket.replies(remaining, count=1):
                message = sip.parse(reply.payload)
                if message is None or message.header("call-id") != self._call_id:
                    continue
                if message.header("cseq") == f"{self._cseq} REGISTER":
                    return message
        return None

    def _credentials(self, challenge: sip.Message) -> str:
        """Answer a challenge with qop=auth (RFC 2617, 3.2.2)."""
        found = CHALLENGE.search(challenge.header("www-authenticate") or "")
        nonce = found[1] if found else ""
        uri, cnonce, count = f"sip:{sip.host_text(self.target)}", secrets.token_hex(4), "00000001"
        account = _md5(f"{self.user}:{REALM}:{self._password}")
        request = _md5(f"REGISTER:{uri}")
        response = _md5(f"{account}:{nonce}:{count}:{cnonce}:auth:{request}")
        return (
            f'Digest username="{self.user}", realm="{REALM}", nonce="{nonce}", uri="{uri}", '
            f'response="{response}", algorithm=MD5, qop=auth, nc={count}, cnonce="{cnonce}"'
        )


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _compressed(address: str) -> str:
    # Kamailio writes an IPv6 address with all its zeros.
    return str(ip_address(address.strip("[]")))
