"""A generation that is watched: build, draw, and say on stderr how far it is."""

from fastdeploy_diffusion.cli.pipeline import open_pipeline
from fastdeploy_diffusion.cli.progress import show_progress
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.predictors.request import GenerationRequest
from fastdeploy_diffusion.predictors.result import GenerationResult


def draw(config: DiffusionConfig, request: GenerationRequest) -> GenerationResult:
    """Serve one request, with a progress bar where stderr is a terminal.

    Raises:
        DiffusionError: As `open_pipeline` and the pipeline's ``stream``.
    """
    events = open_pipeline(config).stream(request)
    seconds = 0.0
    with show_progress("building and checking") as show:
        for event in events:
            seconds += event.seconds
            show("drawing", event.step, event.total, f"{event.step / seconds:.2f} steps/s")
            if event.result is not None:
                return event.result
    raise EngineError("the loop ended without a result")
