"""Who is being dropped just now."""
