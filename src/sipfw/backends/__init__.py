"""Backends carry a lowered ruleset into the kernel and read back what is there."""
