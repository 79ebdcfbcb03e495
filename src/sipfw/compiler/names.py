"""Names of chains and sets, in one place: operators meet them in listings and counters."""

from __future__ import annotations

# Entry chains, one per hook and table.
PREROUTING = "SIPFW_PREROUTING"
OUTPUT = "SIPFW_OUTPUT"
INPUT = "SIPFW_INPUT"
CONNECT = "SIPFW_CONNECT"

# Layers.
TRUSTED = "SIP_TRUSTED"
TIERS = "SIP_TIERS"
ENCRYPTED = "SIP_ENCRYPTED"
BLOCKED = "SIP_BLOCKED"
LEARNED = "SIP_LEARNED"
BANNED = "SIP_BANNED"
GUESSES = "SIP_GUESSES"
SCANNER_BLOCK = "SIP_SCANNER_BLOCK"
SOURCES = "SIP_SOURCES"
SIGNATURES = "SIP_SIGNATURES"
RATE_LIMIT = "SIP_RATE_LIMIT"
RECENT = "SIP_RECENT"
BAN = "SIP_BAN"
SWITCH = "SIP_SWITCH"
REPLIES = "SIP_REPLIES"
REFUSED = "SIP_REFUSED"
SUCCESS = "SIP_SUCCESS"
LEARN = "SIP_LEARN"
FAILURE = "SIP_FAILURE"
CONNECTIONS = "SIP_CONNECTIONS"
HOST = "SIP_HOST"

# The chain of one logged rule; the rest of its name is a digest of the rule's id.
LOG_PREFIX = "SIP_LOG_"

# Sets of what the policy says.
SET_TRUSTED = "trusted"
SET_TRUSTED_TIERS = "trusted-tiers"
SET_TRUSTED_UDP = "trusted-udp"
SET_TRUSTED_TCP = "trusted-tcp"
SET_TRUSTED_TLS = "trusted-tls"
SET_TRUSTED_PORTS = "trusted-ports"
SET_TRUSTED_TLS_PORTS = "trusted-tls-ports"
SET_ADMIN = "admin"
SET_MEDIA = "media"
TIER_SET_PREFIX = "tier-"
FEED_SET_PREFIX = "feed-"

# Sets that the packet path fills.
SET_LEARNED = "learned"
SET_PENDING = "pending"
SET_FAILURES = "failures"
SET_BANNED = "banned"

# Sets that operators fill by hand.
SET_BLOCKED = "blocked"
SET_GUESTS = "guests"

LIST_RECENT = "recent"
