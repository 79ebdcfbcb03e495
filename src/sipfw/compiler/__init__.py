"""Policy to Ruleset: one file per defence layer, in packet order. Knows no backend."""
