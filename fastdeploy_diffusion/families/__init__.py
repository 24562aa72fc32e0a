"""What is known of the families of models without their networks: no Paddle here."""
