"""The configs of networks: the keys of each ``config.json``."""
