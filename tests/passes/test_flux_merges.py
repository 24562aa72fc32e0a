"""Projections of Flux and T5 as one, and pairs of rotary embedding half a head apart."""

import paddle
import pytest
from flux_networks import CONFIGS, DEV_LIKE, draw_feeds, make
from pass_checks import relative_error, rewrite

from fastdeploy_diffusion.checkpoints import build_skeleton
from fastdeploy_diffusion.families.networks.autoencoder import AutoencoderKLConfig
from fastdeploy_diffusion.families.networks.clip import CLIPTextConfig
from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.families.networks.t5 import T5Config
from fastdeploy_diffusion.families.published.flux import FLUX_DEV, FLUX_SCHNELL
from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.models.clip import CLIPTextModel
from fastdeploy_diffusion.models.components import LatentDecoder, PooledTextConditioner
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.models.flux_blocks import FluxSingleTransformerBlock, FluxTransformerBlock
from fastdeploy_diffusion.models.t5 import T5Attention, T5EncoderModel
from fastdeploy_diffusion.passes.base import apply_passes
from fastdeploy_diffusion.passes.layer.merge_projections import MergeQKV
from fastdeploy_diffusion.passes.layer.merge_qkv_mlp import MergeQKVMLP
from fastdeploy_diffusion.passes.layer.rotate_halves import RotateHalves
from fastdeploy_diffusion.passes.registry import choose_passes

LAYER_PASSES = ("rotate-halves", "merge-qkv", "merge-kv", "merge-qkv-mlp", "phase-upsample")
LAYER_PASSES = (*LAYER_PASSES, "winograd-4x4", "winograd-2x2", "hoist-invariants")
MAKERS = {
    "transformer": lambda config: FluxTransformer2DModel(FluxTransformer2DConfig.from_dict(config)),
    "text_encoder": lambda config: PooledTextConditioner(
        CLIPTextModel(CLIPTextConfig.from_dict(config))
    ),
    "text_encoder_2": lambda config: T5EncoderModel(T5Config.from_dict(config)),
    "vae": lambda config: LatentDecoder(AutoencoderKL(AutoencoderKLConfig.from_dict(config))),
}
T5 = {
    "d_model": 24,
    "d_kv": 8,
    "d_ff": 40,
    "num_layers": 2,
    "num_heads": 2,
    "vocab_size": 99,
    "feed_forward_proj": "gated-gelu",
}


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize(
    "passes",
    [
        (RotateHalves(),),
        (MergeQKV(),),
        (MergeQKVMLP(),),
        (RotateHalves(), MergeQKV(), MergeQKVMLP()),
    ],
)
def test_the_transformer_keeps_its_numbers(options, passes):
    layer = make(options)
    rewritten, results = rewrite(lambda: make(options), layer, *passes)
    blocks = options["num_layers"], options["num_single_layers"]
    counts = {
        "rotate-halves": sum(blocks),
        "merge-qkv": 2 * blocks[0],
        "merge-qkv-mlp": blocks[1],
    }
    for result in results:
        wanted = counts[result.name]
        assert (result.count, result.expected, result.skipped) == (wanted, wanted, {})
    for batch, size in ((1, (3, 5)), (3, (2, 7))):
        feeds = draw_feeds(options, batch, size)
        assert relative_error(rewritten(*feeds), layer(*feeds)) <= 1e-5


@pytest.mark.parametrize("options", [T5, {**T5, "d_kv": 5, "num_heads": 3, "num_layers": 1}])
def test_t5_keeps_its_numbers(options):
    def make_t5():
        return T5EncoderModel(T5Config.from_dict(options))

    layer = make_t5()
    layer.eval()
    merged, (result,) = rewrite(make_t5, layer, MergeQKV())
    assert (result.count, result.expected) == (options["num_layers"], options["num_layers"])
    ids = paddle.randint(0, 99, [2, 11])
    assert relative_error(merged(ids), layer(ids)) <= 1e-5


