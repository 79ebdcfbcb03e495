"""What runs without an operator: following names and lists, putting back what was taken away."""
