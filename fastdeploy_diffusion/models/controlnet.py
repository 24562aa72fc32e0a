"""ControlNet (Zhang, Rao and Agrawala, 2023, https://arxiv.org/abs/2302.05543)."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.families.networks.controlnet import PICTURE, ControlNetConfig
from fastdeploy_diffusion.models.stages import LayerStage, free_rows
from fastdeploy_diffusion.models.unet_encoder import TEXT, UNetEncoder, list_features
from fastdeploy_diffusion.runtime.program import TensorSpec


class ControlNetConditioningEmbedding(nn.Layer):
    """Brings a control picture to the latents' resolution and the first block's channels."""

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__()
        widths = config.conditioning_embedding_out_channels
        self.conv_in = nn.Conv2D(3, widths[0], 3, padding=1)
        self.blocks = nn.LayerList()
        for width, wider in pairwise(widths):
            self.blocks.append(nn.Conv2D(width, width, 3, padding=1))
            self.blocks.append(nn.Conv2D(width, wider, 3, stride=2, padding=1))
        self.conv_out = nn.Conv2D(widths[-1], config.block_out_channels[0], 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        """Map (B, 3, 8H, 8W) to (B, C, H, W)."""
        hidden = F.silu(self.conv_in(picture))
        for block in self.blocks:
            hidden = F.silu(block(hidden))
        return self.conv_out(hidden)


class ControlNetModel(UNetEncoder):
    """Computes from a control picture what is added to a UNet's way down and its middle.

    Attributes:
        argument_names: The inputs that the config asks for.
    """

    config: ControlNetConfig

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__(config)
        self.controlnet_cond_embedding = ControlNetConditioningEmbedding(config)
        self.controlnet_down_blocks = nn.LayerList(
            [nn.Conv2D(skip.channels, skip.channels, 1) for skip in config.skips]
        )
        last = config.block_out_channels[-1]
        self.controlnet_mid_block = nn.Conv2D(last, last, 1)
        text = (TEXT,) if config.reads_text else ()
        added = ("text_embeds", "time_ids") if config.addition_embed_type else ()
        self.argument_names = ("sample", "timestep", *text, *added, PICTURE)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Compute the residuals for a batch.

        Args:
            *inputs: Those of ``argument_names``, in this order

                * ``sample``: noisy latents, (B, in_channels, H, W) float32;
                * ``timestep``: (B,) float32;
                * ``encoder_hidden_states``: (B, T, cross_attention_dim) float32, if a block reads
                  the text;
                * ``text_embeds`` and ``time_ids``: of SDXL, (B, P) and (B, 6) float32;
                * ``controlnet_cond``: the control picture, (B, 3, 8H, 8W) float32 in [0, 1].

        Returns:
            A tensor for each of ``config.skips``, in their shapes, and one for the middle; with
            ``global_pool_conditions``, their means over all pixels, (B, C, 1, 1).
        """
        given = dict(zip(self.argument_names, inputs, strict=True))
        sample, picture = given.pop("sample"), given.pop(PICTURE)
        time, context = self.embed(**given)
        return self.descend(sample, time, self.embed_picture(picture), context)

    def list_stages(
        self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> list[LayerStage]:
        """Declare the stages: a prologue, which takes all but the sample, and the rest."""
        sample, *_, picture = inputs
        prologue = self.describe_prologue(inputs)
        _, _, *sizes = sample.shape
        shape = (picture.shape[0], self.config.block_out_channels[0], *sizes)
        features = free_rows(TensorSpec("picture_features", shape, "float32"))

        compute = prologue.compute

        def embed(network: Any, picture: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
            embedded = ControlNetModel.embed_picture(network, picture)
            time, *context = compute(network, *others)
            return time, embedded, *context

        time, *context = prologue.outputs
        prologue = replace(
            prologue,
            inputs=(free_rows(picture), *prologue.inputs),
            outputs=(time, features, *context),
            compute=embed,
            parts=(*prologue.parts, "controlnet_cond_embedding", "config"),
        )
        return [
            prologue,
            LayerStage(
                "step",
                (sample, *list_features(prologue, sample)),
                tuple(outputs),
                compute=ControlNetModel.descend,
                parts=(
                    *("conv_in", "down_blocks", "mid_block", "config"),
                    *("controlnet_down_blocks", "controlnet_mid_block"),
                ),
            ),
        ]

    def embed_picture(self, picture: Tensor) -> Tensor:
        """Map the control picture to (B, C, H, W)."""
        if self.config.controlnet_conditioning_channel_order == "bgr":
            picture = paddle.concat(picture.split(3, axis=1)[::-1], axis=1)
        embedded: Tensor = self.controlnet_cond_embedding(picture)
        return embedded

    def descend(
        self, sample: Tensor, time: Tensor, picture: Tensor, context: Any = None
    ) -> list[Tensor]:
        """Compute the residuals from the sample and what the prologue makes of the rest."""
        hidden, skips = UNetEncoder.encode(self, self.conv_in(sample) + picture, time, context)
        residuals = [
            zero(skip) for zero, skip in zip(self.controlnet_down_blocks, skips, strict=True)
        ]
        residuals.append(self.controlnet_mid_block(hidden))
        if self.config.global_pool_conditions:
            return [each.mean(axis=[2, 3], keepdim=True) for each in residuals]
        return residuals
