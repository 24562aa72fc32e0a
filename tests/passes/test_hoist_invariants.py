from dataclasses import fields, replace

import paddle
import pytest
from drawn_parameters import draw_parameters
from engine_programs import float_spec
from pass_checks import relative_error, rewrite

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.families.networks.adapted_unet import AdaptedUNetConfig
from fastdeploy_diffusion.families.networks.controlnet import ControlNetConfig
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.controlnet import ControlNetModel
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.passes.base import apply_passes
from fastdeploy_diffusion.passes.layer.hoist_invariants import HoistInvariants
from fastdeploy_diffusion.passes.layer.merge_projections import MergeKV
from fastdeploy_diffusion.predictors.stage_programs import cut_program
from fastdeploy_diffusion.runtime.program import Program

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


def draw_conditions(config, batch):
    """SDXL's pooled text and sizes."""
    if config is not SDXL_LIKE:
        return ()
    return paddle.randn([batch, 10]), paddle.randint(0, 2048, [batch, 6]).astype("float32")


def sign(layer):
    """The program of a UNet, with as many inputs as its family has."""
    added = (float_spec("text_embeds", None, 10), float_spec("time_ids", None, 6))
    inputs = (
        float_spec("sample", None, 4, 6, 8),
        float_spec("timestep", None),
        float_spec("encoder_hidden_states", None, 7, 20),
        *(added if layer.add_embedding else ()),
    )
    return Program("unet", layer, inputs, (float_spec("prediction", None, 4, 6, 8),))


@pytest.mark.parametrize("config", [CONFIG, WITHOUT_SHIFT, SDXL_LIKE])
@pytest.mark.parametrize("passes", [(), (MergeKV(),)])
def test_the_whole_keeps_its_numbers(config, passes):
    layer = make(config)
    hoisted, results = rewrite(lambda: make(config), layer, *passes, HoistInvariants())
    # 2 + 2 + 4 residual blocks; 1 + 1 + 2 cross-attentions.
    assert (results[-1].count, results[-1].expected, results[-1].skipped) == (12, 12, {})
    for shape in ((1, 8, 8), (3, 5, 9)):
        feeds = *draw_feeds(*shape), *draw_conditions(config, shape[0])
        assert relative_error(hoisted(*feeds), layer(*feeds)) <= 1e-5


@pytest.mark.parametrize("config", [CONFIG, SDXL_LIKE], ids=["SD", "SDXL"])
def test_prologue_and_step_are_the_whole(config):
    layer = make(config)
    hoisted, _ = rewrite(lambda: make(config), layer, HoistInvariants())
    sample, _, context = draw_feeds(2, 6, 8)
    conditions = draw_conditions(config, 2)
    prologue, step = (part.program.layer for part in cut_program(sign(hoisted)))
    # Other rows than the step's, in another order.
    rows = [1, 0, 1, 1, 0]
    time_features, context_features = prologue(
        paddle.arange(5.0), context, *(each[rows] for each in conditions)
    )
    assert time_features.shape[0] == 5
    given = paddle.stack([time_features[4], time_features[2]])
    wanted = layer(sample, paddle.to_tensor([4.0, 2.0]), context, *conditions)
    assert relative_error(step(sample, given, context_features)[0], wanted) <= 1e-5
    moved = {"time_embedding", "time_projections", "context_projections"}
    moved |= {"add_embedding"} if conditions else set()
    assert {name.split(".")[0] for name in prologue.state_dict()} == moved
    assert not moved & {name.split(".")[0] for name in step.state_dict()}
    assert step.state_dict().keys() | prologue.state_dict().keys() == hoisted.state_dict().keys()


def test_a_prologue_takes_every_input_but_the_sample():
    """The fourth and fifth are combined with timesteps; the text is not."""
    hoisted, _ = rewrite(lambda: make(SDXL_LIKE), make(SDXL_LIKE), HoistInvariants())
    prologue, step = cut_program(sign(hoisted))
    rows = prologue.stage.outputs[0].shape[0]
    shapes = {spec.name: spec.shape for spec in prologue.program.inputs}
    assert shapes == {
        "timestep": (rows,),
        "encoder_hidden_states": (None, 7, 20),
        "text_embeds": (rows, 10),
        "time_ids": (rows, 6),
    }
    assert [spec.name for spec in step.program.inputs] == [
        "sample",
        "time_features",
        "context_features",
    ]


