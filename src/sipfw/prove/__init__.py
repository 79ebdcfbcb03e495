"""Plays attacks and good calls against a ruleset, in network namespaces of their own."""
