"""What the ``config.json`` of each network may say."""
