"""Rule files that other programs load at boot, and what of sipfw's own rules they hold."""
