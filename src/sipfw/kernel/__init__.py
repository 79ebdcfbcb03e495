"""The packet filter: what a backend is, which there are, and what each reads and writes."""
