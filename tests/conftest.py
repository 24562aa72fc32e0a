"""Paddle is imported in the library's quiet way, before any test module imports it."""

import fastdeploy_diffusion.paddle_runtime  # noqa: F401
