"""What callers ask for: requests, the checked plans made of them, callbacks between steps."""
