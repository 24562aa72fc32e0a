"""Configs of the published models."""
