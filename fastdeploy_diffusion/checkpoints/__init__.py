"""Opening Stable Diffusion checkpoints and feeding their tensors to Paddle layers."""

from fastdeploy_diffusion.checkpoints.checkpoint import Checkpoint
from fastdeploy_diffusion.checkpoints.layer_weights import (
    build_layer,
    build_skeleton,
    check_weights,
    list_shapes,
    load_weights,
    set_parameters,
)
from fastdeploy_diffusion.checkpoints.opening import open_checkpoint, open_configured
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource

__all__ = [
    "Checkpoint",
    "TensorSource",
    "build_layer",
    "build_skeleton",
    "check_weights",
    "list_shapes",
    "load_weights",
    "open_checkpoint",
    "open_configured",
    "set_parameters",
]