def test_keys_and_values_of_image_prompts_go_to_the_step_as_they_are():
    """They are the prologue's results already: an adapter makes them once a request."""
    config = AdaptedUNetConfig.of(UNet2DConditionConfig.from_dict(SDXL_LIKE), 2)
    layer = UNet2DConditionModel(config)
    layer.eval()
    hoisted, _ = rewrite(lambda: UNet2DConditionModel(config), layer, HoistInvariants())
    width = sum(width for _, width in config.list_cross_attentions())
    program = sign(hoisted)
    images = {
        f"image_{kind}_{index}": paddle.randn([2, tokens, width])
        for index, tokens in enumerate((4, 5))
        for kind in ("keys", "values")
    }
    specs = [float_spec(name, None, *each.shape[1:]) for name, each in images.items()]
    prologue, step = cut_program(replace(program, inputs=(*program.inputs, *specs)))
    assert not images.keys() & {spec.name for spec in prologue.program.inputs}
    assert [spec.name for spec in step.program.inputs] == [
        *("sample", "time_features", "context_features"),
        *images,
    ]
    sample, _, context = draw_feeds(2, 6, 8)
    conditions = draw_conditions(SDXL_LIKE, 2)
    times = paddle.to_tensor([4.0, 2.0])
    wanted = layer(sample, times, context, *conditions, *images.values())
    whole = hoisted(sample, times, context, *conditions, *images.values())
    assert relative_error(whole, wanted) <= 1e-5
    features = prologue.program.layer(times, context, *conditions)
    assert (
        relative_error(step.program.layer(sample, *features, *images.values())[0], wanted) <= 1e-5
    )


def test_stages_that_do_not_chain_are_refused():
    hoisted, _ = rewrite(make, make(), HoistInvariants())
    program = sign(hoisted)
    prologue, step = hoisted.list_stages(program.inputs, program.outputs)
    with pytest.raises(EngineError, match="unet: of the stages step, 0 run once a request"):
        cut_program(replace(program, layer=Stages([step])))
    short = replace(prologue, outputs=prologue.outputs[:1])
    with pytest.raises(EngineError, match="the stage 'step' takes 'context_features', which"):
        cut_program(replace(program, layer=Stages([short, step])))


class Stages:
    """A network that declares what it is told to."""

    is_hoisted = True

    def __init__(self, stages):
        self.stages = stages

    def list_stages(self, inputs, outputs):
        return self.stages


def test_twice_equals_once():
    layer = make()
    apply_passes([HoistInvariants()], layer, strict=True)
    names = list(layer.state_dict())
    (result,), derivations = apply_passes([HoistInvariants()], layer, strict=False)
    assert (result.count, derivations) == (0, {})
    assert list(layer.state_dict()) == names


CONTROLNET = {
    **{key: CONFIG[key] for key in CONFIG if key not in ("out_channels", "sample_size")},
    "conditioning_embedding_out_channels": [4, 6],
}
del CONTROLNET["up_block_types"]
WITHOUT_ATTENTION = {
    **CONTROLNET,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "mid_block_type": "UNetMidBlock2D",
}


def make_controlnet(config):
    controlnet = ControlNetModel(ControlNetConfig.from_dict(config))
    draw_parameters(controlnet)
    controlnet.eval()
    return controlnet


@pytest.mark.parametrize(
    ("config", "count"),
    # 2 + 2 or 2 + 1 residual blocks; one cross-attention down and one in the middle, or none.
    [(CONTROLNET, 6), (WITHOUT_ATTENTION, 3), ({**SDXL_LIKE, **CONTROLNET}, 6)],
)
def test_a_controlnet_keeps_its_numbers_in_two_programs(config, count):
    config = {key: value for key, value in config.items() if key in _KNOWN}
    layer = make_controlnet(config)
    hoisted, results = rewrite(lambda: make_controlnet(config), layer, HoistInvariants())
    assert (results[-1].count, results[-1].expected, results[-1].skipped) == (count, count, {})
    feeds = {
        "sample": paddle.randn([1, 4, 5, 9]),
        "timestep": 1000 * paddle.rand([1]),
        "encoder_hidden_states": paddle.randn([1, 7, 20]),
        "text_embeds": paddle.randn([1, 10]),
        "time_ids": paddle.randint(0, 2048, [1, 6]).astype("float32"),
        "controlnet_cond": paddle.rand([1, 3, 10, 18]),
    }
    given = {name: feeds[name] for name in layer.argument_names}
    wanted = layer(*given.values())
    for one, other in zip(hoisted(*given.values()), wanted, strict=True):
        assert relative_error(one, other) <= 1e-5

    inputs = tuple(float_spec(name, None, *each.shape[1:]) for name, each in given.items())
    outputs = tuple(
        float_spec(f"residual_{index}", None, *each.shape[1:]) for index, each in enumerate(wanted)
    )
    prologue, step = cut_program(Program("controlnet", hoisted, inputs, outputs))
    # As many timesteps at once as the stage says; the picture is embedded here alone.
    rows = prologue.program.inputs[1].shape[0]
    tensors = [
        given[spec.name].tile([rows] + [1] * (given[spec.name].ndim - 1))
        if spec.shape[0] == rows
        else given[spec.name]
        for spec in prologue.program.inputs
    ]
    values = {
        spec.name: each[:1]
        for spec, each in zip(
            prologue.program.outputs, prologue.program.layer(*tensors), strict=True
        )
    }
    assert "controlnet_cond" not in {spec.name for spec in step.program.inputs}
    values["sample"] = given["sample"]
    stepped = step.program.layer(*(values[spec.name] for spec in step.program.inputs))
    for one, other in zip(stepped, wanted, strict=True):
        assert relative_error(one, other) <= 1e-5


_KNOWN = (
    *(field.name for field in fields(ControlNetConfig)),
    *ControlNetConfig.only,
)
