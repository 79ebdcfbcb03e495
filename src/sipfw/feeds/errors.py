"""What can be wrong with a source of a block list."""

from __future__ import annotations


class FeedError(Exception):
    """The source gave no usable list; the text says why, and holds nothing of what it sent."""
