"""What host names mean now, what they meant, and how far an answer is believed."""
