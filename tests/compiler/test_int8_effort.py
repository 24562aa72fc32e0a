"""A large model draws fewer pictures, of fewer steps, to be calibrated and judged."""

import numpy as np
import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.compiler import int8_effort
from fastdeploy_diffusion.compiler.calibration import SEED, record_calibration
from fastdeploy_diffusion.compiler.calibration_prompts import CalibrationPrompts, read_prompts
from fastdeploy_diffusion.compiler.int8_effort import Effort, plan_effort
from fastdeploy_diffusion.compiler.int8_search import draw_held_out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("tiny") / "sd")


def open_pipeline(folder, steps=30, **options):
    defaults = {"num_inference_steps": steps, "height": 16, "width": 16}
    return SDPipeline(
        DiffusionConfig(
            model_path=folder,
            engine="paddle-eager",
            scheduler="ddim",
            defaults=defaults,
            embedding_cache={"memory_mib": 0},
            **options,
        )
    )


def test_a_small_model_draws_everything(folder):
    assert plan_effort(open_pipeline(folder)) == Effort(read_prompts(), 30, 30, 4)


def test_a_large_model_draws_less(folder, tmp_path, monkeypatch):
    pipeline = open_pipeline(folder)
    monkeypatch.setattr(
        int8_effort, "LARGE", pipeline.component("denoiser").network.count_weights()
    )
    planned, whole = plan_effort(pipeline), read_prompts()
    assert (planned.recorded_steps, planned.steps, planned.cost_calls) == (6, 20, 2)
    assert planned.prompts.calibrating == whole.calibrating[:4]
    assert planned.prompts.held_out == whole.held_out[:2]
    assert any(not prompt.isascii() for prompt in planned.prompts.calibrating), "two languages"
    few = plan_effort(open_pipeline(folder, steps=4))
    assert (few.recorded_steps, few.steps) == (4, 4)
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(f"a dog and {count} cats" for count in range(20)), encoding="utf-8")
    own = plan_effort(open_pipeline(folder, calibration_prompts=str(file)))
    assert (len(own.prompts.calibrating), len(own.prompts.held_out)) == (16, 4)
    assert own.recorded_steps == 6


def test_pictures_have_as_many_steps_as_planned(folder, tmp_path):
    pipeline = open_pipeline(folder)
    prompts = CalibrationPrompts(("a dog",), ("a cat",))
    (drawn,) = draw_held_out(pipeline, Effort(prompts, 2, 3, 4), "", lambda *_: None)
    wanted = pipeline.generate("a cat", seed=SEED, num_inference_steps=3, output_type="np").images
    np.testing.assert_array_equal(drawn, np.round(wanted[0] * 255))
    recorded = [
        record_calibration(
            pipeline, prompts.calibrating, (16, 16), tmp_path, lambda *_: None, steps=steps
        )
        for steps in (2, 3)
    ]
    assert [each.count("denoiser") for each in recorded] == [2, 3]
    assert recorded[0].digest != recorded[1].digest
