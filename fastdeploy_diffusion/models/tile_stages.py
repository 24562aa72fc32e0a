"""Stages of autoencoders that run on tiles of feature maps.

Between two norms there are only convolutions, which see a pixel's neighbours: a stage computes its
part of a picture from a window with a border. What a norm needs of the whole picture, mean and
variance of each group of channels, are inputs. A map that later stages normalise is named as its
moments are: ``features`` with ``features_mean`` and ``features_variance``. Attention sees all
pixels: keys and values of the whole picture are inputs for every window of queries.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from fastdeploy_diffusion.models.attention import split_heads
from fastdeploy_diffusion.models.stages import LayerStage
from fastdeploy_diffusion.runtime.program import TensorSpec
from fastdeploy_diffusion.size_range import SizeRange

if TYPE_CHECKING:
    from fastdeploy_diffusion.models.autoencoder import AutoencoderKL

_KEYS = SizeRange("keys", 1, 1024, 2**24)


@dataclass(frozen=True, kw_only=True)
class TileStage(LayerStage):
    """A stage that runs on windows of its first input.

    Args:
        halo: Rows and columns at a window's sides that depend on what is outside of it.
    """

    halo: int = 0


class MapSize(NamedTuple):
    """The size of a feature map's windows."""

    channels: int
    height: int
    width: int

    def specify(self, name: str) -> TensorSpec:
        """Make the spec of one window."""
        return TensorSpec(name, (1, *self), "float32")


class TileStages:
    """The stages that decoder and encoder have in common.

    Args:
        half: The part of the autoencoder: ``decoder`` or ``encoder``.
    """

    def __init__(self, vae: "AutoencoderKL", half: str) -> None:
        self._vae, self._half = vae, half

    def list_middle(self, size: MapSize) -> Iterator[TileStage]:
        """Declare the stages at the lowest resolution."""
        path = f"{self._half}.mid_block"
        yield from self.list_residual(f"{path}.resnets.0", size, size.channels)
        if self._vae.config.mid_block_add_attention:
            yield from self._list_attention(f"{path}.attentions.0", size)
        yield from self.list_residual(f"{path}.resnets.1", size, size.channels)

    def list_residual(self, path: str, size: MapSize, width: int) -> Iterator[TileStage]:
        """Declare the two stages of a residual block, one a norm."""
        name = self._name(path)
        features, hidden = size.specify("features"), size._replace(channels=width).specify("hidden")
        first, second = ((f"{path}.norm{each}", f"{path}.conv{each}") for each in (1, 2))
        yield TileStage(
            f"{name}_1",
            (features, *self.list_moments("features")),
            (hidden,),
            compute=partial(convolve, *first),
            parts=first,
            draw=DRAW,
            halo=1,
        )
        yield TileStage(
            f"{name}_2",
            (features, hidden, *self.list_moments("hidden")),
            (size._replace(channels=width).specify("next_features"),),
            compute=partial(_add, path, *second),
            parts=(*second, f"{path}.conv_shortcut"),
            draw=DRAW,
            halo=1,
        )

    def list_moments(self, name: str) -> tuple[TensorSpec, TensorSpec]:
        """Make the specs of a map's moments."""
        mean, variance = (
            TensorSpec(f"{name}_{moment}", (1, self._vae.config.norm_num_groups), "float32")
            for moment in ("mean", "variance")
        )
        return mean, variance

    def _list_attention(self, path: str, size: MapSize) -> Iterator[TileStage]:
        moments, name = self.list_moments("features"), "mid_block_attention"
        keys, values = (size.specify(name) for name in ("keys", "values"))
        norm = f"{path}.group_norm"
        yield TileStage(
            f"{name}_1",
            (size.specify("features"), *moments),
            (keys, values),
            compute=partial(_project, path),
            parts=(norm, f"{path}.to_k", f"{path}.to_v"),
            draw=DRAW,
        )
        rows = max(min(self._vae.config.queries // size.width, size.height), 1)
        queries = size._replace(height=rows)
        tokens = (1, _KEYS, size.channels)
        yield TileStage(
            f"{name}_2",
            (
                queries.specify("features"),
                *moments,
                *(TensorSpec(name, tokens, "float32") for name in ("keys", "values")),
            ),
            (queries.specify("next_features"),),
            compute=partial(_attend, path),
            parts=(norm, f"{path}.to_q", f"{path}.to_out"),
            draw=DRAW,
        )

    def _name(self, path: str) -> str:
        return path.removeprefix(f"{self._half}.").replace(".", "_")


def _draw_variance(random: Any, shape: tuple[int, ...]) -> Any:
    return random.uniform(0.5, 2.0, shape)


DRAW = {f"{name}_variance": _draw_variance for name in ("features", "hidden")}
"""No variance is negative."""


def find_part(layer: Any, path: str) -> Any:
    """Find a part of a layer by its path."""
    return reduce(getattr, path.split("."), layer)


def _normalize(norm: Any, features: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Normalise (1, C, H, W) by the moments of the groups of the whole map, (1, groups)."""
    channels = features.shape[1]
    mean, scale = (
        each.unsqueeze(2).expand([-1, -1, channels // each.shape[1]]).reshape([1, channels, 1, 1])
        for each in (mean, 1 / paddle.sqrt(variance + norm._epsilon))
    )
    weight, bias = (each.reshape([1, channels, 1, 1]) for each in (norm.weight, norm.bias))
    return (features - mean) * (scale * weight) + bias


def convolve(
    norm: str, conv: str, layer: Any, features: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """Normalise, activate and convolve (1, C, H, W)."""
    normed = _normalize(find_part(layer, norm), features, mean, variance)
    return find_part(layer, conv)(F.silu(normed))


def _add(
    path: str,
    norm: str,
    conv: str,
    layer: Any,
    features: Tensor,
    hidden: Tensor,
    mean: Tensor,
    variance: Tensor,
) -> Tensor:
    shortcut = find_part(layer, path).conv_shortcut
    skipped = features if shortcut is None else shortcut(features)
    return skipped + convolve(norm, conv, layer, hidden, mean, variance)


def _project(
    path: str, layer: Any, features: Tensor, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor]:
    attention = find_part(layer, path)
    tokens = _list_tokens(attention, features, mean, variance)
    keys, values = (
        each(tokens).transpose([0, 2, 1]).reshape(features.shape)
        for each in (attention.to_k, attention.to_v)
    )
    return keys, values


def _attend(
    path: str,
    layer: Any,
    features: Tensor,
    mean: Tensor,
    variance: Tensor,
    keys: Tensor,
    values: Tensor,
) -> Tensor:
    attention = find_part(layer, path)
    queries = attention.to_q(_list_tokens(attention, features, mean, variance))
    attended = F.scaled_dot_product_attention(
        *(split_heads(each, 1) for each in (queries, keys, values))
    )
    given = attention.to_out[0](attended.flatten(2)).transpose([0, 2, 1])
    return features + given.reshape(features.shape)


def _list_tokens(attention: Any, features: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    normed = _normalize(attention.group_norm, features, mean, variance)
    return normed.flatten(2).transpose([0, 2, 1])  # (1, H·W, C)
