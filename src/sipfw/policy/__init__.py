"""What the operator writes: models, loading, merging, and messages about mistakes."""
