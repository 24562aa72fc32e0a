"""One pipeline a family of models."""
