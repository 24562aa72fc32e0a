"""Full-size SD 1.5, without weights: as many rewrites as the published architecture has places."""

import pytest
from engine_programs import float_spec
from graph_checks import export, list_operators, rewrite
from test_graph_passes import PASSES
from test_networks import MAKERS

from fastdeploy_diffusion.checkpoints import build_skeleton
from fastdeploy_diffusion.families.published.sd import SD_1_5
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.passes.base import apply_passes
from fastdeploy_diffusion.passes.graph.channel_group_norm import ChannelGroupNorm
from fastdeploy_diffusion.passes.graph.fuse_group_norm import FuseGroupNormSiLU
from fastdeploy_diffusion.passes.layer.channels_last import ChannelsLast
from fastdeploy_diffusion.passes.layer.hoist_invariants import HoistInvariants
from fastdeploy_diffusion.passes.layer.winograd import LargeTileWinograd, SmallTileWinograd
from fastdeploy_diffusion.predictors.stage_programs import cut_program
from fastdeploy_diffusion.runtime.program import Program, TensorSpec

SIGNATURES = {
    "unet": (
        (
            float_spec("sample", None, 4, 64, 64),
            float_spec("timestep", None),
            float_spec("encoder_hidden_states", None, 77, 768),
        ),
        (float_spec("prediction", None, 4, 64, 64),),
    ),
    "text_encoder": (
        (TensorSpec("input_ids", (None, 77), "int64"),),
        (float_spec("hidden_states", 13, None, 77, 768), float_spec("pooled", None, 768)),
    ),
    "vae": (
        (float_spec("latents", None, 4, 64, 64),),
        (float_spec("images", None, 3, 512, 512),),
    ),
}
COUNTS = {
    "fuse-attention": {"unet": 32, "text_encoder": 12, "vae": 1},
    "fuse-group-norm-silu": {"unet": 45, "text_encoder": 0, "vae": 29},
    "fuse-group-norm": {"unet": 16, "text_encoder": 0, "vae": 1},
    "channel-group-norm": {"unet": 61, "text_encoder": 0, "vae": 30},
    "split-geglu": {"unet": 16, "text_encoder": 0, "vae": 0},
    "fuse-gelu": {"unet": 16, "text_encoder": 0, "vae": 0},
    "fuse-silu": {"unet": 68, "text_encoder": 12, "vae": 29},
}


def sketch(component):
    network = build_skeleton(lambda: MAKERS[component](SD_1_5[component]))
    network.eval()
    return network


@pytest.mark.parametrize("component", SIGNATURES)
def test_the_config_promises_the_published_counts(component):
    network = sketch(component)
    found = {each.name: each.expect(network) for each in PASSES if each.name in COUNTS}
    assert found == {name: counts[component] for name, counts in COUNTS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("component", SIGNATURES)
def test_the_graph_has_them(component):
    graph = export(Program(component, sketch(component), *SIGNATURES[component]))
    _, results = rewrite(graph, PASSES, Dialect.STANDARD)
    found = {result.name: result.count for result in results if result.name in COUNTS}
    assert found == {name: counts[component] for name, counts in COUNTS.items()}
    assert not any(result.skipped for result in results)


@pytest.mark.slow
@pytest.mark.parametrize("component", ["unet", "vae"])
def test_norms_that_are_computed_channels_last_are_not_promised(component):
    network = sketch(component)
    before = {each.name: each.expect(network) for each in PASSES}
    apply_passes([LargeTileWinograd(), SmallTileWinograd(), ChannelsLast()], network, strict=True)
    graph = export(Program(component, network, *SIGNATURES[component]))
    _, results = rewrite(graph, [ChannelGroupNorm()], Dialect.STANDARD)
    expected = ChannelGroupNorm().expect(network)
    assert [result.count for result in results] == [expected]
    assert 0 < expected < before["channel-group-norm"]
    assert FuseGroupNormSiLU().expect(network) < before["fuse-group-norm-silu"]


@pytest.mark.slow
def test_the_counts_of_prologue_and_step_add_up():
    network = sketch("unet")
    apply_passes([HoistInvariants()], network, strict=True)
    parts = cut_program(Program("unet", network, *SIGNATURES["unet"]))
    rewritten, results = zip(
        *(rewrite(export(part.program), PASSES, Dialect.MICROSOFT) for part in parts), strict=True
    )
    found = {each.name: each.count + other.count for each, other in zip(*results, strict=True)}
    for each in PASSES:
        expected = 0 if each.refuse(Dialect.MICROSOFT) else each.expect(network)
        assert expected in (None, found[each.name])
    # 22 residual blocks took the SiLU of the timestep for themselves.
    assert found["fuse-silu"] == COUNTS["fuse-silu"]["unet"] - 21
    assert list_operators(rewritten[1]).count("com.microsoft:MultiHeadAttention") == 32
