"""The command line, ``fastdeploy-diffusion``."""

from fastdeploy_diffusion.cli.app import app, main

__all__ = ["app", "main"]
