"""Figures for a monitoring system: what a look found, as text, in a file, or over HTTP."""
