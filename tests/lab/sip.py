"""SIP messages for the lab: those of `sipfw prove`."""

from sipfw.prove.sip import (
    MEDIA_PORT,
    REASONS,
    Message,
    host_text,
    kind,
    parse,
    request,
    response,
    sdp,
)

__all__ = [
    "MEDIA_PORT",
    "REASONS",
    "Message",
    "host_text",
    "kind",
    "parse",
    "request",
    "response",
    "sdp",
]
