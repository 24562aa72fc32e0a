"""The config of Flux's transformers."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from fastdeploy_diffusion.errors import UnsupportedModelError
from fastdeploy_diffusion.families.keys.flux import FLUX_RULES
from fastdeploy_diffusion.families.networks.activations import Activations, Shapes
from fastdeploy_diffusion.families.networks.census import Census, Site
from fastdeploy_diffusion.families.networks.network_config import (
    BlockCount,
    HeadCount,
    NetworkConfig,
    Stack,
    Width,
)
from fastdeploy_diffusion.families.networks.network_kind import NetworkKind

_ONLY: dict[str, tuple[Any, ...]] = {"patch_size": (1,)}


@dataclass(frozen=True)
class FluxTransformer2DConfig(NetworkConfig):
    """The keys of a Flux transformer's ``config.json`` that decide what it computes."""

    only = _ONLY

    in_channels: Width = 64
    out_channels: Width | None = None
    num_layers: BlockCount = 19
    num_single_layers: BlockCount = 38
    attention_head_dim: Annotated[int, Field(ge=1, le=1024)] = 128
    num_attention_heads: HeadCount = 24
    joint_attention_dim: Width = 4096
    pooled_projection_dim: Width = 768
    guidance_embeds: bool = False
    axes_dims_rope: tuple[Width, Width, Width] = (16, 56, 56)

    def __post_init__(self) -> None:
        axes = self.axes_dims_rope
        if any(dim % 2 for dim in axes):
            raise UnsupportedModelError(
                f"FluxTransformer2DConfig: axes_dims_rope = {list(axes)} is not implemented",
                allowed="three even numbers",
            )
        if sum(axes) != self.attention_head_dim:
            raise UnsupportedModelError(
                f"FluxTransformer2DConfig: axes_dims_rope = {list(axes)} makes {sum(axes)}, and "
                f"attention_head_dim is {self.attention_head_dim}",
                allowed="axes that together are as wide as a head",
            )

    @property
    def stacks(self) -> list[Stack]:
        """All stacks of layers."""
        return [
            Stack("num_layers", "transformer_blocks", self.num_layers),
            Stack("num_single_layers", "single_transformer_blocks", self.num_single_layers),
        ]

    @property
    def inner_dim(self) -> int:
        """Width of the tokens."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def outputs(self) -> int:
        """Channels of the prediction."""
        return self.in_channels if self.out_channels is None else self.out_channels

    def count_activations(self, shapes: Shapes) -> Activations:
        """Count the numbers alive at once in a run, for shapes of its inputs."""
        rows, image_tokens, _ = shapes["hidden_states"]
        tokens = image_tokens + shapes["encoder_hidden_states"][1]
        # A single block: the skip, and both branches joined (5).
        features = tokens * self.inner_dim * 6
        return Activations(rows * features, rows * self.num_attention_heads * tokens**2)

    def census(self) -> Census:
        """Count the places that passes rewrite; double blocks have two streams of tokens."""
        double, single = self.num_layers, self.num_single_layers
        return {
            Site.SELF_ATTENTION: double + single,
            Site.ROTARY_ATTENTION: double + single,
            Site.ROTATION: 2 * (double + single),
            Site.QKV: 2 * double,
            Site.QKV_MLP: single,
            Site.TANH_GELU: 2 * double + single,
            Site.RMS_NORM: 4 * double + 2 * single,  # of queries and keys
            # Two for each stream of a double block, and the one before the output.
            Site.ADAPTIVE_NORM: 4 * double + single + 1,
            # The vectors of the blocks' norms and of the last one, and the prompt.
            Site.INVARIANT: 2 * double + single + 2,
            # Of timestep, pooled text and guidance; and once for all modulations.
            Site.SILU: 3 + int(self.guidance_embeds),
        }


# Its weights are also published with their original names.
FLUX_TRANSFORMER = NetworkKind(
    "FluxTransformer2DModel", "diffusers", "denoiser", FluxTransformer2DConfig, "flux", FLUX_RULES
)
