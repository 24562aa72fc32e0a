import paddle
import pytest
from pass_checks import relative_error, rewrite

from fastdeploy_diffusion.models.attention import Attention
from fastdeploy_diffusion.models.autoencoder import SpatialAttention
from fastdeploy_diffusion.models.clip import CLIPAttention
from fastdeploy_diffusion.passes.base import apply_passes
from fastdeploy_diffusion.passes.layer.merge_projections import MergeKV, MergeQKV

SELF = {
    "unet": (lambda: Attention(24, 3), [2, 7, 24]),
    "with biases, one head": (lambda: Attention(10, 1, qkv_bias=True), [1, 5, 10]),
    "text": (lambda: CLIPAttention(20, 5, is_causal=True), [3, 6, 20]),
    "autoencoder": (lambda: SpatialAttention(16, 4), [2, 16, 3, 5]),
}
CROSS = {
    "wider context": (lambda: Attention(24, 3, context_dim=40), [2, 7, 24], [2, 4, 40]),
    "as wide as the tokens": (lambda: Attention(12, 2, context_dim=12), [1, 5, 12], [1, 9, 12]),
}


@pytest.mark.parametrize(("make", "shape"), SELF.values(), ids=SELF)
def test_self_attention_keeps_its_numbers(make, shape):
    layer = make()
    layer.eval()
    merged, (result,) = rewrite(make, layer, MergeQKV())
    assert (result.count, result.skipped) == (1, {})
    tokens = paddle.randn(shape)
    assert relative_error(merged(tokens), layer(tokens)) <= 1e-5
    assert len(merged.state_dict()) < len(layer.state_dict())


@pytest.mark.parametrize(("make", "shape", "context"), CROSS.values(), ids=CROSS)
def test_cross_attention_keeps_its_numbers(make, shape, context):
    layer = make()
    layer.eval()
    merged, (result,) = rewrite(make, layer, MergeKV())
    assert (result.count, result.skipped) == (1, {})
    tokens, told = paddle.randn(shape), paddle.randn(context)
    assert relative_error(merged(tokens, told), layer(tokens, told)) <= 1e-5


@pytest.mark.parametrize(
    ("given", "make"),
    [
        (MergeQKV(), lambda: Attention(12, 2, context_dim=12)),
        (MergeKV(), lambda: Attention(12, 2)),
        (MergeKV(), lambda: CLIPAttention(12, 2, is_causal=True)),
        (MergeQKV(), lambda: paddle.nn.MultiHeadAttention(12, 2)),
    ],
)
def test_the_nearest_miss_is_left_alone(given, make):
    layer = make()
    names = list(layer.state_dict())
    (result,), derivations = apply_passes([given], layer, strict=False)
    assert (result.count, result.skipped, derivations) == (0, {}, {})
    assert list(layer.state_dict()) == names


def test_mixed_biases_are_skipped_with_a_reason():
    layer = CLIPAttention(12, 2, is_causal=True)
    layer.k_proj = paddle.nn.Linear(12, 12, bias_attr=False)
    (result,), _ = apply_passes([MergeQKV()], layer, strict=False)
    assert result.count == 0
    assert result.skipped == {"": "some projections have a bias, others not"}


def test_twice_equals_once():
    layer = Attention(12, 2)
    apply_passes([MergeQKV()], layer, strict=False)
    names = list(layer.state_dict())
    (result,), derivations = apply_passes([MergeQKV()], layer, strict=False)
    assert (result.count, derivations) == (0, {})
    assert list(layer.state_dict()) == names
