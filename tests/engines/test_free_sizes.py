"""One build of a program with free sizes has the layer's numbers at each of them."""

from dataclasses import replace

import numpy as np
import pytest
from component_programs import COMPONENTS, HEIGHT, TOKENS, WIDTH
from engine_programs import draw_feeds
from runnable import CPU_ENGINES, spec_for

from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.engines.tensorrt_builder import bound_batch
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.size_range import SizeRange, choose_size, multiply

RANGES = {
    None: SizeRange("batch", 1, 2, 4),
    HEIGHT: SizeRange("height", 4, 8, 16),
    WIDTH: SizeRange("width", 4, 8, 16),
    TOKENS: SizeRange("tokens", 1, TOKENS, TOKENS),
}
BUILDERS = tuple(name for name in CPU_ENGINES if name != "paddle-eager")


def free_sizes(program, scale):
    """Give ranges in place of the sizes of a component; ``scale`` is of its outputs."""

    def free(spec, factor):
        ranges = {
            size and factor * size: each if factor == 1 else multiply(each, factor)
            for size, each in RANGES.items()
        }
        ranges[None] = RANGES[None]
        return replace(spec, shape=tuple(ranges.get(size, size) for size in spec.shape))

    return replace(
        program,
        inputs=tuple(free(spec, 1) for spec in program.inputs),
        outputs=tuple(free(spec, scale) for spec in program.outputs),
    )


def draw(case, program, seed, sizes):
    inputs = tuple(
        replace(spec, shape=tuple(choose_size(size, sizes) for size in spec.shape))
        for spec in program.inputs
    )
    return draw_feeds(replace(case, inputs=inputs), seed)


@pytest.mark.slow
@pytest.mark.parametrize("engine_name", BUILDERS)
@pytest.mark.parametrize(("name", "scale"), [("sdxl unet", 1), ("sdxl text encoder", 1)])
def test_outputs_equal_the_layers(engine_name, name, scale, tmp_path):
    case, engine = COMPONENTS[name], create_engine(engine_name)
    program, spec = free_sizes(case.program(name.replace(" ", "_")), scale), spec_for(engine_name)
    engine.build(program, spec, tmp_path)
    with engine.load(program, spec, tmp_path) as session:
        for seed, (batch, height, width, tokens) in enumerate(
            ((1, HEIGHT, WIDTH, TOKENS), (3, 8, 4, 5), (2, 16, 7, 1))
        ):
            sizes = {"batch": batch, "height": height, "width": width, "tokens": tokens}
            feeds = draw(case, program, seed, sizes)
            wanted = run_layer(program, feeds)
            for output, array in session.run(**feeds).items():
                error = np.abs(array - wanted[output]).max() / np.abs(wanted[output]).max()
                assert error <= 1e-5, (output, sizes)


def test_a_size_out_of_its_range_is_refused(tmp_path):
    case, engine = COMPONENTS["sd1 text encoder"], create_engine("paddle-eager")
    program = free_sizes(case.program("text"), 1)
    with engine.load(program, spec_for("paddle-eager"), tmp_path) as session:
        with pytest.raises(EngineError, match=r"'input_ids' is int64 \(5, 7\)") as caught:
            session.run(**draw_feeds(case, 0, free=5))
        assert caught.value.allowed == "int64 (1 to 4, 1 to 7)"


def test_tensorrt_bounds_a_batch_and_keeps_ranges():
    program = COMPONENTS["sd1 text encoder"].program("text")
    (spec,) = bound_batch(program).inputs
    assert spec.shape == (SizeRange("batch", 1, 2, 8), TOKENS)
    ranged = free_sizes(program, 1)
    assert bound_batch(ranged) == ranged
