"""What is built ahead: graphs, proofs, bundles. Paddle lives here; what runs does not import it."""
