from dataclasses import replace

import numpy as np
import pytest
from engine_programs import CASES
from toy_session import ToySession

from fastdeploy_diffusion.criteria import Accuracy, LargestError
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.accuracy import (
    draw_feeds,
    integers,
    take_last_rows,
)
from fastdeploy_diffusion.engines.accuracy import verify as verify_with
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.errors import AccuracyError, EngineError
from fastdeploy_diffusion.paddle_runtime import paddle
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.runtime.program import Program, Signature, TensorSpec
from fastdeploy_diffusion.size_range import SizeRange

CPU = BuildSpec(Device("cpu"), threads=1)
FREE_SHAPES = {"sample": (2, 16, 3, 5), "embedding": (2, 8)}


def verify(program, session, **options):
    return verify_with(
        program, session, lambda feeds, rounded_to: run_layer(program, feeds), **options
    )


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
        criterion=PRECISIONS["fp32"].criterion,
        generators=CASES[name].generators,
    )
    assert report == Accuracy(report.relative_error, 1e-4)
    assert report.relative_error <= 1e-5


def test_a_wrong_session_fails_by_name(tmp_path):
    program, session = load("upsampler", tmp_path)

    class Doubled(paddle.nn.Layer):
        def forward(self, sample):
            return 2 * program.layer(sample)

    doubled = replace(program, layer=Doubled())
    with pytest.raises(AccuracyError, match="upsampler: output 'output' of the paddle engine"):
        verify(doubled, session, seed=0, criterion=PRECISIONS["fp32"].criterion)
    report = verify(doubled, session, seed=0, criterion=LargestError(0.6))
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
            criterion=LargestError(1e-4),
            generators=CASES["text encoder"].generators,
        )


def test_a_layer_that_gives_nan_fails(tmp_path):
    program, session = load("upsampler", tmp_path)
    with paddle.no_grad():
        program.layer.conv.bias.set_value(np.full(8, np.nan, np.float32))
    with pytest.raises(AccuracyError, match="by nan of its largest value"):
        verify(program, session, seed=0, criterion=LargestError(1e-4))


def test_the_seed_decides_the_inputs(tmp_path):
    program, session = load("conv block", tmp_path)
    errors = [
        verify(program, session, seed=seed, criterion=LargestError(1e-4)).relative_error
        for seed in (0, 0, 1)
    ]
    assert errors[0] == errors[1] != errors[2]


def test_free_dimensions_need_a_shape(tmp_path):
    program, session = load("free dimensions", tmp_path)
    with pytest.raises(EngineError, match="'sample' has free dimensions, and no shape was given"):
        verify(program, session, seed=0, criterion=LargestError(1e-4))
    assert verify(program, session, seed=0, criterion=LargestError(1e-4), shapes=FREE_SHAPES)


def test_whole_numbers_need_a_range(tmp_path):
    program, session = load("timestep embedding", tmp_path, "paddle-eager")
    with pytest.raises(
        EngineError, match="no generator gives the int64 values of input 'timestep'"
    ):
        verify(program, session, seed=0, criterion=LargestError(1e-4))
    report = verify(
        program,
        session,
        seed=0,
        criterion=LargestError(1e-4),
        generators={"timestep": integers(0, 1000)},
    )
    assert report.relative_error == 0.0


@pytest.mark.parametrize("option", ["generators", "shapes"])
def test_an_option_for_an_unknown_input_is_an_error(option, tmp_path):
    program, session = load("upsampler", tmp_path, "paddle-eager")
    values = {"generators": integers(0, 2), "shapes": (3, 8, 5, 7)}
    with pytest.raises(EngineError, match="unknown input 'sampel'"):
        verify(
            program,
            session,
            seed=0,
            criterion=LargestError(1e-4),
            **{option: {"sampel": values[option]}},
        )


def float_signature(shape, outputs=("output",)):
    return Signature(
        (TensorSpec("sample", shape, "float32"),),
        tuple(TensorSpec(name, shape, "float32") for name in outputs),
    )


def verify_toy(compute, expect, shape=(None, 3), batch=4, tolerance=1e-4, **options):
    """Prove a toy session, whose rows the batch counts, against numpy."""
    signature = float_signature(shape)
    shapes = {"sample": tuple(size if isinstance(size, int) else batch for size in shape)}
    return verify_with(
        Program("part", None, *signature),
        ToySession(compute, signature),
        expect,
        seed=0,
        criterion=LargestError(tolerance),
        shapes=shapes,
        **options,
    )


def double(sample):
    return {"output": 2 * sample}


def double_feeds(feeds, rounded_to):
    return double(**feeds)


