import paddle
import pytest
from paddle import nn
from pass_checks import relative_error, rewrite

from fastdeploy_diffusion.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from fastdeploy_diffusion.passes.base import apply_passes
from fastdeploy_diffusion.passes.layer.channels_last import ChannelsLast
from fastdeploy_diffusion.passes.layer.winograd import LargeTileWinograd, SmallTileWinograd

# Winograd's sums come in another order, with factors up to 24: a little more is lost on the way.
LARGE_TILE_ERROR = 5e-5


def make(kind, *settings, **options):
    def build():
        layer = kind(*settings, **options)
        layer.eval()
        return layer

    return build


@pytest.mark.parametrize(
    ("each", "inputs", "outputs", "batch", "height", "width", "bias"),
    [
        (LargeTileWinograd(), 128, 130, 2, 9, 6, None),
        (LargeTileWinograd(), 131, 640, 1, 8, 8, False),
        (LargeTileWinograd(), 128, 128, 3, 1, 3, None),
        (SmallTileWinograd(), 128, 641, 2, 7, 4, None),
        (SmallTileWinograd(), 150, 700, 1, 5, 5, False),
    ],
)
def test_the_numbers_stay(each, inputs, outputs, batch, height, width, bias):
    build = make(nn.Conv2D, inputs, outputs, 3, padding=1, bias_attr=bias)
    layer = build()
    rewritten, (result,) = rewrite(build, layer, each)
    assert (result.count, result.skipped) == (1, {})
    features = paddle.randn([batch, inputs, height, width])
    error = relative_error(rewritten(features), layer(features))
    assert error <= (LARGE_TILE_ERROR if each.tile == 4 else 1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2D(127, 128, 3, padding=1),
        nn.Conv2D(128, 127, 3, padding=1),
        nn.Conv2D(128, 128, 1),
        nn.Conv2D(128, 128, 5, padding=2),
        Downsample2D(128),
    ],
)
@pytest.mark.parametrize("each", [LargeTileWinograd(), SmallTileWinograd()])
def test_the_nearest_miss_is_left_alone(each, layer):
    (result,), derivations = apply_passes([each], layer, strict=False)
    assert (result.count, result.skipped, derivations) == (0, {}, {})


def test_each_width_has_its_tiles():
    narrow, wide = nn.Conv2D(128, 640, 3, padding=1), nn.Conv2D(640, 641, 3, padding=1)
    for layer, counts in ((narrow, [1, 0]), (wide, [0, 1])):
        results, _ = apply_passes([LargeTileWinograd(), SmallTileWinograd()], layer, strict=False)
        assert [result.count for result in results] == counts


@pytest.mark.parametrize("options", [{"padding": 0}, {"padding": 1, "groups": 2}])
def test_another_kind_is_refused_with_a_reason(options):
    layer = nn.Conv2D(128, 128, 3, **options)
    (result,), _ = apply_passes([LargeTileWinograd()], layer, strict=False)
    reason = "it is grouped, dilated or has another border"
    assert (result.count, result.skipped) == (0, {"": reason})


def test_twice_equals_once():
    block = ResnetBlock2D(128, 128, 32, 1e-5)
    passes = [LargeTileWinograd(), ChannelsLast()]
    first, _ = apply_passes(passes, block, strict=False)
    assert [result.count for result in first] == [2, 1]
    again, derivations = apply_passes(passes, block, strict=False)
    assert [result.count for result in again] == [0, 0]
    assert derivations == {}


@pytest.mark.parametrize(
    ("settings", "batch", "height", "width"),
    [((128, 160, 32, 1e-5, 24), 2, 9, 6), ((160, 160, 32, 1e-6), 3, 4, 5)],
)
def test_a_block_with_channels_last_keeps_its_numbers(settings, batch, height, width):
    build = make(ResnetBlock2D, *settings)
    layer = build()
    rewritten, results = rewrite(build, layer, LargeTileWinograd(), ChannelsLast())
    assert [result.count for result in results] == [2, 1]
    features = paddle.randn([batch, settings[0], height, width]) + 3
    given = (features, paddle.randn([batch, 24])) if len(settings) == 5 else (features,)
    assert relative_error(rewritten(*given), layer(*given)) <= LARGE_TILE_ERROR


@pytest.mark.parametrize(("rows", "columns", "height", "width"), [(4, 5, 8, 10), (3, 5, 5, 9)])
def test_an_upsampler_with_channels_last_keeps_its_numbers(rows, columns, height, width):
    build = make(Upsample2D, 128)
    layer = build()
    rewritten, results = rewrite(build, layer, LargeTileWinograd(), ChannelsLast())
    assert [result.count for result in results] == [1, 1]
    features = paddle.randn([2, 128, rows, columns])
    wanted = layer(features, (height, width))
    assert relative_error(rewritten(features, (height, width)), wanted) <= LARGE_TILE_ERROR


def test_channels_last_waits_for_winograd():
    for layer in (ResnetBlock2D(128, 128, 32, 1e-5), Upsample2D(128)):
        (result,), _ = apply_passes([ChannelsLast()], layer, strict=False)
        assert result.count == 0
