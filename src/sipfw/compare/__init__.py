"""What should be active against what is: pure data, one comparison, and the views of it."""
