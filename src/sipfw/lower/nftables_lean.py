"""What an nftables rule may leave out because another rule says it anyway.

A counter costs 12 to 15 ns for each packet, reading the protocol 14, entering a chain 15
(docs/performance.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.lower.nftables_match import words_at_start
from sipfw.ruleset.match import Direction, Interface, L4Proto, Ports, Protocol, StartsWithOneOf
from sipfw.ruleset.rule import Done, Goto, Jump

if TYPE_CHECKING:
    from sipfw.ruleset.model import Chain
    from sipfw.ruleset.rule import Rule

# In the condition of a hook.
_MOST_PORTS = 32


def leads_on(rule: Rule) -> bool:
    """Tell whether nobody misses the rule's counter: it takes all that is left, or all requests."""
    return isinstance(rule.action, Goto | Jump) and all(
        isinstance(match, StartsWithOneOf) for match in rule.matches
    )


def without_protocol(chain: Chain, rule: Rule) -> list[str] | None:
    """Return the comparison of the first word without a test for UDP, None where it is needed.

    It is not where the rule leads on, all rules but the last one are about UDP, and the last takes
    the rest. In TCP these bytes are the acknowledgment: a segment in 300 million is judged as a
    datagram then, and any that somebody forges, so chains of datagrams say UDP where they write
    what is kept by endpoint.
    """
    match rule.matches:
        case (StartsWithOneOf(proto=L4Proto.UDP) as words,) if leads_on(rule):
            behind = chain.rules[chain.rules.index(rule) + 1 :]
            between = all(_only_udp(each) for each in behind[:-1])
            if behind and between and not behind[-1].matches:
                return [words_at_start(words)]
    return None


def _only_udp(rule: Rule) -> bool:
    match rule.matches:
        case (Protocol(proto=L4Proto.UDP), *_) | (StartsWithOneOf(proto=L4Proto.UDP), *_):
            return True
    return False


def port_match(chain: Chain) -> str:
    """Return the condition on destination ports that every packet meets which the chain concerns.

    Empty where there is none. RTP then never enters a chain that is there for SIP. What goes over
    loopback to other ports is no longer counted, nor was it ever judged.
    """
    ports: set[int] = set()
    for rule in chain.rules:
        if isinstance(rule.action, Done) and rule.matches == (Interface("lo"),):
            continue
        match rule.matches:
            case (Ports(ranges=ranges, direction=Direction.DESTINATION), *_):
                # A range would make the set a tree, and whole media ranges a long list.
                for each in ranges:
                    ports |= set(range(each.first, min(each.last, each.first + _MOST_PORTS) + 1))
            case _:
                return ""
    if not 1 <= len(ports) <= _MOST_PORTS:
        return ""
    listed = ", ".join(map(str, sorted(ports)))
    return f"th dport {listed if len(ports) == 1 else f'{{ {listed} }}'} "
