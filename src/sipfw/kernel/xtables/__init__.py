"""iptables of both flavours, and ipset."""
