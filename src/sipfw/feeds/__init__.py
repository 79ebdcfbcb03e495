"""Block lists of others: fetched, read as hostile input, kept. Knows no kernel."""
