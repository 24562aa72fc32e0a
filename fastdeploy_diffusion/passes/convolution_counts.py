"""How many 3×3 convolutions of which widths a model's config promises."""

from collections.abc import Callable, Iterator

from paddle import nn

from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.components import LatentDecoder
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.passes.expectations import TRANSFORMERS


def count_convolutions(network: nn.Layer, fits: Callable[[int, int], bool]) -> int | None:
    """Count the 3×3 convolutions that keep the resolution, by channels of input and output.

    The first and the last of a network are left out; ``None`` for a network of another kind.
    """
    if isinstance(network, UNet2DConditionModel):
        widths = _list_unet_convolutions(network.config)
    elif isinstance(network, LatentDecoder):
        widths = _list_decoder_convolutions(network.config)
    elif isinstance(network, TRANSFORMERS):
        return 0
    else:
        return None
    return sum(fits(inputs, outputs) for inputs, outputs in widths)


def _list_unet_convolutions(config: UNet2DConditionConfig) -> Iterator[tuple[int, int]]:
    """Two of each residual block, and one after each doubling."""
    width = config.block_out_channels[0]
    skips = [width]
    for level, outputs in enumerate(config.block_out_channels):
        for _ in range(config.layers[level]):
            yield from ((width, outputs), (outputs, outputs))
            width = outputs
            skips.append(width)
        if level < config.blocks - 1:
            skips.append(width)
    yield from [(width, width)] * 4
    for level in reversed(range(config.blocks)):
        outputs = config.block_out_channels[level]
        for _ in range(config.layers[level] + 1):
            yield from ((width + skips.pop(), outputs), (outputs, outputs))
            width = outputs
        if level:
            yield (width, width)


def _list_decoder_convolutions(config: AutoencoderKLConfig) -> Iterator[tuple[int, int]]:
    width = config.block_out_channels[-1]
    yield from [(width, width)] * 4
    for level in reversed(range(len(config.block_out_channels))):
        outputs = config.block_out_channels[level]
        for _ in range(config.layers_per_block + 1):
            yield from ((width, outputs), (outputs, outputs))
            width = outputs
        if level:
            yield (width, width)
