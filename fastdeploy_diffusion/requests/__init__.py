"""Requests of callers, the checked plans made of them, and callbacks between steps."""