def test_rotary_embedding_is_the_same_but_for_the_order_of_a_head():
    """Not only products: every rotated query is the old one with its pairs taken apart."""
    block = FluxSingleTransformerBlock(32, 2)
    rewritten, _ = rewrite(lambda: FluxSingleTransformerBlock(32, 2), block, RotateHalves())
    tokens, angles = paddle.randn([2, 5, 32]), paddle.randn([5, 8])
    heads, parted = (
        each.attn.rotate(
            each.attn.norm_q(each.attn.to_q(tokens).reshape([2, 5, 2, 16])),
            (angles.cos(), angles.sin()),
        )
        for each in (block, rewritten)
    )
    order = [*range(0, 16, 2), *range(1, 16, 2)]
    assert relative_error(parted, heads[..., order]) <= 1e-5


@pytest.mark.parametrize(
    ("given", "make_layer"),
    [
        # Its queries, keys and values go with the feed-forward.
        (MergeQKV(), lambda: FluxSingleTransformerBlock(24, 2)),
        (MergeQKVMLP(), lambda: FluxTransformerBlock(24, 2)),
        (RotateHalves(), lambda: T5Attention(T5Config.from_dict(T5), has_bias=False)),
    ],
)
def test_the_nearest_miss_is_left_alone(given, make_layer):
    layer = make_layer()
    names = list(layer.state_dict())
    (result,), derivations = apply_passes([given], layer, strict=False)
    assert (result.count, result.skipped, derivations) == (0, {}, {})
    assert list(layer.state_dict()) == names


@pytest.mark.parametrize(
    ("given", "make_layer", "path"),
    [
        (MergeQKV(), lambda: FluxTransformerBlock(24, 2), "attn"),
        (MergeQKVMLP(), lambda: FluxSingleTransformerBlock(24, 2), ""),
    ],
)
def test_mixed_biases_are_skipped_with_a_reason(given, make_layer, path):
    layer = make_layer()
    name = "add_k_proj" if path else "to_k"
    setattr(layer.attn, name, paddle.nn.Linear(24, 24, bias_attr=False))
    (result,), _ = apply_passes([given], layer, strict=False)
    assert result.count == 0
    assert result.skipped == {path: "some projections have a bias, others not"}


@pytest.mark.parametrize("given", [RotateHalves(), MergeQKV(), MergeQKVMLP()])
def test_twice_equals_once(given):
    layer = make()
    apply_passes([given], layer, strict=True)
    names = list(layer.state_dict())
    (result,), derivations = apply_passes([given], layer, strict=False)
    assert (result.count, derivations) == (0, {})
    assert list(layer.state_dict()) == names


def test_what_is_merged_already_cannot_be_rotated():
    layer = make(DEV_LIKE)
    apply_passes([MergeQKV(), MergeQKVMLP()], layer, strict=True)
    (result,), _ = apply_passes([RotateHalves()], layer, strict=False)
    assert result.count == 0


@pytest.mark.parametrize("configs", [FLUX_DEV, FLUX_SCHNELL], ids=["dev", "schnell"])
@pytest.mark.parametrize(
    ("component", "counts"),
    [
        ("transformer", [57, 38, 0, 38, 0, 0, 0, 78]),
        ("text_encoder", [0, 12, 0, 0, 0, 0, 0, 0]),
        ("text_encoder_2", [0, 24, 0, 0, 0, 0, 0, 0]),
        ("vae", [0, 1, 0, 0, 3, 31, 0, 0]),
    ],
)
def test_the_published_models_have_the_promised_counts(configs, component, counts):
    network = build_skeleton(lambda: MAKERS[component](configs[component]))
    results, _ = apply_passes(choose_passes(LAYER_PASSES), network, strict=True)
    assert [result.count for result in results] == counts
    assert [result.expected for result in results] == counts
    assert not any(result.skipped for result in results)
