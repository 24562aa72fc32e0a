"""Compares the layers that a config makes with those that weights are for."""

from pathlib import Path

from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource
from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.families.networks.network_config import NetworkConfig


def check_stacks(path: Path, config: NetworkConfig, source: TensorSource) -> None:
    """Refuse a config that makes more or fewer layers than there are, before any is made.

    Args:
        path: For the message.

    Raises:
        CheckpointError: Names the key, and both numbers.
    """
    found = source.count_layers()
    for key, name, count in config.stacks:
        if found.get(name, 0) != count:
            raise CheckpointError(
                f"{path}: {key} makes {count} layers of {name}, and the weights have "
                f"{found.get(name, 0)}",
                fix="the config must be that of these weights: take the files of one model",
            )
