"""Ruleset to the rules of one backend, still as data: no text, no kernel."""
