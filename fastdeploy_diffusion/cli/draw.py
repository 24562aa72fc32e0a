"""A generation that is watched: build, draw, and say on stderr how far it is."""

from collections.abc import Mapping
from typing import Any

from fastdeploy_diffusion.cli.pipeline import open_pipeline
from fastdeploy_diffusion.cli.progress import show_progress
from fastdeploy_diffusion.cli.request import make_cli_request
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.predictors.result import GenerationResult


def draw(config: DiffusionConfig, prompt: str, settings: Mapping[str, Any]) -> GenerationResult:
    """Serve one request, with a progress bar where stderr is a terminal.

    Args:
        config: What draws.
        prompt: What to draw.
        settings: As for `make_cli_request`.

    Raises:
        DiffusionError: As `open_pipeline`, `make_cli_request` and the pipeline's ``stream``.
    """
    pipeline = open_pipeline(config)
    events = pipeline.stream(make_cli_request(pipeline, prompt, settings))
    seconds = 0.0
    with show_progress("building and checking") as show:
        for event in events:
            seconds += event.seconds
            show("drawing", event.step, event.total, f"{event.step / seconds:.2f} steps/s")
            if event.result is not None:
                return event.result
    raise EngineError("the loop ended without a result")
