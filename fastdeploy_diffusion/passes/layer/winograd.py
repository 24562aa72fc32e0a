"""Wide 3×3 convolutions by Winograd's algorithm: fewer multiplications for the same sums.

A tile of (m + 2)² pixels gives m² of the output by (m + 2)² products per pair of channels, where
the plain way takes 9 m²: 36 instead of 144 for m = 4, 16 instead of 36 for m = 2. All three steps
are matrix products: the tiles' pixels are transformed, multiplied channel by channel by the
transformed weights, and transformed back. See Lavin and Gray, "Fast Algorithms for Convolutional
Neural Networks", 2015 (arXiv 1509.09308), whose matrices these are.

The transformed weights take more memory, 36/9 or 16/9 of the plain ones. Wide convolutions, which
have the most weights and the fewest pixels, get the smaller tiles; narrow ones stay as they are,
for there the transforms cost what the products save.
"""

from collections.abc import Mapping
from types import MethodType
from typing import Any, ClassVar

from paddle import LazyGuard, Tensor, nn

from fastdeploy_diffusion.families.networks.census import Convolution, Site
from fastdeploy_diffusion.models.sizes import are_known, read_sizes
from fastdeploy_diffusion.passes.base import Derivation, LayerPass, MadeOf
from fastdeploy_diffusion.passes.layer.winograd_convolution import convolve_tiles
from fastdeploy_diffusion.passes.layer.winograd_matrices import TRANSFORMS

NARROWEST, WIDEST_LARGE = 128, 640


class _Winograd(LayerPass):
    """Rewrites 3×3 convolutions with stride one and a border of one, of known height and width."""

    needs_known_sizes: ClassVar[bool] = True
    sites = ()  # but convolutions
    tile: ClassVar[int]
    widths: ClassVar[range]

    def match(self, layer: nn.Layer) -> bool:
        """Match a 3×3 convolution of the tiles' widths that is not rewritten yet."""
        return (
            isinstance(layer, nn.Conv2D)
            and layer.weight.shape[2:] == [3, 3]
            and list(layer._stride) == [1, 1]
            and self.fits(layer._in_channels, layer._out_channels)
            and not hasattr(layer, "transformed")
        )

    def check(self, layer: nn.Layer) -> str:
        """Accepts only plain convolutions with a border of one."""
        is_plain = (layer._groups, list(layer._dilation)) == (1, [1, 1])
        has_border = layer._updated_padding in (1, [1, 1]) and layer._padding_mode == "zeros"
        return "" if is_plain and has_border else "it is grouped, dilated or has another border"

    def rewrite(self, layer: nn.Layer) -> Mapping[str, MadeOf]:
        """Add the transformed weights; the plain ones stay for unknown sizes."""
        points = (self.tile + 2) ** 2
        with LazyGuard():
            layer.transformed = layer.create_parameter(
                [points, layer._out_channels, layer._in_channels]
            )
        layer.tile = self.tile
        layer.forward = MethodType(_convolve, layer)
        matrix = TRANSFORMS[self.tile].kernel.tolist()
        return {"transformed": Derivation(("weight",), "winograd", {"matrix": matrix})}

    def expects(self, site: Site | Convolution) -> bool:
        """Tell whether a kind of place is a convolution of the tiles' widths."""
        return isinstance(site, Convolution) and self.fits(*site)

    def fits(self, inputs: int, outputs: int) -> bool:
        """Tell whether a convolution has the width for these tiles."""
        return inputs >= NARROWEST and outputs in self.widths


class LargeTileWinograd(_Winograd):
    """Tiles of 4 x 4, for 128 to 640 channels: a quarter of the multiplications."""

    name: ClassVar[str] = "winograd-4x4"
    tile: ClassVar[int] = 4
    widths: ClassVar[range] = range(NARROWEST, WIDEST_LARGE + 1)


class SmallTileWinograd(_Winograd):
    """Tiles of 2 x 2, for more channels: four ninths of the multiplications."""

    name: ClassVar[str] = "winograd-2x2"
    tile: ClassVar[int] = 2
    widths: ClassVar[range] = range(WIDEST_LARGE + 1, 1 << 31)


def _convolve(self: Any, features: Tensor) -> Tensor:
    """Map (B, I, H, W) to (B, O, H, W)."""
    _, _, height, width = read_sizes(features)
    if not are_known(height, width):
        return nn.Conv2D.forward(self, features)
    result = convolve_tiles(self, features.transpose([2, 3, 0, 1]), height, width)
    return result.transpose([2, 3, 0, 1])
