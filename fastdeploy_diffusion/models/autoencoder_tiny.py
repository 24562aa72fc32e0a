"""The tiny autoencoder (Bohan, 2023: TAESD): convolutions and ReLU alone, without norms."""

from collections.abc import Iterator

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.families.networks.autoencoder_tiny import AutoencoderTinyConfig
from fastdeploy_diffusion.models.resnet import repeat_pixels

_LARGEST = 3.0


class AutoencoderTiny(nn.Layer):
    """Encoder and decoder between pictures in [-1, 1] and scaled latents.

    ``encoder.layers`` and ``decoder.layers`` are lists without levels, numbered as in diffusers.
    """

    def __init__(self, config: AutoencoderTinyConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = TinyEncoder(config)
        self.decoder = TinyDecoder(config)

    def encode(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [-1, 1] to latents (B, 4, H/8, W/8)."""
        latents: Tensor = self.encoder(images)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Map latents (B, 4, H/8, W/8) to images (B, 3, H, W), about in [-1, 1]."""
        images: Tensor = self.decoder(latents)
        return images


class TinyEncoder(nn.Layer):
    """Pictures to latents, which have no variance here."""

    def __init__(self, config: AutoencoderTinyConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_list_encoder_layers(config))

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, 4, H/8, W/8)."""
        latents: Tensor = self.layers((images + 1) / 2)
        return latents


class TinyDecoder(nn.Layer):
    """Latents to pictures."""

    def __init__(self, config: AutoencoderTinyConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_list_decoder_layers(config))

    def forward(self, latents: Tensor) -> Tensor:
        """Map (B, 4, H/8, W/8) to (B, 3, H, W)."""
        return 2 * self.layers(paddle.tanh(latents / _LARGEST) * _LARGEST) - 1


class TinyBlock(nn.Layer):
    """Three convolutions with ReLU between them, and a skip around them before the last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _convolve(width, width), nn.ReLU(), _convolve(width, width), nn.ReLU(),
            _convolve(width, width),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return F.relu(self.conv(features) + features)


class PixelRepeat(nn.Layer):
    """Nearest-neighbour upsampling by two."""

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        return repeat_pixels(features)


def _list_encoder_layers(config: AutoencoderTinyConfig) -> Iterator[nn.Layer]:
    width = config.encoder_block_out_channels[0]
    for level, blocks in enumerate(config.num_encoder_blocks):
        if level == 0:
            yield _convolve(config.in_channels, width)
        else:
            yield nn.Conv2D(width, width, 3, stride=2, padding=1, bias_attr=False)
        for _ in range(blocks):
            yield TinyBlock(width)
    yield _convolve(width, config.latent_channels)


def _list_decoder_layers(config: AutoencoderTinyConfig) -> Iterator[nn.Layer]:
    width, last = config.decoder_block_out_channels[0], len(config.num_decoder_blocks) - 1
    yield from (_convolve(config.latent_channels, width), nn.ReLU())
    for level, blocks in enumerate(config.num_decoder_blocks):
        for _ in range(blocks):
            yield TinyBlock(width)
        if level < last:
            yield from (PixelRepeat(), nn.Conv2D(width, width, 3, padding=1, bias_attr=False))
    yield _convolve(width, config.out_channels)


def _convolve(inputs: int, outputs: int) -> nn.Conv2D:
    return nn.Conv2D(inputs, outputs, 3, padding=1)
