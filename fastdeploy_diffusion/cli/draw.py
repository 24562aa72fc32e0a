"""A generation that is watched: build, draw, and say on stderr how far it is."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastdeploy_diffusion.cli.pipeline import open_pipeline
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.predictors.request import GenerationRequest
from fastdeploy_diffusion.predictors.result import GenerationResult, StepEvent


def draw(config: DiffusionConfig, request: GenerationRequest) -> GenerationResult:
    """Serve one request, with a progress bar where stderr is a terminal.

    Raises:
        DiffusionError: As `open_pipeline` and the pipeline's ``stream``.
    """
    events = open_pipeline(config).stream(request)
    with _show_progress() as show:
        for event in events:
            show(event)
            if event.result is not None:
                return event.result
    raise EngineError("the loop ended without a result")


@contextmanager
def _show_progress() -> Iterator[Callable[[StepEvent], None]]:
    if not sys.stderr.isatty():
        yield lambda event: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    seconds = 0.0
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        console=Console(stderr=True),
        redirect_stdout=False,
        transient=True,
    ) as progress:
        task = progress.add_task("building and checking", total=None, speed="")

        def show(event: StepEvent) -> None:
            nonlocal seconds
            seconds += event.seconds
            progress.update(
                task,
                description="drawing",
                completed=event.step,
                total=event.total,
                speed=f"{event.step / seconds:.2f} steps/s",
            )

        yield show
