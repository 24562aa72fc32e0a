"""What depends only on the timestep, or only on the prompt, leaves the loop over the steps.

Every residual block projects the embedded timestep, and every cross-attention projects the prompt
to keys and values: the same numbers for all pictures of a step, or for all steps of a request. They
move into a prologue, in which all time projections are one matrix product, and all keys and values
another one. An engine gets two programs then: the prologue, and the step that takes its results.
What leaves Flux's transformer, `hoist_flux` says.
"""

from collections.abc import Mapping
from types import MethodType
from typing import Any, ClassVar

from paddle import LazyGuard, Tensor, nn

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.models.attention import Attention
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.models.resnet import ResnetBlock2D
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.models.unet_split import MOVED, UNetPrologue
from fastdeploy_diffusion.passes.base import Derivation, LayerPass, MadeOf
from fastdeploy_diffusion.passes.hoist_flux import find_norms, hoist_flux


class HoistInvariants(LayerPass):
    """Time projections, and keys and values of cross-attentions, of a UNet; modulations of Flux."""

    name: ClassVar[str] = "hoist-invariants"
    sites = (Site.INVARIANT,)

    def match(self, layer: nn.Layer) -> bool:
        """A UNet, or Flux's transformer, without a prologue."""
        denoisers = (UNet2DConditionModel, FluxTransformer2DModel)
        return isinstance(layer, denoisers) and not hasattr(layer, "prologue")

    def check(self, layer: nn.Layer) -> str:
        """Only a timestep that is embedded alone."""
        if isinstance(layer, UNet2DConditionModel) and layer.add_time_proj is not None:
            return "its time embedding depends on the prompt, too"
        return ""

    def count_places(self, layer: nn.Layer) -> int:
        """Every projection that leaves the loop."""
        if isinstance(layer, FluxTransformer2DModel):
            return len(find_norms(layer)) + 1  # the text's tokens
        return len(_find(layer, ResnetBlock2D)) + len(_find_cross_attentions(layer))

    def rewrite(self, layer: nn.Layer) -> Mapping[str, MadeOf]:
        """Give the denoiser a prologue, and let its blocks take their share of what that gives."""
        if isinstance(layer, FluxTransformer2DModel):
            return hoist_flux(layer)
        resnets, attentions = _find(layer, ResnetBlock2D), _find_cross_attentions(layer)
        time_sources = [f"{path}.time_emb_proj" for path in resnets]
        time_widths = [block.time_emb_proj.weight.shape[1] for block in resnets.values()]
        context_sources = [
            f"{path}.{name}"
            for path, attention in attentions.items()
            for name in (("merged",) if hasattr(attention, "merged") else ("to_k", "to_v"))
        ]
        first = next(iter(attentions.values()))
        context_dim = (first.merged if hasattr(first, "merged") else first.to_k).weight.shape[0]
        with LazyGuard():
            prologue = UNetPrologue(
                layer,
                time_width=sum(time_widths),
                context_dim=context_dim,
                context_width=2 * sum(_width(each) for each in attentions.values()),
            )
        prologue.eval()
        moved = {name: name for name, _ in layer.named_parameters() if name.startswith(MOVED)}
        _take_time(list(resnets.values()), time_widths)
        _take_context(list(attentions.values()))
        for name in MOVED:
            delattr(layer, name)
        layer.prologue = prologue
        layer.forward = MethodType(_forward, layer)
        # One for all residual blocks.
        silus = layer.census[Site.SILU] - len(resnets) + 1
        layer.census = {**layer.census, Site.SILU: silus}
        return {
            **{f"prologue.{name}": each for name, each in moved.items()},
            **_merge("prologue.time_projections", time_sources, ("weight", "bias")),
            **_merge("prologue.context_projections", context_sources, ("weight",)),
        }


def _find(layer: nn.Layer, kind: type) -> dict[str, Any]:
    return {path: part for path, part in layer.named_sublayers() if type(part) is kind}


def _find_cross_attentions(layer: nn.Layer) -> dict[str, Any]:
    return {path: part for path, part in _find(layer, Attention).items() if part.is_cross}


def _width(attention: Any) -> int:
    return int(attention.to_q.weight.shape[1])


def _take_time(resnets: list[Any], widths: list[int]) -> None:
    start = 0
    for block, width in zip(resnets, widths, strict=True):
        del block.time_emb_proj
        block.time_share = slice(start, start + width)
        block.project_time = MethodType(_project_time, block)
        start += width


def _take_context(attentions: list[Any]) -> None:
    start = 0
    for attention in attentions:
        for name in ("to_k", "to_v", "merged"):
            if hasattr(attention, name):
                delattr(attention, name)
        width = _width(attention)
        attention.key_share = slice(start, start + width)
        attention.value_share = slice(start + width, start + 2 * width)
        attention.project = MethodType(_project, attention)
        start += 2 * width


def _merge(name: str, sources: list[str], kinds: tuple[str, ...]) -> dict[str, MadeOf]:
    return {
        f"{name}.{kind}": Derivation(tuple(f"{source}.{kind}" for source in sources), "concatenate")
        for kind in kinds
    }


def _forward(self: Any, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
    time_features, context_features = self.prologue(timestep, encoder_hidden_states)
    predicted: Tensor = self.denoise(sample, time_features, context_features)
    return predicted


def _project_time(self: Any, time: Tensor) -> Tensor:
    return time[:, self.time_share]


def _project(self: Any, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (
        self.to_q(tokens),
        context[:, :, self.key_share],
        context[:, :, self.value_share],
    )
