import sys

import pytest

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.benchmark.peers import Peer, find_peers
from fastdeploy_diffusion.benchmark.plan import (
    describe_model,
    is_shapes,
    plan_cases,
    plan_works,
)
from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.engines.registry import engine_names
from fastdeploy_diffusion.errors import ConfigError, EngineUnavailableError, RequestError

SHAPES = DiffusionConfig.from_preset("shapes", threads=2)


def list_works(config, *asked):
    return plan_works(config, open_checkpoint(config.model_path), *asked)


def plan(
    engines=(),
    precisions=("fp32",),
    peers=(),
    sizes=((None, None),),
    batches=(1,),
    peer_precisions=(),
):
    works = list_works(SHAPES, sizes, batches, 2)
    return plan_cases(SHAPES, works, engines, precisions, peers, peer_precisions)


def test_without_options_every_engine_runs_or_is_missing_with_its_reason():
    cases, missing = plan()
    assert {case.engine for case in cases} >= {"paddle", "paddle-eager"}
    assert len(cases) + len(missing) == len(engine_names())
    assert all(each.reason for each in missing)


def test_peers_run_in_precisions_of_their_own():
    peer = Peer("diffusers", find_peers(["diffusers"], [])[0].adapter, sys.executable)
    cases, _ = plan(["paddle"], ["fp32"], [peer], peer_precisions=["bf16", "int8-hybrid"])
    assert [case.name for case in cases] == [
        "paddle fp32",
        "diffusers bf16",
        "diffusers int8-hybrid",
    ]
    assert [case.is_calibrated for case in cases] == [False, False, True]


def test_everything_is_combined():
    peer = Peer("diffusers", find_peers(["diffusers"], [])[0].adapter, sys.executable)
    sizes, batches = [(128, 128), (256, 64)], [1, 4]
    cases, missing = plan(["paddle"], ["fp32", "bf16"], [peer], sizes, batches)
    assert len(cases) == 4 * (1 + 2)
    assert [each.case for each in missing] == [
        "paddle bf16, 128 x 128, 2 steps, 2 threads",
        "paddle bf16, 128 x 128, batch 4, 2 steps, 2 threads",
        "paddle bf16, 256 x 64, 2 steps, 2 threads",
        "paddle bf16, 256 x 64, batch 4, 2 steps, 2 threads",
    ]
    assert [str(case) for case in cases[:3]] == [
        "paddle fp32, 128 x 128, 2 steps, 2 threads",
        "diffusers fp32, 128 x 128, 2 steps, 2 threads",
        "diffusers bf16, 128 x 128, 2 steps, 2 threads",
    ]


def test_what_is_left_open_comes_from_the_configuration_and_the_model():
    (work,) = list_works(SHAPES, [(None, None)], [1], None)
    assert (work.width, work.height, work.steps, work.guidance_scale) == (128, 128, 20, 4)
    assert work.threads == 2
    bare = DiffusionConfig(model_path=SHAPES.model_path)
    (work,) = list_works(bare, [(None, 64)], [3], None)
    assert (work.width, work.height, work.guidance_scale) == (128, 64, 7.5)
    assert work.seeds == [7, 8, 9]


def test_flux_is_asked_for_what_it_knows(tiny_dev, tiny_schnell):
    for model, scale, steps in ((tiny_dev, 3.5, 20), (tiny_schnell, None, 4)):
        (work,) = list_works(DiffusionConfig(model_path=model), [(None, 16)], [1], None)
        assert (work.guidance_scale, work.steps) == (scale, steps)
        assert (work.width, work.height) == (256, 16)  # 128 latents of this small model


def test_a_size_that_cannot_be_drawn_is_refused_before_the_run():
    with pytest.raises(RequestError, match="width is 100"):
        plan(sizes=[(100, 128)])


def test_the_models_in_the_box_are_known():
    assert is_shapes(SHAPES)
    assert is_shapes(DiffusionConfig.from_preset("flux-shapes"))
    assert not is_shapes(DiffusionConfig(model_path="elsewhere"))
    model = describe_model(open_checkpoint(SHAPES.model_path), None)
    assert model.name == "shapes"
    assert len(model.digest) == 64


@pytest.mark.parametrize(
    ("engines", "error", "message"),
    [
        (["tensorrt"], EngineUnavailableError, "--engine tensorrt: "),
        (["cinn"], EngineUnavailableError, "--engine cinn: cinn runs on gpu, not on cpu"),
        (["openvin"], ConfigError, "did you mean 'openvino'"),
    ],
)
def test_an_engine_that_was_asked_for_and_is_missing(engines, error, message):
    with pytest.raises(error, match=message):
        plan(engines)


def test_peers_have_adapters_and_pythons():
    names = ["diffusers", "openvino-genai", "onnxruntime"]
    assert [each.name for each in find_peers(names, [])] == names
    (peer,) = find_peers(["diffusers"], [f"diffusers={sys.executable}"])
    assert peer.adapter.name == "diffusers.py"
    assert peer.python == sys.executable
    for names, pythons, message in (
        (["difusers"], [], "did you mean 'diffusers'"),
        (["nobody-at-all"], [], r"write benchmarks/peers/nobody_at_all.py"),
        (["diffusers"], ["diffusers=/no/such/python"], "/no/such/python is no program"),
        (["diffusers"], ["python"], "NAME=/path/python"),
        (["diffusers"], ["diffuser=python"], "did you mean 'diffusers'"),
    ):
        with pytest.raises(ConfigError, match=message):
            find_peers(names, pythons)
