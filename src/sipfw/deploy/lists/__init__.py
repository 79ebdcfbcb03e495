"""Block lists of others in a firewall: copies, sets, and who is exempt from them."""
