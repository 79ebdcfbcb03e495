"""The way of a packet through all that this host's rules make of it, whoever wrote them."""
