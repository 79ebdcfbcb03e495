"""Lowered rules to text: restore files, the shell script, sysctl files."""
