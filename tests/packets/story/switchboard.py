"""A real proxy in the switch's namespace: kamailio with UDP, TCP and TLS, as its default config.

It registers and challenges, relays what is within a dialog and stray replies, tells of the
phones' lamps, dials out to a provider, answers one number (`ivr`) for everybody and tells who is
not there: accounts are 100 to 199, with passwords that follow from their names. Its log says whom
it judged. Knows no firewall.
"""

from __future__ import annotations

import re
import subprocess
import time
from ipaddress import ip_address
from string import Template
from typing import TYPE_CHECKING, NamedTuple, Self

from lab import LabError, sip

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from lab import Lab
    from packets.evidence.wire import Place

PORT, TLS_PORT = 5060, 5061
REALM = "sip.example"
READY = "switchboard is ready"
JUDGED = re.compile(r"judged (\w+) (\d{3}) (\w+) (\S+) (\d+) (\w+)$", re.MULTILINE)

CONFIG = Template("""#!KAMAILIO
debug=1
log_stderror=yes
children=1
tcp_children=2
auto_aliases=no
dns=no
rev_dns=no
enable_tls=yes
$listen
loadmodule "tls.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
loadmodule "auth.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "nathelper.so"
modparam("tls", "private_key", "$folder/key.pem")
modparam("tls", "certificate", "$folder/certificate.pem")
modparam("tls", "tls_method", "TLSv1.2+")
modparam("usrloc", "db_mode", 0)
modparam("usrloc", "timer_interval", 1)
modparam("registrar", "min_expires", 1)
modparam("registrar", "received_avp", "$$avp(received)")
modparam("nathelper", "received_avp", "$$avp(received)")

request_route {
    if (!mf_process_maxfwd_header("10")) { sl_send_reply("483", "Too Many Hops"); exit; }
    force_rport();
    if (is_method("CANCEL")) { if (t_check_trans()) t_relay(); exit; }
    if (!is_method("ACK")) {
        if (t_precheck_trans()) { t_check_trans(); exit; }
        t_check_trans();
    }
    if (has_totag()) route(WITHIN_DIALOG);
    if (is_method("ACK")) exit;
    if (is_method("OPTIONS") || $$rU == "ivr") { sl_send_reply("200", "OK"); exit; }
    remove_hf("Route");
    if (is_method("REGISTER|SUBSCRIBE")) route(ACCOUNT);
    if (is_method("INVITE")) record_route();
    if (src_ip != $carrier) {
        if (!pv_proxy_authenticate("$realm", "password-of-$$au", "0")) {
            $$var(kind) = "bare";
            if (is_present_hf("Proxy-Authorization")) $$var(kind) = "login";
            xlog("L_NOTICE", "judged $$rm 407 $$var(kind) $$si $$sp $$proto\\n");
            proxy_challenge("$realm", "0");
            exit;
        }
        xlog("L_NOTICE", "judged $$rm 200 login $$si $$sp $$proto\\n");
        consume_credentials();
        add_contact_alias();
    }
    if ($$rU =~ "^9") $$du = "sip:$provider:5060";
    else if (!lookup("location")) { sl_send_reply("404", "Not Found"); exit; }
    route(RELAY);
}

route[WITHIN_DIALOG] {
    if (loose_route()) { handle_ruri_alias(); route(RELAY); }
    if (is_method("ACK")) { if (t_check_trans()) t_relay(); exit; }
    sl_send_reply("404", "Not Here");
    exit;
}

route[ACCOUNT] {
    if (!($$tU =~ "^1[0-9][0-9]$$")) {
        xlog("L_NOTICE", "judged $$rm 404 bare $$si $$sp $$proto\\n");
        sl_send_reply("404", "Not Found");
        exit;
    }
    if (!pv_www_authenticate("$realm", "password-of-$$au", "0")) {
        $$var(kind) = "bare";
        if (is_present_hf("Authorization")) $$var(kind) = "login";
        xlog("L_NOTICE", "judged $$rm 401 $$var(kind) $$si $$sp $$proto\\n");
        www_challenge("$realm", "0");
        exit;
    }
    xlog("L_NOTICE", "judged $$rm 200 login $$si $$sp $$proto\\n");
    if (is_method("SUBSCRIBE")) { sl_send_reply("200", "OK"); exit; }
    fix_nated_register();
    save("location");
    exit;
}

route[RELAY] {
    t_on_reply("NAT");
    if (!t_relay()) sl_reply_error();
    exit;
}

onreply_route[NAT] {
    if (src_ip != $carrier && src_ip != $provider) add_contact_alias();
}

event_route[core:worker-one-init] {
    xlog("L_NOTICE", "$ready\\n");
}
""")


class Verdict(NamedTuple):
    """One request that reached the switch, and its answer; `kind` is `login` or `bare`."""

    method: str
    status: int
    kind: str
    source: str
    port: int
    transport: str


class Switchboard:
    """Kamailio on the address that offices use, which everybody else reaches as well."""

    def __init__(self, lab: Lab, folder: Path, provider: str) -> None:
        self._lab, self._folder = lab, folder
        self._log = folder / "switchboard.log"
        self._provider = provider

    def __enter__(self) -> Self:
        _certificate(self._folder)
        config = self._folder / "switchboard.cfg"
        config.write_text(self._config())
        argv = ["kamailio", "-DD", "-E", "-m", "64", "-M", "8", "-f", str(config)]
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
            self._program.wait(timeout=8)
        except subprocess.TimeoutExpired:
            self._program.kill()

    def verdicts(self, source: str, *, kind: str, refused: bool = True) -> list[Verdict]:
        """Return what the switch judged of a source: its refusals, or what it accepted."""
        found = [
            Verdict(method, int(code), what, str(ip_address(address.strip("[]"))), int(port), way)
            for method, code, what, address, port, way in JUDGED.findall(self._log.read_text())
        ]
        return [
            each
            for each in found
            if each.source == source and each.kind == kind and (each.status >= 400) is refused
        ]

    def guesses(self, source: str) -> list[Verdict]:
        return self.verdicts(source, kind="login")

    def settle(self, quiet: float = 0.3) -> None:
        """Return once the switch has judged nothing for `quiet` seconds."""
        before = -1
        while before != (before := self._log.stat().st_size):
            time.sleep(quiet)

    def _config(self) -> str:
        own = [self._lab.switch.address_for(self._lab.office, family) for family in ("ip", "ip6")]
        ways = [("udp", PORT), ("tcp", PORT), ("tls", TLS_PORT)]
        return CONFIG.substitute(
            listen="\n".join(
                f"listen={proto}:{sip.host_text(each)}:{port}"
                for each in own
                for proto, port in ways
            ),
            carrier=self._lab.carrier.address4,
            provider=self._provider,
            folder=self._folder,
            realm=REALM,
            ready=READY,
        )


def target(lab: Lab, *, six: bool = False, tls: bool = False) -> Place:
    """Return where the switch listens."""
    address = lab.switch.address_for(lab.office, "ip6" if six else "ip")
    return address, TLS_PORT if tls else PORT


def _certificate(folder: Path) -> None:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", *key, *files, "-days", "2", "-subj", f"/CN={REALM}"],
        check=True,
        capture_output=True,
    )
