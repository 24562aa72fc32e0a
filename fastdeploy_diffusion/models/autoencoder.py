"""The autoencoder between pictures and latents (Kingma & Welling, 2014; Rombach et al., 2022)."""

from collections.abc import Sequence

from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.models.attention import Attention
from fastdeploy_diffusion.models.decoder_stages import list_decoder_stages
from fastdeploy_diffusion.models.encoder_stages import list_encoder_stages
from fastdeploy_diffusion.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from fastdeploy_diffusion.models.sizes import read_sizes
from fastdeploy_diffusion.models.tile_stages import TileStage
from fastdeploy_diffusion.runtime.program import TensorSpec

_EPS = 1e-6


class AutoencoderKL(nn.Layer):
    """Encoder and decoder between pictures in [-1, 1] and latents."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        self.config = config
        latent = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2D(2 * latent, 2 * latent, 1) if config.use_quant_conv else None
        self.post_quant_conv = nn.Conv2D(latent, latent, 1) if config.use_post_quant_conv else None

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, 3, H, W) in [-1, 1] to mean and log variance, each (B, 4, H/8, W/8)."""
        moments = self.encoder(images)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean, log_variance = moments.chunk(2, axis=1)
        return mean, log_variance.clip(-30.0, 20.0)

    def list_stages(
        self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> list[TileStage]:
        """Declare the stages of the half that takes the inputs: ``images`` or ``latents``."""
        takes_images = inputs[0].name == "images"
        declare = list_encoder_stages if takes_images else list_decoder_stages
        return declare(self, inputs, outputs)

    def decode(self, latents: Tensor) -> Tensor:
        """Map unscaled latents (B, 4, H/8, W/8) to images (B, 3, H, W), about in [-1, 1]."""
        if self.post_quant_conv is not None:
            latents = self.post_quant_conv(latents)
        return self.decoder(latents)


class Encoder(nn.Layer):
    """Pictures to the moments of the latents."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        channels, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2D(config.in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.LayerList()
        inputs = channels[0]
        for index, outputs in enumerate(channels):
            is_last = index == len(channels) - 1
            self.down_blocks.append(
                DownEncoderBlock2D(inputs, outputs, config.layers_per_block, groups, not is_last)
            )
            inputs = outputs
        self.mid_block = MidBlock2D(channels[-1], groups, config.mid_block_add_attention)
        self.conv_norm_out = nn.GroupNorm(groups, channels[-1], epsilon=_EPS)
        self.conv_out = nn.Conv2D(channels[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, 8, H/8, W/8)."""
        hidden = self.conv_in(images)
        for block in self.down_blocks:
            hidden = block(hidden)
        hidden = self.mid_block(hidden)
        return self.conv_out(F.silu(self.conv_norm_out(hidden)))


class Decoder(nn.Layer):
    """Latents to pictures."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        channels, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2D(config.latent_channels, channels[0], 3, padding=1)
        self.mid_block = MidBlock2D(channels[0], groups, config.mid_block_add_attention)
        self.up_blocks = nn.LayerList()
        inputs = channels[0]
        for index, outputs in enumerate(channels):
            is_last = index == len(channels) - 1
            self.up_blocks.append(
                UpDecoderBlock2D(inputs, outputs, config.layers_per_block + 1, groups, not is_last)
            )
            inputs = outputs
        self.conv_norm_out = nn.GroupNorm(groups, channels[-1], epsilon=_EPS)
        self.conv_out = nn.Conv2D(channels[-1], config.out_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Map (B, 4, H/8, W/8) to (B, 3, H, W)."""
        hidden = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            hidden = block(hidden)
        return self.conv_out(F.silu(self.conv_norm_out(hidden)))


class DownEncoderBlock2D(nn.Layer):
    """Residual blocks and, but for the last block, a halving of the resolution."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, shrink: bool) -> None:
        super().__init__()
        self.resnets = _stack_resnets(inputs, outputs, layers, groups)
        self.downsamplers = nn.LayerList([Downsample2D(outputs, asymmetric=True)] if shrink else [])

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H/2, W/2)."""
        for resnet in self.resnets:
            hidden = resnet(hidden)
        for downsampler in self.downsamplers:
            hidden = downsampler(hidden)
        return hidden


class UpDecoderBlock2D(nn.Layer):
    """Residual blocks and, but for the last block, a doubling of the resolution."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, grow: bool) -> None:
        super().__init__()
        self.resnets = _stack_resnets(inputs, outputs, layers, groups)
        self.upsamplers = nn.LayerList([Upsample2D(outputs)] if grow else [])

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2H, 2W)."""
        for resnet in self.resnets:
            hidden = resnet(hidden)
        for upsampler in self.upsamplers:
            hidden = upsampler(hidden)
        return hidden


class MidBlock2D(nn.Layer):
    """Two residual blocks with single-head attention over all pixels between them."""

    def __init__(self, channels: int, groups: int, attend: bool) -> None:
        super().__init__()
        self.resnets = _stack_resnets(channels, channels, 2, groups)
        self.attentions = nn.LayerList([SpatialAttention(channels, groups)] if attend else [])

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        hidden = self.resnets[0](hidden)
        for attention in self.attentions:
            hidden = attention(hidden)
        return self.resnets[1](hidden)


class SpatialAttention(Attention):
    """Single-head self-attention over pixels, after a GroupNorm and with a skip.

    An `Attention` and not a layer around one, because checkpoints keep all its weights together.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, heads=1, qkv_bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, epsilon=_EPS)

    def forward(self, features: Tensor, context: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        _, channels, height, width = read_sizes(features)
        tokens = self.group_norm(features).flatten(2).transpose([0, 2, 1])  # (B, H·W, C)
        attended = super().forward(tokens, context).transpose([0, 2, 1])
        return features + attended.reshape([0, channels, height, width])


def _stack_resnets(inputs: int, outputs: int, layers: int, groups: int) -> nn.LayerList:
    return nn.LayerList(
        [
            ResnetBlock2D(inputs if index == 0 else outputs, outputs, groups, _EPS)
            for index in range(layers)
        ]
    )
