"""Rewrites of Paddle layers, one a file."""

# Before any module of this folder imports Paddle, so that the import is quiet.
import fastdeploy_diffusion.paddle_runtime  # noqa: F401
