"""The families of models: records without networks, so that no Paddle is imported here."""
