"""The little world that the model in the box is trained on, and how it is trained."""
