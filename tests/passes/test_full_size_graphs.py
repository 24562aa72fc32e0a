"""The graphs of SDXL and FLUX.1 at full size, without weights: passes fire as often as promised.

Those of SD 1.5 are small enough for every run of the tests: see `test_graph_counts`.
"""

from functools import partial

import pytest
from engine_programs import float_spec
from graph_checks import export, rewrite
from test_graph_passes import PASSES
from test_published_counts import MODELS

from fastdeploy_diffusion.checkpoints import build_skeleton
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.runtime.program import Program, TensorSpec

IDS = TensorSpec("input_ids", (None, 77), "int64")
SDXL_SIGNATURES = {
    "unet": (
        (
            float_spec("sample", None, 4, 128, 128),
            float_spec("timestep", None),
            float_spec("encoder_hidden_states", None, 77, 2048),
            float_spec("text_embeds", None, 1280),
            float_spec("time_ids", None, 6),
        ),
        (float_spec("prediction", None, 4, 128, 128),),
    ),
    "text_encoder": (
        (IDS,),
        (float_spec("hidden_states", 13, None, 77, 768), float_spec("pooled", None, 768)),
    ),
    "text_encoder_2": (
        (IDS,),
        (float_spec("hidden_states", 33, None, 77, 1280), float_spec("pooled", None, 1280)),
    ),
    "vae": (
        (float_spec("latents", None, 4, 128, 128),),
        (float_spec("images", None, 3, 1024, 1024),),
    ),
}
DEV_INPUTS = (
    float_spec("hidden_states", None, 4096, 64),
    float_spec("encoder_hidden_states", None, 512, 4096),
    float_spec("pooled_projections", None, 768),
    float_spec("timestep", None),
    float_spec("img_ids", 4096, 3),
    float_spec("txt_ids", 512, 3),
    float_spec("guidance", None),
)
DEV_SIGNATURES = {
    "transformer": (DEV_INPUTS, (float_spec("velocity", None, 4096, 64),)),
    "text_encoder": ((IDS,), (float_spec("pooled", None, 768),)),
    "text_encoder_2": (
        (TensorSpec("input_ids", (None, 512), "int64"),),
        (float_spec("features", None, 512, 4096),),
    ),
    "vae": (
        (float_spec("latents", None, 16, 128, 128),),
        (float_spec("images", None, 3, 1024, 1024),),
    ),
}
# The other networks of schnell are those of dev.
SCHNELL_SIGNATURES = {"transformer": (DEV_INPUTS[:-1], DEV_SIGNATURES["transformer"][1])}
SIGNATURES = {"SDXL": SDXL_SIGNATURES, "dev": DEV_SIGNATURES, "schnell": SCHNELL_SIGNATURES}


@pytest.mark.slow
@pytest.mark.figures
@pytest.mark.parametrize(
    ("model", "component"),
    [(model, component) for model, known in SIGNATURES.items() for component in known],
)
def test_the_graph_has_as_many_places_as_promised(model, component):
    configs, makers, _ = MODELS[model]
    network = build_skeleton(partial(makers[component], configs[component]))
    network.eval()
    graph = export(Program(component, network, *SIGNATURES[model][component]))
    for dialect in Dialect:
        _, results = rewrite(graph, PASSES, dialect)
        found = {result.name: result.count for result in results}
        assert found == {
            each.name: 0 if each.refuse(dialect) else each.expect(network) for each in PASSES
        }, dialect
