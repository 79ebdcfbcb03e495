"""Whether other rules of the host take away what the policy gives: a simple and honest reader."""
