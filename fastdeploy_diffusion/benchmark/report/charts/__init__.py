"""Charts: each function takes rows of one piece of work and gives a `Figure`."""
