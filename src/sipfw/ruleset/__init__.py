"""What a policy means, as frozen data: no syntax of any backend, no I/O."""
