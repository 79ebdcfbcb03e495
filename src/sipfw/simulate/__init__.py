"""What a ruleset does with one packet, and why: a walk without a kernel."""
