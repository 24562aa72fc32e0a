"""The stages of the autoencoder's decoder, cut at its GroupNorms, for tiles of feature maps.

Between two norms there are only convolutions, which see a pixel's neighbours: a stage computes its
part of a picture from a window with a border. What a norm needs of the whole picture, mean and
variance of each group of channels, are inputs. A map that later stages normalise is named as its
moments are: ``features`` with ``features_mean`` and ``features_variance``. Attention sees all
pixels: keys and values of the whole picture are inputs for every window of queries.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple, cast

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


class _Size(NamedTuple):
    """The size of a feature map's windows."""

    channels: int
    height: int
    width: int

    def specify(self, name: str) -> TensorSpec:
        return TensorSpec(name, (1, *self), "float32")

    def double(self) -> "_Size":
        return _Size(self.channels, 2 * self.height, 2 * self.width)


def list_decoder_stages(
    vae: "AutoencoderKL", inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> list[TileStage]:
    """Declare the stages of the decoder.

    Args:
        inputs: Of scaled latents as large as the picture's, or as a window where these are larger.
        outputs: Of their images.
    """
    (latents,), (images,) = inputs, outputs
    return list(_Decoder(vae, latents, images).list_stages())


class _Decoder:
    def __init__(self, vae: "AutoencoderKL", latents: TensorSpec, images: TensorSpec) -> None:
        self._vae, self._latents, self._images = vae, latents, images
        self._groups = vae.config.norm_num_groups

    def list_stages(self) -> Iterator[TileStage]:
        decoder, widths = self._vae.decoder, self._vae.config.block_out_channels[::-1]
        yield TileStage(
            "latents",
            (self._latents,),
            (self._at(0, widths[0]).specify("features"),),
            compute=partial(_convolve_latents, self._vae.config),
            parts=("post_quant_conv", "decoder.conv_in"),
            halo=1,
        )
        middle = self._at(0, widths[0])
        yield from self._list_halves("decoder.mid_block.resnets.0", middle, widths[0])
        if decoder.mid_block.attentions:
            yield from self._list_attention("decoder.mid_block.attentions.0", middle)
        yield from self._list_halves("decoder.mid_block.resnets.1", middle, widths[0])
        inputs = widths[0]
        for level, (width, block) in enumerate(zip(widths, decoder.up_blocks, strict=True)):
            path = f"decoder.up_blocks.{level}"
            for index in range(len(block.resnets)):
                size = self._at(level, inputs)
                yield from self._list_halves(f"{path}.resnets.{index}", size, width)
                inputs = width
            if block.upsamplers:
                half = self._at(level, width, shrink=2)
                yield TileStage(
                    f"up_blocks_{level}_upsampler",
                    (half.specify("features"),),
                    (half.double().specify("next_features"),),
                    compute=partial(_upsample, f"{path}.upsamplers.0"),
                    parts=(f"{path}.upsamplers.0",),
                    halo=1,
                )
        last = self._at(len(widths) - 1, widths[-1])
        norm, conv = "decoder.conv_norm_out", "decoder.conv_out"
        yield TileStage(
            "images",
            (last.specify("features"), *self._list_moments("features")),
            (last._replace(channels=3).specify(self._images.name),),
            compute=partial(_convolve, norm, conv),
            parts=(norm, conv),
            draw=_DRAW,
            halo=1,
        )

    def _list_halves(self, path: str, size: _Size, width: int) -> Iterator[TileStage]:
        """Declare the two stages of a residual block, one a norm."""
        name = path.removeprefix("decoder.").replace(".", "_")
        features, hidden = size.specify("features"), size._replace(channels=width).specify("hidden")
        first, second = ((f"{path}.norm{each}", f"{path}.conv{each}") for each in (1, 2))
        yield TileStage(
            f"{name}_1",
            (features, *self._list_moments("features")),
            (hidden,),
            compute=partial(_convolve, *first),
            parts=first,
            draw=_DRAW,
            halo=1,
        )
        yield TileStage(
            f"{name}_2",
            (features, hidden, *self._list_moments("hidden")),
            (size._replace(channels=width).specify("next_features"),),
            compute=partial(_add, path, *second),
            parts=(*second, f"{path}.conv_shortcut"),
            draw=_DRAW,
            halo=1,
        )

    def _list_attention(self, path: str, size: _Size) -> Iterator[TileStage]:
        moments = self._list_moments("features")
        keys, values = (size.specify(name) for name in ("keys", "values"))
        norm = f"{path}.group_norm"
        yield TileStage(
            "mid_block_attention_1",
            (size.specify("features"), *moments),
            (keys, values),
            compute=partial(_project, path),
            parts=(norm, f"{path}.to_k", f"{path}.to_v"),
            draw=_DRAW,
        )
        rows = max(min(self._vae.config.queries // size.width, size.height), 1)
        queries = size._replace(height=rows)
        tokens = (1, _KEYS, size.channels)
        yield TileStage(
            "mid_block_attention_2",
            (
                queries.specify("features"),
                *moments,
                *(TensorSpec(name, tokens, "float32") for name in ("keys", "values")),
            ),
            (queries.specify("next_features"),),
            compute=partial(_attend, path),
            parts=(norm, f"{path}.to_q", f"{path}.to_out"),
            draw=_DRAW,
        )

    def _at(self, level: int, channels: int, shrink: int = 1) -> _Size:
        """Size of the windows of a map that is 2 to the ``level`` times as large as the latents."""
        largest = self._vae.config.window // shrink
        height, width = (
            min(cast(int, size) << level, largest) for size in self._latents.shape[-2:]
        )
        return _Size(channels, height, width)

    def _list_moments(self, name: str) -> tuple[TensorSpec, TensorSpec]:
        mean, variance = (
            TensorSpec(f"{name}_{moment}", (1, self._groups), "float32")
            for moment in ("mean", "variance")
        )
        return mean, variance


def _draw_variance(random: Any, shape: tuple[int, ...]) -> Any:
    return random.uniform(0.5, 2.0, shape)


_DRAW = {f"{name}_variance": _draw_variance for name in ("features", "hidden")}
"""No variance is negative."""


def _find(layer: Any, path: str) -> Any:
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


def _convolve_latents(config: Any, layer: Any, latents: Tensor) -> Tensor:
    latents = latents / config.scaling_factor
    if config.shift_factor is not None:
        latents = latents + config.shift_factor
    if layer.post_quant_conv is not None:
        latents = layer.post_quant_conv(latents)
    return layer.decoder.conv_in(latents)


def _convolve(
    norm: str, conv: str, layer: Any, features: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    normed = _normalize(_find(layer, norm), features, mean, variance)
    return _find(layer, conv)(F.silu(normed))


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
    shortcut = _find(layer, path).conv_shortcut
    skipped = features if shortcut is None else shortcut(features)
    return skipped + _convolve(norm, conv, layer, hidden, mean, variance)


def _upsample(path: str, layer: Any, features: Tensor) -> Tensor:
    return _find(layer, path)(features)


def _project(
    path: str, layer: Any, features: Tensor, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor]:
    attention = _find(layer, path)
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
    attention = _find(layer, path)
    queries = attention.to_q(_list_tokens(attention, features, mean, variance))
    attended = F.scaled_dot_product_attention(
        *(split_heads(each, 1) for each in (queries, keys, values))
    )
    given = attention.to_out[0](attended.flatten(2)).transpose([0, 2, 1])
    return features + given.reshape(features.shape)


def _list_tokens(attention: Any, features: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    normed = _normalize(attention.group_norm, features, mean, variance)
    return normed.flatten(2).transpose([0, 2, 1])  # (1, H·W, C)
