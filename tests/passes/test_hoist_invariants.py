import paddle
import pytest
from pass_checks import relative_error, rewrite

from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.models.unet_split import UNetStep
from fastdeploy_diffusion.passes.base import apply_passes
from fastdeploy_diffusion.passes.hoist_invariants import HoistInvariants
from fastdeploy_diffusion.passes.merge_projections import MergeKV

CONFIG = {
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 8,
    "block_out_channels": [12, 24],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": 20,
    "attention_head_dim": 3,
    "norm_num_groups": 4,
}
WITHOUT_SHIFT = {**CONFIG, "block_out_channels": [6, 18], "freq_shift": 1, "norm_num_groups": 2}
SDXL_LIKE = {
    **CONFIG,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 6,
    "projection_class_embeddings_input_dim": 46,
}


def make(config=CONFIG):
    unet = UNet2DConditionModel(UNet2DConditionConfig.from_dict(config))
    unet.eval()
    return unet


def draw_feeds(batch, height, width):
    return (
        paddle.randn([batch, 4, height, width]),
        1000 * paddle.rand([batch]),
        paddle.randn([batch, 7, 20]),
    )


@pytest.mark.parametrize("config", [CONFIG, WITHOUT_SHIFT])
@pytest.mark.parametrize("passes", [(), (MergeKV(),)])
def test_the_whole_keeps_its_numbers(config, passes):
    layer = make(config)
    hoisted, results = rewrite(lambda: make(config), layer, *passes, HoistInvariants())
    # 2 + 2 + 4 residual blocks; 1 + 1 + 2 cross-attentions.
    assert (results[-1].count, results[-1].expected, results[-1].skipped) == (12, 12, {})
    for shape in ((1, 8, 8), (3, 5, 9)):
        feeds = draw_feeds(*shape)
        assert relative_error(hoisted(*feeds), layer(*feeds)) <= 1e-5


def test_prologue_and_step_are_the_whole():
    layer = make()
    hoisted, _ = rewrite(make, layer, HoistInvariants())
    sample, _, context = draw_feeds(2, 6, 8)
    time_features, context_features = hoisted.prologue(paddle.arange(5.0), context)
    assert time_features.shape[0] == 5
    step = UNetStep(hoisted)
    rows = paddle.stack([time_features[3], time_features[1]])
    wanted = layer(sample, paddle.to_tensor([3.0, 1.0]), context)
    assert relative_error(step(sample, rows, context_features), wanted) <= 1e-5
    assert not {"prologue", "time_embedding"} & {name.split(".")[0] for name in step.state_dict()}


def test_a_time_embedding_that_knows_the_prompt_stays():
    layer = make(SDXL_LIKE)
    names = list(layer.state_dict())
    (result,), derivations = apply_passes([HoistInvariants()], layer, strict=True)
    assert (result.count, result.expected, derivations) == (0, 0, {})
    assert result.skipped == {"": "its time embedding depends on the prompt, too"}
    assert list(layer.state_dict()) == names


def test_twice_equals_once():
    layer = make()
    apply_passes([HoistInvariants()], layer, strict=True)
    names = list(layer.state_dict())
    (result,), derivations = apply_passes([HoistInvariants()], layer, strict=False)
    assert (result.count, derivations) == (0, {})
    assert list(layer.state_dict()) == names
