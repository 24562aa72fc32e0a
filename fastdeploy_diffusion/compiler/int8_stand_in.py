"""Calibration on the CPU for engines that cannot be observed, or whose builds run elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastdeploy_diffusion.compiler.int8_search import change_added
from fastdeploy_diffusion.config.diffusion_config import COMPONENTS
from fastdeploy_diffusion.config.option_sections import PaddleConfig, TensorRTConfig
from fastdeploy_diffusion.errors import EngineUnavailableError
from fastdeploy_diffusion.quantization import Quantization

if TYPE_CHECKING:
    from fastdeploy_diffusion.compiler.built_component import BuiltComponent
    from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor


def find_unobserved(components: Sequence[BuiltComponent]) -> str:
    """Return the first engine that cannot show what layers read; empty if there is none."""
    engines = (each.placement.engine for each in components)
    return next((each.name for each in engines if not each.can_be_observed), "")


@contextmanager
def open_stand_in(
    pipeline: DiffusionPredictor[Any], components: Sequence[BuiltComponent]
) -> Iterator[tuple[DiffusionPredictor[Any], list[BuiltComponent]]]:
    """Open the same model on the fastest engine of the CPU, until the block ends.

    Args:
        components: Those to be quantized.

    Returns:
        The pipeline, and its own ones of these, with the same passes, so that layers have the same
        names; nothing of them is quantized yet.

    Raises:
        EngineUnavailableError: The CPU has no engine that runs int8.
    """
    changes: dict[str, Any] = {
        "engine": "auto",
        "device": "cpu",
        "target": None,
        "tensorrt": TensorRTConfig(),
        "paddle": PaddleConfig(),
        "cpu_fallback": False,
    }
    for name in COMPONENTS:
        own = getattr(pipeline.config, name)
        changes[name] = own.model_copy(update={"engine": None, "device": None})
    changes |= change_added(pipeline.config, engine=None, device=None)
    config = pipeline.config.model_copy(update=changes)
    try:
        opened = type(pipeline)(config, checkpoint=pipeline.checkpoint)
    except EngineUnavailableError as error:
        raise EngineUnavailableError(
            f"int8 for {find_unobserved(components)} is calibrated on the CPU: {error.problem}",
            allowed=error.allowed or "openvino or onnxruntime beside it",
            fix=error.fix or "take bf16",
        ) from error
    with opened:
        stand_ins: list[Any] = [opened.component(each.name) for each in components]
        for each, component in zip(stand_ins, components, strict=True):
            each.placer.names = component.placer.name_passes()
            each.quantize(Quantization())
        yield opened, stand_ins
