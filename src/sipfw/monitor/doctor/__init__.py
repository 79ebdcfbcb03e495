"""What is wrong with this host for SIP: looks only, and names the command that mends it."""
