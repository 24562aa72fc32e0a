"""Hoists computations that do not depend on the latents out of the blocks, once a request.

In a UNet every residual block projects the embedded timestep, and every cross-attention projects
the prompt to keys and values. All time projections become one matrix product, and all keys and
values another.

In Flux's transformer every adaptive norm makes its vectors of the same conditioning, by the widest
of matrices: a quarter of the weights of FLUX.1, read for a single row. In the prologue all steps
are the rows of one product. The gains' one is in the bias there, so that no step adds it.

An engine gets two programs then: the prologue, and the step that takes its results.
"""

from collections.abc import Mapping
from types import MethodType
from typing import Any, ClassVar

from paddle import LazyGuard, Tensor, nn

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.models.attention import Attention
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.models.flux_blocks import GAIN, AdaptiveLayerNorm
from fastdeploy_diffusion.models.resnet import ResnetBlock2D
from fastdeploy_diffusion.models.unet_encoder import UNetEncoder
from fastdeploy_diffusion.passes.base import Derivation, LayerPass, MadeOf


class HoistInvariants(LayerPass):
    """Time projections, and keys and values of cross-attentions, of UNets and ControlNets.

    Of Flux, modulations.
    """

    name: ClassVar[str] = "hoist-invariants"
    sites = (Site.INVARIANT,)

    def match(self, layer: nn.Layer) -> bool:
        """Match a UNet, a ControlNet or Flux's transformer whose blocks still have them."""
        denoisers = (UNetEncoder, FluxTransformer2DModel)
        return isinstance(layer, denoisers) and not layer.is_hoisted

    def check(self, layer: nn.Layer) -> str:
        """Accepts every such network."""
        return ""

    def count_places(self, layer: nn.Layer) -> int:
        """Count every projection that leaves the blocks, and Flux's of the prompt."""
        if isinstance(layer, FluxTransformer2DModel):
            return len(_find(layer, AdaptiveLayerNorm)) + 1
        return len(_find(layer, ResnetBlock2D)) + len(_find_cross_attentions(layer))

    def rewrite(self, layer: nn.Layer) -> Mapping[str, MadeOf]:
        """Move the projections to the prologue; the blocks take slices of their results."""
        move = _move_modulations if isinstance(layer, FluxTransformer2DModel) else _move_projections
        return move(layer)


def _move_projections(unet: Any) -> Mapping[str, MadeOf]:
    resnets, attentions = _find(unet, ResnetBlock2D), _find_cross_attentions(unet)
    times = [(f"{path}.time_emb_proj", block.time_emb_proj) for path, block in resnets.items()]
    contexts = [
        (f"{path}.{name}", getattr(attention, name))
        for path, attention in attentions.items()
        for name in (("merged",) if hasattr(attention, "merged") else ("to_k", "to_v"))
    ]
    unet.time_projections, time_weights = _stack("time_projections", times)
    context_weights: dict[str, MadeOf] = {}
    if contexts:  # not in ControlNets that read no text
        unet.context_projections, context_weights = _stack("context_projections", contexts)
    start = 0
    for block in resnets.values():
        width = block.time_emb_proj.weight.shape[1]
        del block.time_emb_proj
        block.time_share = slice(start, start + width)
        block.project_time = MethodType(_project_time, block)
        start += width
    start = 0
    for attention in attentions.values():
        for name in ("to_k", "to_v", "merged"):
            if hasattr(attention, name):
                delattr(attention, name)
        width = attention.to_q.weight.shape[1]
        attention.key_share = slice(start, start + width)
        attention.value_share = slice(start + width, start + 2 * width)
        attention.project = MethodType(_project, attention)
        start += 2 * width
    # One for all residual blocks.
    unet.census = {**unet.census, Site.SILU: unet.census[Site.SILU] - len(resnets) + 1}
    return {**time_weights, **context_weights}


def _stack(name: str, sources: list[tuple[str, Any]]) -> tuple[nn.Linear, dict[str, MadeOf]]:
    """Stack linear layers of the same input as one, and derive its weights."""
    first, width = sources[0][1], sum(linear.weight.shape[1] for _, linear in sources)
    kinds = ("weight",) if first.bias is None else ("weight", "bias")
    with LazyGuard():
        bias = False if first.bias is None else None
        stacked = nn.Linear(first.weight.shape[0], width, bias_attr=bias)
    return stacked, {
        f"{name}.{kind}": Derivation(tuple(f"{path}.{kind}" for path, _ in sources), "concatenate")
        for kind in kinds
    }


def _move_modulations(transformer: Any) -> Mapping[str, MadeOf]:
    norms = _find(transformer, AdaptiveLayerNorm)
    # Not one matrix: of FLUX.1 it would have more numbers than 32 bits can count.
    transformer.modulations = nn.LayerList([norm.linear for norm in norms.values()])
    weights: dict[str, MadeOf] = {}
    start = 0
    for index, (path, norm) in enumerate(norms.items()):
        gains = [place for place, part in enumerate(norm.parts) if part == GAIN]
        weights[f"modulations.{index}.weight"] = f"{path}.linear.weight"
        weights[f"modulations.{index}.bias"] = Derivation(
            (f"{path}.linear.bias",), "add-one", {"parts": len(norm.parts), "chosen": gains}
        )
        width = norm.linear.weight.shape[1]
        del norm.linear
        norm.share = slice(start, start + width)
        norm.modulate = MethodType(_take_share, norm)
        start += width
    return weights


def _find(layer: nn.Layer, kind: type) -> dict[str, Any]:
    return {path: part for path, part in layer.named_sublayers() if type(part) is kind}


def _find_cross_attentions(layer: nn.Layer) -> dict[str, Any]:
    return {path: part for path, part in _find(layer, Attention).items() if part.is_cross}


def _project_time(self: Any, time: Tensor) -> Tensor:
    return time[:, self.time_share]


def _project(self: Any, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (
        self.to_q(tokens),
        context[:, :, self.key_share],
        context[:, :, self.value_share],
    )


def _take_share(self: Any, conditioning: Tensor) -> list[Tensor]:
    vectors: list[Tensor] = conditioning[:, self.share].unsqueeze(1).chunk(len(self.parts), -1)
    return vectors
