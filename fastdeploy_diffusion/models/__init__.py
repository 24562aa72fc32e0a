"""The networks in Paddle: one definition of each, and the reference for every check."""

# Before any module of this room imports Paddle, so that the import is quiet.
from fastdeploy_diffusion import paddle_runtime as _paddle_runtime  # noqa: F401
