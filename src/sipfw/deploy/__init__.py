"""Changing a live host: resolve, apply, remember, take back."""
