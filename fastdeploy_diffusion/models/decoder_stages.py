"""The decoder in stages that run on tiles of feature maps."""

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


class _Decoder(TileStages):
    def __init__(self, vae: "AutoencoderKL", latents: TensorSpec, images: TensorSpec) -> None:
        super().__init__(vae, "decoder")
        self._latents, self._images = latents, images

    def list_stages(self) -> Iterator[TileStage]:
        decoder, widths = self._vae.decoder, self._vae.config.block_out_channels[::-1]
        middle = self._at(0, widths[0])
        yield TileStage(
            "latents",
            (self._latents,),
            (middle.specify("features"),),
            compute=partial(_convolve_latents, self._vae.config),
            parts=("post_quant_conv", "decoder.conv_in"),
            halo=1,
        )
        yield from self.list_middle(middle)
        inputs = widths[0]
        for level, (width, block) in enumerate(zip(widths, decoder.up_blocks, strict=True)):
            path = f"decoder.up_blocks.{level}"
            for index in range(len(block.resnets)):
                size = self._at(level, inputs)
                yield from self.list_residual(f"{path}.resnets.{index}", size, width)
                inputs = width
            if block.upsamplers:
                half = self._at(level, width, shrink=2)
                double = MapSize(width, 2 * half.height, 2 * half.width)
                yield TileStage(
                    f"up_blocks_{level}_upsampler",
                    (half.specify("features"),),
                    (double.specify("next_features"),),
                    compute=partial(_upsample, f"{path}.upsamplers.0"),
                    parts=(f"{path}.upsamplers.0",),
                    halo=1,
                )
        last = self._at(len(widths) - 1, widths[-1])
        norm, conv = "decoder.conv_norm_out", "decoder.conv_out"
        yield TileStage(
            "images",
            (last.specify("features"), *self.list_moments("features")),
            (last._replace(channels=3).specify(self._images.name),),
            compute=partial(convolve, norm, conv),
            parts=(norm, conv),
            draw=DRAW,
            halo=1,
        )

    def _at(self, level: int, channels: int, shrink: int = 1) -> MapSize:
        """Size of the windows of a map that is 2 to the ``level`` times as large as the latents."""
        largest = self._vae.config.window // shrink
        height, width = (
            min(cast(int, size) << level, largest) for size in self._latents.shape[-2:]
        )
        return MapSize(channels, height, width)


def _convolve_latents(config: Any, layer: Any, latents: Tensor) -> Tensor:
    latents = latents / config.scaling_factor
    if config.shift_factor is not None:
        latents = latents + config.shift_factor
    if layer.post_quant_conv is not None:
        latents = layer.post_quant_conv(latents)
    return layer.decoder.conv_in(latents)


def _upsample(path: str, layer: Any, features: Tensor) -> Tensor:
    return find_part(layer, path)(features)
