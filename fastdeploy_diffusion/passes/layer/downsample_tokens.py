"""Fewer keys and values in a UNet's self-attention at the largest resolution that has any.

Neighbouring pixels of a feature map are much alike, so that a query loses little if it attends to
one of four: token downsampling (Smith et al., 2024, https://arxiv.org/abs/2402.13573). All queries
stay. The picture changes, and the cost of this attention falls to a quarter.
"""

from collections.abc import Mapping
from types import MethodType
from typing import Any, ClassVar

import paddle
from paddle import Tensor, nn

from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.models.attention import BasicTransformerBlock
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.passes.base import LayerPass, MadeOf


class DownsampleTokens(LayerPass):
    """Keys and values of every second row and every second column, from the first on.

    Of an odd number of rows, so, the last is kept as well: half of them, rounded up.
    """

    name: ClassVar[str] = "downsample-tokens"
    sites = (Site.FINEST_SELF_ATTENTION,)
    changes_picture: ClassVar[bool] = True

    def match(self, layer: nn.Layer) -> bool:
        """Match a UNet whose attentions still have keys and values of all tokens."""
        return isinstance(layer, UNet2DConditionModel) and any(
            block.attn1.streams for block in _list_finest(layer)
        )

    def check(self, layer: nn.Layer) -> str:
        """Accepts only projections of their own for queries, keys and values."""
        is_whole = all(hasattr(block.attn1, "to_k") for block in _list_finest(layer))
        return "" if is_whole else "its queries, keys and values are merged already"

    def count_places(self, layer: nn.Layer) -> int:
        """Count the self-attentions."""
        return len(_list_finest(layer))

    def rewrite(self, layer: nn.Layer) -> Mapping[str, MadeOf]:
        """Let them attend to fewer tokens; the weights stay as they are."""
        unet: Any = layer
        blocks = _list_finest(unet)
        for block in blocks:
            block.choose_keys = MethodType(_take_every_second, block)
            # No tokens are projected to all three any more, which another pass might merge.
            block.attn1.streams = ()
        unet.census = {**unet.census, Site.QKV: unet.census[Site.QKV] - len(blocks)}
        return {}


def _list_finest(unet: Any) -> list[Any]:
    """List the transformer blocks of the largest resolution that has any."""
    level, last = unet.config.finest_attention, unet.config.blocks - 1
    parts = [unet.down_blocks[level], unet.up_blocks[last - level]]
    if level == last:
        parts.append(unet.mid_block)
    return [
        block
        for part in parts
        if part.attentions is not None
        for block in part.attentions.sublayers()
        if isinstance(block, BasicTransformerBlock)
    ]


def _take_every_second(self: Any, tokens: Tensor, size: tuple[Any, Any]) -> Tensor:
    height, width = size
    rows = paddle.arange(0, height, 2, dtype="int64").unsqueeze(1)
    columns = paddle.arange(0, width, 2, dtype="int64").unsqueeze(0)
    # Not a slice with a stride, which is not exported.
    return paddle.gather(tokens, (rows * width + columns).flatten(), axis=1)
