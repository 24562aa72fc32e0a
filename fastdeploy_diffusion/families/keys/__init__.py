"""Names of stored tensors, as tables of patterns, where they differ from the canonical ones."""
