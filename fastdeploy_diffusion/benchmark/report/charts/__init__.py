"""One chart a file; each takes rows of one piece of work and gives a `Figure`."""
