"""The real ufw: sipfw beside it, what it shuts is named in its own words, and both come and go."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from shared_host import BACKENDS, SharedHost

from lab import Lab, sip, unavailable_reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.netns

POLICY: Mapping[str, Any] = {
    "trusted_peers": [{"name": "carrier", "signalling": ["203.0.113.10", "2001:db8:5::a"]}],
    "signalling": {"udp": [5060], "tcp": []},
}
# ufw keeps its rules below /etc; the host of the tests must not get them.
RUN = """\
mount --bind "$0/ufw" /etc/ufw && mount --bind "$0/default" /etc/default/ufw || exit 99
[ -z "$1" ] || mount --bind "$1" /usr/sbin/xtables-nft-multi || exit 99
shift
exec ufw "$@"
"""


@dataclass(frozen=True, slots=True)
class Ufw:
    """A switch with ufw, which knows only ssh."""

    lab: Lab
    host: SharedHost
    folder: Path

    def ufw(self, *words: str) -> str:
        multi = "/usr/sbin/xtables-legacy-multi" if self.host.flavour == "legacy" else ""
        return self.host.run("unshare", "-m", "sh", "-c", RUN, str(self.folder), multi, *words)

    def arriving(self) -> list[str]:
        """Return what arrives of the carrier's and of a stranger's SIP."""
        sink = self.lab.switch.udp_sink(5060)
        found = []
        for who, sender in self.lab.hosts.items():
            target = self.lab.switch.address_for(sender)
            for method in ("INVITE", "OPTIONS"):
                text = sip.request(method, source=sender.address4, destination=target)
                sender.send_udp(target, 5060, text)
            sink.settle()
            found += [f"{who} {each.payload.split()[0].decode()}" for each in sink.arrivals()]
            sink.clear()
        sink.close()
        return found

    def rules(self) -> list[str]:
        """Return ufw's chains and rules in their order."""
        saved = [self.host.tool(f"{command}-save") for command in ("iptables", "ip6tables")]
        lines = [line for text in saved for line in text.splitlines()]
        kept = [re.sub(r"\[\d+:\d+\]", "", line) for line in lines if not line.startswith("#")]
        return [line for line in kept if "ufw" in line or line.startswith(":INPUT")]


@pytest.fixture(params=BACKENDS)
def beside(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ufw]:
    reason = unavailable_reason()
    if reason is None and shutil.which("ufw", path="/usr/sbin") is None:
        reason = "needs ufw"
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path / "etc"
    shutil.copytree("/etc/ufw", folder / "ufw")
    default = Path("/etc/default/ufw").read_text()
    # What it would set and load is the kernel's, and not the namespace's.
    (folder / "default").write_text(
        re.sub(r"^IPT_(SYSCTL|MODULES)=.*", r"IPT_\1=", default, flags=re.MULTILINE)
    )
    with Lab(hosts=("carrier", "attacker")) as lab:
        built = Ufw(lab, SharedHost(lab.switch, request.param, tmp_path), folder)
        built.ufw("allow", "22/tcp")
        built.ufw("--force", "enable")
        yield built


def test_ufw_and_sipfw_live_together(beside: Ufw) -> None:
    host = beside.host
    alone = beside.rules()
    assert beside.arriving() == []
    words = ("apply", "--backend", host.backend, "--policy", host.policy(POLICY), "--yes")
    applied = host.sipfw(*words)
    assert applied.returncode == 0, applied.stderr
    # What was shut stays shut, and ufw's own command opens it.
    assert beside.arriving() == []
    opening = "ufw allow proto udp from any to any port 5060"
    assert opening in applied.stderr
    beside.ufw(*opening.split()[1:])
    admitted = ["carrier INVITE", "carrier OPTIONS", "attacker INVITE"]
    assert beside.arriving() == admitted
    opened = beside.rules()
    assert "other rules" not in host.sipfw(*words).stderr
    assert beside.rules() == opened
    # A denial of ufw's own has the last word, and is named.
    beside.ufw("insert", "1", "deny", "from", "203.0.113.10")
    assert beside.arriving() == ["attacker INVITE"]
    assert "203.0.113.10" in host.sipfw("doctor").stdout
    beside.ufw("delete", "deny", "from", "203.0.113.10")
    beside.ufw("reload")
    assert beside.arriving() == admitted
    assert host.sipfw("verify", "--brief").returncode == 0
    host.must("remove")
    assert beside.arriving() == [*admitted, "attacker OPTIONS"]
    assert beside.rules() == opened
    beside.ufw("delete", *opening.split()[1:])
    assert beside.rules() == alone
