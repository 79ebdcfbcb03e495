"""Examples of every command, for the end of its help page."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "init": (
        "sipfw init",
        "sipfw init --profile retail --switch asterisk --yes",
        "sipfw init -o - | less",
    ),
    "check": (
        "sipfw check -f policy.yaml",
        "sipfw check --explain | grep limits",
        "sipfw check --host",
    ),
    "profiles": ("sipfw profiles", "sipfw profiles retail", "sipfw profiles asterisk"),
    "schema": (
        "sipfw schema > sipfw.schema.json",
        "sipfw schema | python3 -m json.tool | less",
    ),
    "render": (
        "sipfw render > firewall.sh",
        "sipfw render --format nft | less",
        "sipfw render --format restore --family ip6",
    ),
    "test": (
        "sipfw test cases.yaml",
        "sipfw test -f new.yaml cases.yaml --junit > results.xml",
    ),
    "prove": (
        "sipfw prove",
        "sipfw prove -f new.yaml --backend all",
        "sipfw prove --profile retail --scenario phone --scenario options-scan --json",
    ),
    "diff": ("sipfw diff", "sipfw diff -f new.yaml", "sipfw diff --json"),
    "apply": (
        "sipfw apply --dry-run",
        "sipfw apply --confirm 60",
        "sipfw apply -f new.yaml --yes",
    ),
    "panic": ("sipfw panic on --for 30m", "sipfw panic on --yes", "sipfw panic off"),
    "confirm": ("sipfw confirm", "sipfw confirm --force"),
    "rollback": ("sipfw rollback", "sipfw rollback 12", "sipfw rollback --force"),
    "history": ("sipfw history", "sipfw history --diff 12", "sipfw history --keep 12"),
    "refresh": ("sipfw refresh", "sipfw refresh --feeds-now", "sipfw refresh --accept droplist"),
    "install-service": (
        "sipfw install-service",
        "sipfw install-service --no-enable",
        "sipfw install-service --format sysv > /etc/init.d/sipfw",
    ),
    "keep": ("sipfw keep", "sipfw keep || sipfw verify"),
    "saved": (
        "sipfw saved",
        "sipfw saved --make-sets",
        "sipfw saved --clean /etc/iptables/rules.v4",
    ),
    "restore": ("sipfw restore", "sipfw restore && sipfw verify --brief"),
    "remove": ("sipfw remove", "sipfw remove --purge"),
    "verify": (
        "sipfw verify --hits",
        "sipfw verify --watch --layer rate-limit",
        "sipfw verify --brief --since 10m",
    ),
    "top": ("sipfw top", "sipfw top --watch", "sipfw top --layer banned --json"),
    "events": (
        "sipfw events --since 12h",
        "sipfw events 198.51.100.7",
        "sipfw events 198.51.100.0/24 --since 7d --json",
    ),
    "why": (
        "sipfw why 203.0.113.10",
        "sipfw why 203.0.113.10 --port 5060 --method REGISTER",
        "sipfw why 198.51.100.7 --offline -f new.yaml",
    ),
    "doctor": ("sipfw doctor", "sipfw doctor --json"),
    "report": (
        "sipfw report --html sipfw.html",
        "sipfw report --html sipfw.html --since 24h --names",
    ),
    "support": (
        "sipfw support",
        "sipfw support --anonymize -o ticket.tar.gz",
    ),
    "metrics": (
        "sipfw metrics | grep sipfw_up",
        "sipfw metrics --listen 192.0.2.10:8961",
        "sipfw metrics --textfile /var/lib/node_exporter/sipfw.prom",
    ),
    "bans": ("sipfw bans", "sipfw bans --export bans.txt", "sipfw bans --json"),
    "ban": (
        "sipfw ban 198.51.100.7",
        "sipfw ban 198.51.100.64/28 2001:db8:66::1 --for 2h --reason scan",
        "sipfw ban --import bans.txt",
    ),
    "unban": ("sipfw unban 198.51.100.7", "sipfw unban --all"),
    "trust": (
        "sipfw trust 203.0.113.10 --for 2h --reason test",
        "sipfw trust carrier-b --for 2h",
        "sipfw trust --end 203.0.113.10",
    ),
    "peer": (
        "sipfw peer add carrier-b 203.0.113.7 sip.carrier-b.example",
        "sipfw peer list",
        "sipfw peer test carrier-b 203.0.113.7",
    ),
    "feeds": ("sipfw feeds", "sipfw feeds --json"),
}

# Of the command itself: from nothing to a firewall that is looked at.
FIRST_STEPS = ("sipfw init", "sipfw check", "sipfw apply --confirm 60", "sipfw verify")


def epilog(examples: tuple[str, ...]) -> str:
    """Return the end of a help page: behind a backspace click leaves lines as they are."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in examples)])
