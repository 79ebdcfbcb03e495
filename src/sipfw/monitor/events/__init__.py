"""Who was dropped or banned, kept for a month."""
