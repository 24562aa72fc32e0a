"""What networks hold besides their weights while they run, counted from their configs.

Each function finds the moment at which most numbers are alive, as the layer is written: an engine
that fuses operators holds fewer, one that copies holds more. `memory_need` knows by how much.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Activations:
    """Numbers that are alive at once in one run.

    Args:
        features: In feature maps and tokens, where they are most.
        scores: In the largest attention matrix, which engines with a fused attention never hold.
    """

    features: int = 0
    scores: int = 0


CountActivations = Callable[[Shapes], Activations]


def count_nothing(shapes: Shapes) -> Activations:
    """Of networks whose activations are small beside their weights: text encoders."""
    return Activations()


def count_unet(config: UNet2DConditionConfig, shapes: Shapes) -> Activations:
    """Of a UNet, for the shapes of its inputs."""
    rows, _, height, width = shapes["sample"]
    tokens = shapes["encoder_hidden_states"][1]
    channels, up_blocks = config.block_out_channels, config.up_block_types[::-1]
    skips = features = scores = 0
    for level, own in enumerate(channels):
        pixels = height * width
        attends = level == len(channels) - 1 or up_blocks[level].startswith("CrossAttn")
        # What the way up still wants of this level and those above it: the first convolution, or
        # the downsampler before, and each residual block.
        skips += pixels * ((channels[level - 1] if level else own) + config.layers[level] * own)
        joined = channels[min(level + 1, len(channels) - 1)] + own
        moments = [2 * joined + own]  # joined, normalised, convolved
        if attends:
            # A skip, and half of GEGLU's hidden layer: engines that split it hold all of it.
            moments.append(6 * own)
            heads = config.heads[level]
            scores = max(scores, rows * heads * pixels * max(pixels, tokens))
        features = max(features, skips + pixels * max(moments))
        height, width = -(-height // 2), -(-width // 2)
    return Activations(rows * features, scores)


def count_decoder(config: AutoencoderKLConfig, shapes: Shapes) -> Activations:
    """Of an autoencoder's decoder, for the shapes of its inputs."""
    rows, _, height, width = shapes["latents"]
    pixels = height * width
    scores = pixels**2 if config.mid_block_add_attention else 0
    features = inputs = 0
    for own in config.block_out_channels[::-1]:
        inputs = inputs or own
        # A residual block: input, normalised, convolved. Then the upsampler: before and after its
        # convolution, at four times the pixels.
        features = max(features, pixels * (2 * inputs + own))
        if pixels < height * width * config.downscale**2:
            features = max(features, 4 * pixels * 2 * own)
            pixels *= 4
        inputs = own
    return Activations(rows * features, rows * scores)


def count_flux(config: FluxTransformer2DConfig, shapes: Shapes) -> Activations:
    """Of Flux's transformer, for the shapes of its inputs."""
    rows, image_tokens, _ = shapes["hidden_states"]
    tokens = image_tokens + shapes["encoder_hidden_states"][1]
    # A single block: the skip, and both branches joined (5).
    features = tokens * config.inner_dim * 6
    return Activations(rows * features, rows * config.num_attention_heads * tokens**2)
