"""What happens to one source right now, why, and what would change it."""
