"""What Flux computes once a request, and what is left for the steps."""

import numpy as np
import paddle
import pytest
from flux_networks import CONFIGS, DEV_LIKE, draw_feeds, make
from pass_checks import relative_error, rewrite

from fastdeploy_diffusion.checkpoints import build_skeleton
from fastdeploy_diffusion.export.operation_counts import count_operations
from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.passes.base import apply_passes
from fastdeploy_diffusion.passes.layer.hoist_invariants import HoistInvariants
from fastdeploy_diffusion.passes.layer.merge_projections import MergeQKV
from fastdeploy_diffusion.passes.layer.merge_qkv_mlp import MergeQKVMLP
from fastdeploy_diffusion.passes.layer.rotate_halves import RotateHalves
from fastdeploy_diffusion.predictors.stage_programs import cut_program
from fastdeploy_diffusion.runtime.program import Program, TensorSpec


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("passes", [(), (RotateHalves(), MergeQKV(), MergeQKVMLP())])
def test_the_whole_keeps_its_numbers(options, passes):
    layer = make(options)
    hoisted, results = rewrite(lambda: make(options), layer, *passes, HoistInvariants())
    # The norms of each block, of both streams in the first; the last one; and the prompt.
    count = 2 * options["num_layers"] + options["num_single_layers"] + 2
    assert (results[-1].count, results[-1].expected, results[-1].skipped) == (count, count, {})
    for batch, size in ((1, (3, 5)), (3, (2, 7))):
        feeds = draw_feeds(options, batch, size)
        assert relative_error(hoisted(*feeds), layer(*feeds)) <= 1e-5


def test_prologue_and_step_are_the_whole():
    layer = make()
    hoisted, _ = rewrite(make, layer, HoistInvariants())
    latents, features, *others, timestep, positions, words, guidance = draw_feeds(DEV_LIKE, 2)
    pooled = others[0]
    # Other rows than the step's, in another order.
    rows = [1, 0, 1]
    prologue, step = (part.program.layer for part in cut_program(sign(hoisted, 15, 7)))
    modulations, context, cosines, sines = prologue(
        features, pooled[rows], timestep[rows], positions, words, guidance[rows]
    )
    (given,) = step(latents, context, modulations[1:], cosines, sines)
    wanted = layer(latents, features, pooled, timestep, positions, words, guidance)
    assert relative_error(given, wanted) <= 1e-5
    gone = {"modulations", "time_text_embed", "context_embedder", "linear"}
    assert not gone & {part for name in step.state_dict() for part in name.split(".")}
    assert {name.split(".")[0] for name in prologue.state_dict()} == gone - {"linear"}
    assert step.state_dict().keys() | prologue.state_dict().keys() == hoisted.state_dict().keys()


def sign(layer, image, text):
    """The program of a transformer as dev's, for so many tokens."""
    config = layer.config
    shapes = {
        "hidden_states": (None, image, config.in_channels),
        "encoder_hidden_states": (None, text, config.joint_attention_dim),
        "pooled_projections": (None, config.pooled_projection_dim),
        "timestep": (None,),
        "img_ids": (image, 3),
        "txt_ids": (text, 3),
        "guidance": (None,),
    }
    inputs = tuple(TensorSpec(name, shape, "float32") for name, shape in shapes.items())
    velocity = TensorSpec("velocity", (None, image, config.in_channels), "float32")
    return Program("denoiser", layer, inputs, (velocity,))


def test_twice_equals_once():
    layer = make()
    apply_passes([HoistInvariants()], layer, strict=True)
    names = list(layer.state_dict())
    (result,), derivations = apply_passes([HoistInvariants()], layer, strict=False)
    assert (result.count, derivations) == (0, {})
    assert list(layer.state_dict()) == names


def test_a_step_of_full_width_has_nothing_but_its_blocks():
    """At 512 × 512, with one double and two single blocks, where what is around them weighs most.

    So it weighs less in the whole model.
    """
    config = FluxTransformer2DConfig(num_layers=1, num_single_layers=2, guidance_embeds=True)
    image, text, dim = 1024, 512, config.inner_dim
    layer = build_skeleton(lambda: FluxTransformer2DModel(config))
    program = sign(layer, image, text)
    whole = count(program)
    apply_passes([HoistInvariants()], layer, strict=True)
    _, step = cut_program(program)
    left = count(step.program)

    tokens = image + text
    attention = 2 * 2 * tokens * tokens * dim
    # Queries, keys, values, output, and two layers four times as wide: in one matrix or in many.
    blocks = 3 * (2 * tokens * dim * 12 * dim + attention)
    ends = 2 * (2 * image * 64 * dim)
    assert round(blocks / 1e12, 2) == 1.13
    assert left.flops == blocks + ends
    assert ends < 1e-3 * left.flops
    vectors = 2 * 6 + 2 * 3 + 2
    assert round(vectors * dim * dim / 1e6) == 189
    embeddings = 2 * (256 * dim + dim * dim) + (768 * dim + dim * dim)
    assert whole.flops - left.flops == 2 * (vectors * dim * dim + embeddings + text * 4096 * dim)
    # A third of the weights need not be read at each step.
    assert whole.elements - left.elements > vectors * dim * dim


def count(program):
    return count_operations(
        program,
        {each.name: tuple(size or 1 for size in each.shape) for each in program.inputs},
    )


def test_a_gain_is_one_more_than_its_weight_says():
    layer = make()
    hoisted, _ = rewrite(make, layer, HoistInvariants())
    conditioning = paddle.randn([2, 48])
    norm = layer.single_transformer_blocks[1].norm
    features = paddle.concat([each(conditioning) for each in hoisted.modulations], axis=1)
    given = hoisted.single_transformer_blocks[1].norm.modulate(features)
    for ours, wanted in zip(given, norm.modulate(conditioning), strict=True):
        assert ours.shape == [2, 1, 48]
        assert relative_error(ours, wanted) <= 1e-5
    assert np.abs(norm.modulate(conditioning)[1].numpy().mean() - 1) < 0.5
