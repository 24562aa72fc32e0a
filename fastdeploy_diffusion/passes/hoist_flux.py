"""What Flux's transformer computes of timestep, guidance and texts alone leaves the steps.

Every adaptive norm makes its vectors of the same conditioning, at every step, by the widest of
matrices: a quarter of the weights of FLUX.1, read for a single row. In a prologue all steps are the
rows of one product. The gains' one is in the bias there, so that no step adds it.
"""

from collections.abc import Mapping
from types import MethodType
from typing import Any

from paddle import Tensor

from fastdeploy_diffusion.models.flux_blocks import GAIN, AdaptiveLayerNorm
from fastdeploy_diffusion.models.flux_split import MOVED, FluxPrologue
from fastdeploy_diffusion.passes.base import Derivation, MadeOf


def find_norms(layer: Any) -> dict[str, Any]:
    """Find the adaptive norms of a transformer, by their names in it."""
    return {
        path: part for path, part in layer.named_sublayers() if isinstance(part, AdaptiveLayerNorm)
    }


def hoist_flux(layer: Any) -> Mapping[str, MadeOf]:
    """Give a transformer a prologue, and let its norms take their share of what that gives.

    Returns:
        The prologue's weights, and what they are made of.
    """
    norms = find_norms(layer)
    derivations = {
        f"prologue.{name}": name for name, _ in layer.named_parameters() if name.startswith(MOVED)
    }
    prologue = FluxPrologue(layer, [norm.linear for norm in norms.values()])
    prologue.eval()
    start = 0
    for index, (path, norm) in enumerate(norms.items()):
        gains = [place for place, part in enumerate(norm.parts) if part == GAIN]
        derivations[f"prologue.modulations.{index}.weight"] = f"{path}.linear.weight"
        derivations[f"prologue.modulations.{index}.bias"] = Derivation(
            (f"{path}.linear.bias",), "add-one", {"parts": len(norm.parts), "chosen": gains}
        )
        stop = start + norm.linear.weight.shape[1]
        del norm.linear
        norm.share = slice(start, stop)
        norm.modulate = MethodType(_take_share, norm)
        start = stop
    for name in MOVED:
        delattr(layer, name)
    layer.prologue = prologue
    layer.forward = MethodType(_forward, layer)
    return derivations


def _take_share(self: Any, conditioning: Tensor) -> list[Tensor]:
    vectors: list[Tensor] = conditioning[:, self.share].unsqueeze(1).chunk(len(self.parts), -1)
    return vectors


def _forward(
    self: Any,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor,
    pooled_projections: Tensor,
    timestep: Tensor,
    img_ids: Tensor,
    txt_ids: Tensor,
    guidance: Any = None,
) -> Tensor:
    modulations, context, *rotation = self.prologue(
        encoder_hidden_states, pooled_projections, timestep, img_ids, txt_ids, guidance
    )
    tokens = self.x_embedder(hidden_states)
    velocity: Tensor = self.denoise(tokens, context, modulations, rotation)
    return velocity
