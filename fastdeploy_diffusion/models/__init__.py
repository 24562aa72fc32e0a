"""The networks in Paddle: one definition of each, and the reference for every check."""

import sys

# Before any module of this room imports Paddle, so that the import is quiet.
from fastdeploy_diffusion.paddle_runtime import paddle

# Nothing here branches on a tensor's value, so tracing need not rewrite the source first, which
# takes longer than the trace itself.
paddle.jit.ignore_module([sys.modules[__name__]])