@pytest.mark.parametrize("batch", [None, SizeRange("batch", 1, 2, 8)])
@pytest.mark.parametrize(
    "mix",
    [
        lambda output: output[::-1],
        lambda output: np.repeat(output[:1], len(output), 0),
        lambda output: np.roll(output, 1, 0),
        lambda output: output + 0.01 * output.sum(0),
    ],
    ids=["reversed", "the first one for all", "shifted", "added up"],
)
def test_a_session_that_mixes_up_rows_fails(mix, batch):
    def compute(sample):
        return {"output": np.ascontiguousarray(mix(2 * sample))}

    with pytest.raises(AccuracyError):
        verify_toy(compute, double_feeds, (batch, 3))
    assert verify_toy(double, double_feeds, (batch, 3)).relative_error == 0


def test_the_layer_runs_the_last_row_alone():
    seen = []

    def expect(feeds, rounded_to):
        seen.append(feeds["sample"])
        return double(**feeds)

    session_sees = []

    def compute(sample):
        session_sees.append(sample)
        return double(sample)

    verify_toy(compute, expect)
    assert [array.shape for array in seen + session_sees] == [(1, 3), (4, 3)]
    np.testing.assert_array_equal(seen[0], session_sees[0][-1:])


def test_without_a_batch_everything_is_compared():
    def compute(sample):
        output = 2 * sample
        output[0, 0] += 1
        return {"output": output}

    with pytest.raises(AccuracyError):
        verify_toy(compute, double_feeds, (4, 3))


def test_what_is_allowed_is_allowed():
    def compute(sample):
        return {"output": sample}

    assert verify_toy(compute, double_feeds, tolerance=0.5) == Accuracy(0.5, 0.5)
    with pytest.raises(
        AccuracyError, match=r"by 5.00e-01 of its largest value \(seed 0\)"
    ) as caught:
        verify_toy(compute, double_feeds, tolerance=0.49)
    assert (caught.value.relative_error, caught.value.allowed) == (0.5, "5e-01")


def test_against_nothing_but_zeros_a_difference_counts_in_full():
    def expect(feeds, rounded_to):
        return {"output": np.zeros_like(feeds["sample"])}

    def compute(sample):
        return {"output": np.full_like(sample, -0.25)}

    assert verify_toy(compute, expect, tolerance=1).relative_error == 0.25


@pytest.mark.parametrize("spoilt", [0, 1])
def test_an_output_of_no_numbers_is_the_worst(spoilt):
    signature = float_signature((None, 3), ("first", "second"))

    def expect(feeds, rounded_to):
        outputs = [feeds["sample"], feeds["sample"]]
        outputs[spoilt] = np.full_like(outputs[spoilt], np.nan)
        return dict(zip(("first", "second"), outputs, strict=True))

    def compute(sample):
        # The other one is far off, too.
        return {"first": 50 * sample, "second": 50 * sample}

    with pytest.raises(AccuracyError, match=f"output '{('first', 'second')[spoilt]}' .* by nan"):
        verify_with(
            Program("part", None, *signature),
            ToySession(compute, signature),
            expect,
            seed=0,
            criterion=LargestError(1e3),
            shapes={"sample": (4, 3)},
        )


SPECS = (
    TensorSpec("sample", (2, 100), "float32"),
    TensorSpec("flags", (1000,), "bool"),
    TensorSpec("ids", (1000,), "int64"),
    TensorSpec("free", (None, 3), "float32"),
)


def draw_all(seed=0):
    return draw_feeds("part", SPECS, seed, {"ids": integers(5, 8)}, {"free": (7, 3)})


def test_inputs_are_drawn_as_their_types_ask():
    feeds = draw_all()
    assert {name: (array.dtype.name, array.shape) for name, array in feeds.items()} == {
        "sample": ("float32", (2, 100)),
        "flags": ("bool", (1000,)),
        "ids": ("int64", (1000,)),
        "free": ("float32", (7, 3)),
    }
    assert set(np.unique(feeds["ids"])) == {5, 6, 7}
    assert 400 < feeds["flags"].sum() < 600
    assert abs(feeds["sample"].mean()) < 0.3
    assert 0.8 < feeds["sample"].std() < 1.2
    again, other = draw_all(), draw_all(1)
    for name, array in feeds.items():
        np.testing.assert_array_equal(array, again[name])
        assert not np.array_equal(array, other[name])


def test_only_batches_have_rows_to_take():
    batched = TensorSpec("batched", (3, None, 2), "float32")
    ranged = TensorSpec("ranged", (SizeRange("batch", 1, 2, 4), 2), "float32")
    tall = TensorSpec("tall", (2, SizeRange("height", 1, 2, 4)), "float32")
    arrays = {
        spec.name: np.arange(np.prod(shape), dtype="float32").reshape(shape)
        for spec, shape in ((batched, (3, 4, 2)), (ranged, (3, 2)), (tall, (2, 3)))
    }
    taken = take_last_rows((batched, ranged, tall), arrays)
    np.testing.assert_array_equal(taken["batched"], arrays["batched"][:, -1:])
    np.testing.assert_array_equal(taken["ranged"], arrays["ranged"][-1:])
    np.testing.assert_array_equal(taken["tall"], arrays["tall"])
