"""The encoder in stages that run on tiles of feature maps."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from paddle import Tensor

from fastdeploy_diffusion.models.tile_stages import (
    DRAW,
    MapSize,
    TileStage,
    TileStages,
    convolve,
    find_part,
)
from fastdeploy_diffusion.runtime.program import TensorSpec

if TYPE_CHECKING:
    from fastdeploy_diffusion.models.autoencoder import AutoencoderKL


def list_encoder_stages(
    vae: "AutoencoderKL", inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> list[TileStage]:
    """Declare the stages of the encoder.

    Args:
        inputs: Of images, whose latents are no larger than a window.
        outputs: Of the moments of their latents.
    """
    (images,), (moments,) = inputs, outputs
    return list(_Encoder(vae, images, moments).list_stages())


class _Encoder(TileStages):
    def __init__(self, vae: "AutoencoderKL", images: TensorSpec, moments: TensorSpec) -> None:
        super().__init__(vae, "encoder")
        self._images, self._moments = images, moments

    def list_stages(self) -> Iterator[TileStage]:
        encoder, config = self._vae.encoder, self._vae.config
        widths = config.block_out_channels
        yield TileStage(
            "images",
            (self._at(0, config.in_channels).specify(self._images.name),),
            (self._at(0, widths[0]).specify("features"),),
            compute=_convolve_images,
            parts=("encoder.conv_in",),
            halo=1,
        )
        inputs = widths[0]
        for level, (width, block) in enumerate(zip(widths, encoder.down_blocks, strict=True)):
            path = f"encoder.down_blocks.{level}"
            for index in range(len(block.resnets)):
                size = self._at(level, inputs)
                yield from self.list_residual(f"{path}.resnets.{index}", size, width)
                inputs = width
            if block.downsamplers:
                size = self._at(level, width)
                half = MapSize(width, size.height // 2, size.width // 2)
                yield TileStage(
                    f"down_blocks_{level}_downsampler",
                    (size.specify("features"),),
                    (half.specify("next_features"),),
                    compute=partial(_downsample, f"{path}.downsamplers.0"),
                    parts=(f"{path}.downsamplers.0",),
                    # One would do, but windows must begin at pairs of pixels.
                    halo=2,
                )
        last = self._at(len(widths) - 1, widths[-1])
        yield from self.list_middle(last)
        norm, conv = "encoder.conv_norm_out", "encoder.conv_out"
        yield TileStage(
            "moments",
            (last.specify("features"), *self.list_moments("features")),
            (last._replace(channels=2 * config.latent_channels).specify(self._moments.name),),
            compute=partial(_convolve_moments, norm, conv),
            parts=(norm, conv, "quant_conv"),
            draw=DRAW,
            halo=1,
        )

    def _at(self, level: int, channels: int) -> MapSize:
        """Size of the windows of a map that is 2 to the ``level`` times smaller than the images."""
        height, width = (
            min(cast(int, size) >> level, self._vae.config.window)
            for size in self._images.shape[-2:]
        )
        return MapSize(channels, height, width)


def _convolve_images(layer: Any, images: Tensor) -> Tensor:
    return layer.encoder.conv_in(images)


def _downsample(path: str, layer: Any, features: Tensor) -> Tensor:
    return find_part(layer, path)(features)


def _convolve_moments(
    norm: str, conv: str, layer: Any, features: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    moments = convolve(norm, conv, layer, features, mean, variance)
    return moments if layer.quant_conv is None else layer.quant_conv(moments)
