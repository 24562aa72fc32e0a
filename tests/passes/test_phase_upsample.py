import paddle
import pytest
from pass_checks import relative_error, rewrite

from fastdeploy_diffusion.models.resnet import Downsample2D, Upsample2D
from fastdeploy_diffusion.passes.base import apply_passes
from fastdeploy_diffusion.passes.layer.phase_upsample import PhaseUpsample


@pytest.mark.parametrize(
    ("channels", "batch", "rows", "columns"), [(3, 2, 4, 5), (8, 1, 1, 1), (5, 3, 7, 2)]
)
def test_the_numbers_stay(channels, batch, rows, columns):
    layer = Upsample2D(channels)
    layer.eval()
    phases, (result,) = rewrite(lambda: Upsample2D(channels), layer, PhaseUpsample())
    assert (result.count, result.skipped) == (1, {})
    features = paddle.randn([batch, channels, rows, columns])
    wanted = layer(features, (2 * rows, 2 * columns))
    given = phases(features, (2 * rows, 2 * columns))
    assert given.shape == wanted.shape
    assert relative_error(given, wanted) <= 1e-5


def test_an_odd_size_keeps_the_plain_way():
    layer = Upsample2D(4)
    phases, _ = rewrite(lambda: Upsample2D(4), layer, PhaseUpsample())
    features = paddle.randn([2, 4, 3, 5])
    assert relative_error(phases(features, (5, 10)), layer(features, (5, 10))) == 0


def test_the_nearest_miss_is_left_alone():
    (result,), derivations = apply_passes([PhaseUpsample()], Downsample2D(4), strict=False)
    assert (result.count, result.skipped, derivations) == (0, {}, {})
    layer = Upsample2D(4)
    layer.conv = paddle.nn.Conv2D(4, 4, 5, padding=2)
    (result,), _ = apply_passes([PhaseUpsample()], layer, strict=False)
    assert (result.count, result.skipped) == (0, {"": "its kernel is 5 x 5"})


def test_twice_equals_once():
    layer = Upsample2D(4)
    apply_passes([PhaseUpsample()], layer, strict=False)
    (result,), derivations = apply_passes([PhaseUpsample()], layer, strict=False)
    assert (result.count, derivations) == (0, {})
