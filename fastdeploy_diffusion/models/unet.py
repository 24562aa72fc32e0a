"""The UNet of Stable Diffusion 1.x, 2.x (Rombach et al., 2022) and XL (Podell et al., 2023)."""

from collections.abc import Sequence

from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.families.networks.ip_adapter import IMAGE_KEYS, IMAGE_VALUES
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.attention import Attention, Context
from fastdeploy_diffusion.models.stages import LayerStage
from fastdeploy_diffusion.models.unet_blocks import BlockSpec, UpBlock
from fastdeploy_diffusion.models.unet_encoder import UNetEncoder, list_features
from fastdeploy_diffusion.runtime.program import RESIDUAL, TensorSpec


class UNet2DConditionModel(UNetEncoder):
    """Predicts noise (or velocity, or the sample) from noisy latents, a timestep and a text."""

    config: UNet2DConditionConfig

    def __init__(self, config: UNet2DConditionConfig) -> None:
        super().__init__(config)
        channels = config.block_out_channels[0]
        self.up_blocks = _build_up_blocks(config, self.describe_blocks())
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, channels, epsilon=config.norm_eps)
        self.conv_out = nn.Conv2D(channels, config.out_channels, 3, padding=1)
        if config.ip_adapters:
            _share_images(self, config)

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, *others: Tensor
    ) -> Tensor:
        """Predict for a batch.

        Args:
            sample: Noisy latents, (B, in_channels, H, W) float32.
            timestep: (B,) float32.
            encoder_hidden_states: Text conditioning, (B, T, cross_attention_dim) float32.
            *others: Of SDXL, the pooled text, (B, P) float32, and original size, crop and target
                size, (B, 6) float32. Then, for each of ``config.ip_adapters``, the keys and the
                values for all cross-attentions, both (B, T, width) float32. Then, of ControlNets,
                none or all residuals: what is added to each of ``config.skips``, in their shapes,
                and to the middle's result; float32.

        Returns:
            The prediction, (B, out_channels, H, W) float32.
        """
        end = 2 if self.config.addition_embed_type else 0
        time, context = self.embed(timestep, encoder_hidden_states, *others[:end])
        return self.denoise(sample, time, context, *others[end:])

    def list_stages(
        self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> list[LayerStage]:
        """Declare the stages: a prologue, which takes timestep and text alone, and the rest."""
        prologue = self.describe_prologue(inputs)
        images = [spec for spec in inputs if spec.name.startswith((IMAGE_KEYS, IMAGE_VALUES))]
        residuals = [spec for spec in inputs if spec.name.startswith(RESIDUAL)]
        return [
            prologue,
            LayerStage(
                "step",
                (inputs[0], *list_features(prologue, inputs[0]), *images, *residuals),
                tuple(outputs),
                compute=UNet2DConditionModel.denoise,
                parts=(
                    *("conv_in", "down_blocks", "mid_block", "up_blocks"),
                    *("conv_norm_out", "conv_out", "config"),
                ),
            ),
        ]

    def denoise(
        self, sample: Tensor, time: Tensor, encoder_hidden_states: Tensor, *others: Tensor
    ) -> Tensor:
        """Predict from the sample and the results of ``embed``.

        Args:
            *others: Keys and values for each IP-Adapter. Then what is added to every result on the
                way down, first to last, and to the middle's; or none.
        """
        end = 2 * self.config.ip_adapters
        images, residuals = others[:end], others[end:]
        context: Tensor | Context = encoder_hidden_states
        if images:
            context = Context(context, tuple(zip(images[::2], images[1::2], strict=True)))
        hidden, skips = UNetEncoder.encode(self, self.conv_in(sample), time, context)
        if residuals:
            hidden = hidden + residuals[-1]
            skips = [skip + each for skip, each in zip(skips, residuals[:-1], strict=True)]
        for block in self.up_blocks:
            hidden = block(hidden, skips, time, context)
        return self.conv_out(F.silu(self.conv_norm_out(hidden)))


def _share_images(unet: UNet2DConditionModel, config: UNet2DConditionConfig) -> None:
    """Tell each cross-attention which part of an image prompt's keys and values is its."""
    attentions = {path: part for path, part in unet.named_sublayers() if type(part) is Attention}
    start = 0
    for path, width in config.list_cross_attentions():
        attentions[path].image_share = slice(start, start + width)
        start += width


def _build_up_blocks(config: UNet2DConditionConfig, specs: list[BlockSpec]) -> nn.LayerList:
    blocks = nn.LayerList()
    arriving = config.block_out_channels[-1]
    skips = list(config.skips)
    for position, kind in enumerate(config.up_block_types):
        level = config.blocks - 1 - position
        inputs = []
        for _ in range(config.layers[level] + 1):
            inputs.append(arriving + skips.pop().channels)
            arriving = specs[level].channels
        blocks.append(
            UpBlock(specs[level], inputs, attend=kind.startswith("CrossAttn"), grow=level > 0)
        )
    return blocks
