"""Looking at the live firewall: counters, health, one source's fate, a report. Changes no rule."""
