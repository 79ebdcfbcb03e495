"""Finds the addresses behind a host name as SIP does (RFC 3263); what comes back is not judged."""
