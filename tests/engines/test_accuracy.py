from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from engine_programs import CASES

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.accuracy import TOLERANCES, AccuracyReport, integers
from fastdeploy_diffusion.engines.accuracy import verify as verify_with
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.paddle_eager import run_layer
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.errors import AccuracyError, EngineError
from fastdeploy_diffusion.paddle_runtime import paddle

CPU = BuildSpec(Device("cpu"), threads=1)
FREE_SHAPES = {"sample": (2, 16, 3, 5), "embedding": (2, 8)}


def verify(program, session, **options):
    return verify_with(program, session, partial(run_layer, program), **options)


def load(name, folder, engine_name="paddle"):
    program = CASES[name].program(name.replace(" ", "_"))
    engine = create_engine(engine_name)
    engine.build(program, CPU, folder)
    return program, engine.load(program, CPU, folder)


@pytest.mark.parametrize("name", ["attention", "text encoder", "many outputs"])
def test_a_right_session_passes(name, tmp_path):
    program, session = load(name, tmp_path)
    report = verify(
        program,
        session,
        seed=0,
        tolerance=TOLERANCES["fp32"],
        generators=CASES[name].generators,
    )
    assert report == AccuracyReport(program.name, report.relative_error, TOLERANCES["fp32"])
    assert report.relative_error <= 1e-5


def test_a_wrong_session_fails_by_name(tmp_path):
    program, session = load("upsampler", tmp_path)

    class Doubled(paddle.nn.Layer):
        def forward(self, sample):
            return 2 * program.layer(sample)

    doubled = replace(program, layer=Doubled())
    with pytest.raises(AccuracyError, match="upsampler: output 'output' of the paddle engine"):
        verify(doubled, session, seed=0, tolerance=TOLERANCES["fp32"])
    report = verify(doubled, session, seed=0, tolerance=0.6)
    assert report.relative_error == pytest.approx(0.5, rel=1e-5)


def test_the_worst_output_counts(tmp_path):
    program, session = load("text encoder", tmp_path)

    class Shifted(paddle.nn.Layer):
        def forward(self, input_ids):
            hidden, pooled = program.layer(input_ids)
            return hidden, pooled * 1.5

    with pytest.raises(AccuracyError, match="output 'pooled'"):
        verify(
            replace(program, layer=Shifted()),
            session,
            seed=0,
            tolerance=1e-4,
            generators=CASES["text encoder"].generators,
        )


def test_a_layer_that_gives_nan_fails(tmp_path):
    program, session = load("upsampler", tmp_path)
    with paddle.no_grad():
        program.layer.conv.bias.set_value(np.full(8, np.nan, np.float32))
    with pytest.raises(AccuracyError, match="by nan of its largest value"):
        verify(program, session, seed=0, tolerance=1e-4)


def test_the_seed_decides_the_inputs(tmp_path):
    program, session = load("conv block", tmp_path)
    errors = [
        verify(program, session, seed=seed, tolerance=1e-4).relative_error for seed in (0, 0, 1)
    ]
    assert errors[0] == errors[1] != errors[2]


def test_free_dimensions_need_a_shape(tmp_path):
    program, session = load("free dimensions", tmp_path)
    with pytest.raises(EngineError, match="'sample' has free dimensions, and no shape was given"):
        verify(program, session, seed=0, tolerance=1e-4)
    assert verify(program, session, seed=0, tolerance=1e-4, shapes=FREE_SHAPES)


def test_whole_numbers_need_a_range(tmp_path):
    program, session = load("timestep embedding", tmp_path, "paddle-eager")
    with pytest.raises(EngineError, match="nothing says which int64 values input 'timestep'"):
        verify(program, session, seed=0, tolerance=1e-4)
    report = verify(
        program, session, seed=0, tolerance=1e-4, generators={"timestep": integers(0, 1000)}
    )
    assert report.relative_error == 0.0


@pytest.mark.parametrize("option", ["generators", "shapes"])
def test_an_option_for_an_unknown_input_is_an_error(option, tmp_path):
    program, session = load("upsampler", tmp_path, "paddle-eager")
    values = {"generators": integers(0, 2), "shapes": (3, 8, 5, 7)}
    with pytest.raises(EngineError, match="unknown input 'sampel'"):
        verify(program, session, seed=0, tolerance=1e-4, **{option: {"sampel": values[option]}})
