"""How a refiner goes with its base model: its configuration, and its part of the schedule."""

from pathlib import Path
from typing import Any

import numpy as np

from fastdeploy_diffusion.checkpoints.bundle_folder import BUILT_OPTIONS
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.runtime.bundle import is_bundle
from fastdeploy_diffusion.schedulers.base import Scheduler

# Options of the base model that are not the refiner's: its int8 is calibrated by its own pictures.
_BASE_ONLY = {
    *("refiner", "controlnets", "ip_adapters", "adapters"),
    *("model_path", "tokenizer_path", "prediction_type"),
    *("text_encoder", "denoiser", "int8_quality", "int8_portable", "calibration_prompts"),
}


def configure_refiner(config: DiffusionConfig) -> DiffusionConfig:
    """Make the configuration of the refiner that one for the base model names.

    Raises:
        ConfigError: Its options contradict each other.
    """
    assert config.refiner is not None  # as the caller checks
    options = config.model_dump(exclude_unset=True, exclude=_BASE_ONLY)
    own = config.refiner.model_dump(exclude_none=True)
    if "engine" in own or "device" in own:
        options = {key: each for key, each in options.items() if key not in ("tensorrt", "paddle")}
    if is_bundle(Path(config.refiner.path)):
        options = {key: each for key, each in options.items() if key not in BUILT_OPTIONS}
    options |= {"model_path": own.pop("path")}
    own.pop("denoising_end")
    options |= own
    for place in (options, options.get("vae", {})):
        precision = str(place.get("precision"))
        if precision in PRECISIONS and PRECISIONS[precision].is_quantized:
            place["precision"] = "auto"
    if config.tokenizer_path is not None:
        options["tokenizer_path"] = str(Path(config.tokenizer_path) / "tokenizer_2")
    return DiffusionConfig(**options)


def cut_schedule(scheduler: Scheduler[Any], start: float | None, end: float | None) -> None:
    """Leave out the steps whose timesteps are not between two shares of the training steps.

    As ``get_timesteps`` of diffusers' ``StableDiffusionXLImg2ImgPipeline``, and its base model's
    ``denoising_end``. Steps that a scheduler begins with already stay left out.

    Raises:
        RequestError: No step is left.
    """
    planned, trained = scheduler.planned_timesteps, scheduler.config.num_train_timesteps
    if start is not None:
        left = int(np.sum(planned < round(trained - start * trained)))
        if scheduler.order == 2 and left % 2 == 0:
            left += 1  # or it would begin between the two calls of a step
        _require_steps("denoising_start", start, left, len(planned))
        scheduler.set_begin_index(len(planned) - left)
    if end is not None and end < 1:
        own = scheduler.timesteps
        kept = int(np.sum(own >= round(trained - end * trained)))
        _require_steps("denoising_end", end, kept, len(own))
        scheduler.set_end_index(len(planned) - len(own) + kept)


def _require_steps(name: str, share: float, left: int, count: int) -> None:
    if not 0 < left <= count:
        raise RequestError(
            f"{name} is {share:g}: of {count} calls of the denoiser, none is left",
            allowed="a share of the schedule with steps in it",
            fix=f"give another {name}, or more num_inference_steps",
        )
