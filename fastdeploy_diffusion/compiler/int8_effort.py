"""How much is drawn to choose layers for int8: less by a large model, whose calls take seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastdeploy_diffusion.compiler.calibration_prompts import CalibrationPrompts, read_prompts
from fastdeploy_diffusion.requests.request import GenerationRequest

if TYPE_CHECKING:
    from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor

LARGE = 100_000_000
"""Weights of a denoiser, from which on a model is large."""
CALIBRATING, HELD_OUT = 4, 2
"""Prompts of the package that a large model draws."""
RECORDED_STEPS, STEPS = 6, 20
"""The most steps of a large model's picture that calibrates, and of one that is held out."""
COST_CALLS, LARGE_COST_CALLS = 4, 2
"""Calls on which the cost of a block is measured, of any model and of a large one."""


@dataclass(frozen=True)
class Effort:
    """What is drawn.

    Args:
        recorded_steps: Of each picture that calibrates.
        steps: Of each picture that is held out.
        cost_calls: On which the cost of each block is measured.
    """

    prompts: CalibrationPrompts
    recorded_steps: int
    steps: int
    cost_calls: int


def plan_effort(pipeline: DiffusionPredictor[Any]) -> Effort:
    """Plan what a model draws: by its number of weights, so that it is the same on every machine.

    Raises:
        ConfigError: The file of prompts cannot be used.
    """
    file = pipeline.config.calibration_prompts
    prompts = read_prompts(file)
    request = GenerationRequest(prompt="", **pipeline.sample_inputs(0))
    steps = pipeline.describe_request(request)["num_inference_steps"]
    if pipeline.component("denoiser").network.count_weights() < LARGE:
        return Effort(prompts, steps, steps, COST_CALLS)
    if file is None:
        prompts = CalibrationPrompts(prompts.calibrating[:CALIBRATING], prompts.held_out[:HELD_OUT])
    recorded_steps, held_out_steps = min(steps, RECORDED_STEPS), min(steps, STEPS)
    return Effort(prompts, recorded_steps, held_out_steps, LARGE_COST_CALLS)
