"""Every engine draws what the layer draws, for every component of Stable Diffusion and Flux."""

import numpy as np
import pytest
from component_programs import COMPONENTS
from engine_programs import draw_feeds
from runnable import runnable, spec_for

from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.engines.registry import create_engine, engine_names

BUILDERS = tuple(name for name in engine_names() if name != "paddle-eager")


@pytest.mark.slow
@pytest.mark.parametrize("engine_name", runnable(BUILDERS))
@pytest.mark.parametrize("name", COMPONENTS)
def test_outputs_equal_the_layers(engine_name, name, tmp_path):
    case, engine = COMPONENTS[name], create_engine(engine_name)
    spec = spec_for(engine_name)
    program = case.program(name.replace(" ", "_"))
    engine.build(program, spec, tmp_path)
    with engine.load(program, spec, tmp_path) as session:
        for seed, batch in ((0, 1), (1, 3), (2, 2)):
            feeds = draw_feeds(case, seed, free=batch)
            wanted = run_layer(program, feeds)
            for output, array in session.run(**feeds).items():
                error = np.abs(array - wanted[output]).max() / np.abs(wanted[output]).max()
                assert error <= 1e-5, (output, batch)
