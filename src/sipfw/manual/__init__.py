"""Bans and trust by hand."""
