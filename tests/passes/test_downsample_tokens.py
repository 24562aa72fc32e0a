"""The pass that drops keys and values; its numbers: `tests/models/test_downsampled_unet.py`."""

import paddle
import pytest
from flux_networks import make as make_flux
from pass_checks import relative_error, rewrite
from test_networks import MAKERS

from fastdeploy_diffusion.checkpoints import build_skeleton
from fastdeploy_diffusion.engines.registry import create_engine, engine_names
from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.families.published.sd import SD_1_5, SDXL_BASE
from fastdeploy_diffusion.passes.base import apply_passes
from fastdeploy_diffusion.passes.layer.downsample_tokens import DownsampleTokens
from fastdeploy_diffusion.passes.layer.hoist_invariants import HoistInvariants
from fastdeploy_diffusion.passes.layer.merge_projections import MergeQKV
from fastdeploy_diffusion.passes.registry import choose_passes, find_passes, pass_names

SMALL = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 20,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}


def make_small():
    layer = MAKERS["unet"](SMALL)
    layer.eval()
    return layer


@pytest.mark.parametrize(("config", "count"), [(SD_1_5, 5), (SDXL_BASE, 10)])
def test_other_passes_count_what_it_leaves(config, count):
    network = build_skeleton(lambda: MAKERS["unet"](config["unet"]))
    whole = network.census[Site.QKV]
    passes = choose_passes(["merge-qkv", "merge-kv", "hoist-invariants", "downsample-tokens"])
    results, _ = apply_passes(passes, network, strict=True)
    counts = {result.name: result.count for result in results}
    assert next(iter(counts)) == "downsample-tokens"
    assert (counts["downsample-tokens"], counts["merge-qkv"]) == (count, whole - count)
    assert counts["merge-kv"] == whole


@pytest.mark.parametrize("size", [(8, 12), (9, 7), (1, 1)])
def test_exact_passes_after_it_keep_its_numbers(size):
    paddle.seed(3)
    layer = make_small()
    apply_passes([DownsampleTokens()], layer, strict=True)
    passes = (DownsampleTokens(), MergeQKV(), HoistInvariants())
    rewritten, _ = rewrite(make_small, layer, *passes)
    feeds = (
        paddle.randn([2, 4, *size]),
        paddle.to_tensor([5.0, 900.0]),
        paddle.randn([2, 7, 20]),
    )
    assert relative_error(rewritten(*feeds), layer(*feeds)) <= 1e-5


@pytest.mark.parametrize(
    "make",
    [
        lambda: MAKERS["vae"](SD_1_5["vae"]),
        lambda: MAKERS["text_encoder"](SD_1_5["text_encoder"]),
        make_flux,
    ],
    ids=["vae", "text encoder", "flux"],
)
def test_the_nearest_miss_is_left_alone(make):
    (result,), weights = apply_passes([DownsampleTokens()], build_skeleton(make), strict=True)
    assert (result.count, result.skipped, weights) == (0, {}, {})


def test_twice_equals_once():
    layer = make_small()
    apply_passes([DownsampleTokens()], layer, strict=True)
    census = layer.census
    (result,), _ = apply_passes([DownsampleTokens()], layer, strict=False)
    assert (result.count, layer.census) == (0, census)


def test_merged_projections_are_skipped_with_a_reason():
    layer = make_small()
    apply_passes([MergeQKV()], layer, strict=True)
    (result,), _ = apply_passes([DownsampleTokens()], layer, strict=False)
    assert result.count == 0
    assert result.skipped == {"": "its queries, keys and values are merged already"}


def test_it_is_first_and_no_engines_default():
    assert [each.name for each in find_passes(pass_names()) if each.changes_picture] == [
        "downsample-tokens"
    ]
    assert find_passes(pass_names())[0].name == "downsample-tokens"
    for name in engine_names():
        for row in create_engine(name).paying_passes:
            found = find_passes((*row.names, *row.close))
            assert not any(each.changes_picture for each in found)
