"""From a Paddle layer to a program on disk that engines can load."""
