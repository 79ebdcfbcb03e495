"""Looking at the live firewall: counters, sources, one source's fate, a report. Changes no rule."""
