"""Builds graphs, proofs and bundles ahead. Paddle lives here; running code does not import it."""
