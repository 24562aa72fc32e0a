"""One pipeline, many threads: each request gets the picture that it would get alone."""

import threading

import numpy as np
import pytest
from runnable import CPU_ENGINES
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline

# Prompt, height, width.
REQUESTS = (("a cat", 32, 32), ("a dog", 32, 48), ("a red cat", 32, 32), ("a cat", 32, 48))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("checkpoint") / "model")


def draw(pipeline, prompt, height, width):
    settings = {"seed": 3, "num_inference_steps": 2, "output_type": "np"}
    return pipeline.text_to_image(prompt, height=height, width=width, **settings)


def draw_at_once(pipeline):
    """Serve each request on a thread of its own; give pictures, or errors, in order."""
    found = [None] * len(REQUESTS)
    ready = threading.Barrier(len(REQUESTS))

    def work(index):
        ready.wait()
        try:
            found[index] = draw(pipeline, *REQUESTS[index])
        except Exception as error:
            found[index] = error

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(REQUESTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_requests_of_mixed_sizes_at_once(engine, model, tmp_path):
    def open_pipeline(**options):
        given = {"engine": engine, "cache_dir": tmp_path, "passes": [], "threads": 1, **options}
        return SDPipeline(DiffusionConfig(model_path=model, **given))

    # The first threads of all build what they need; the later ones find it.
    resident, staged = open_pipeline(), open_pipeline(memory="staged")
    given = [draw_at_once(resident), draw_at_once(staged)]
    wanted = [draw(resident, *request) for request in REQUESTS]
    for arrays in given:
        for array, alone in zip(arrays, wanted, strict=True):
            np.testing.assert_array_equal(array, alone)
