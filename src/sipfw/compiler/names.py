"""Names of chains and sets, in one place: operators meet them in listings and counters."""

from __future__ import annotations

# Entry chains, one per hook.
PREROUTING = "SIPFW_PREROUTING"
OUTPUT = "SIPFW_OUTPUT"
CONNECTIONS = "SIPFW_CONNECTIONS"
INPUT = "SIPFW_INPUT"

# Layers.
SIGNALLING = "SIP_SIGNALLING"
ENCRYPTED = "SIP_ENCRYPTED"
TRUSTED = "SIP_TRUSTED"
LEARNED = "SIP_LEARNED"
BANNED = "SIP_BANNED"
SCANNER_BLOCK = "SIP_SCANNER_BLOCK"
METHODS = "SIP_METHODS"
AGGREGATE = "SIP_AGGREGATE"
RATE_LIMIT = "SIP_RATE_LIMIT"
RECENT = "SIP_RECENT"
BAN = "SIP_BAN"
CONNLIMIT = "SIP_CONNLIMIT"
REPLIES = "SIP_REPLIES"
REFUSED = "SIP_REFUSED"
SUCCESS = "SIP_SUCCESS"
LEARN = "SIP_LEARN"
FAILURE = "SIP_FAILURE"
HOST = "SIP_HOST"

# Sets of what the policy says.
SET_TRUSTED = "trusted"
SET_TRUSTED_UDP = "trusted-udp"
SET_TRUSTED_TCP = "trusted-tcp"
SET_TRUSTED_TLS = "trusted-tls"
SET_TRUSTED_PORTS = "trusted-ports"
SET_TRUSTED_TLS_PORTS = "trusted-tls-ports"
SET_ADMIN = "admin"
SET_MEDIA = "media"
TIER_SET_PREFIX = "tier-"

# Sets that the packet path fills.
SET_LEARNED = "learned"
SET_PENDING = "pending"
SET_FAILURES = "failures"
SET_BANNED = "banned"

LIST_RECENT = "recent"
