"""Draws pictures batch by batch: each is saved as soon as it is done, with progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastdeploy_diffusion.checkpoints import open_configured
from fastdeploy_diffusion.cli.output import PictureFiles
from fastdeploy_diffusion.cli.pipeline import open_pipeline
from fastdeploy_diffusion.cli.progress import ShowProgress, show_progress
from fastdeploy_diffusion.cli.request import check_early, make_cli_request
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.images import read_settings
from fastdeploy_diffusion.noise import count_seeds, new_seed

if TYPE_CHECKING:
    from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor
    from fastdeploy_diffusion.predictors.result import (
        GenerationResult,
        PipelineReport,
        StageTimings,
        StepEvent,
    )
    from fastdeploy_diffusion.predictors.texts import EmbeddingReport
    from fastdeploy_diffusion.requests.request import GenerationRequest


class Picture(NamedTuple):
    """A picture that was saved, without its pixels: there may be very many."""

    file: Path
    settings: Mapping[str, Any]


class Drawing(NamedTuple):
    """The pictures of a command, or of one batch of it.

    Args:
        timings: Of all batches together; ``steps`` are those of one batch after the other.
        embeddings: Of the first batch: the others find its texts encoded.
    """

    pictures: list[Picture]
    report: PipelineReport
    timings: StageTimings
    embeddings: tuple[EmbeddingReport, ...]

    @classmethod
    def of_nothing(cls, report: PipelineReport) -> Drawing:
        """Describe that nothing was drawn."""
        from fastdeploy_diffusion.predictors.result import StageTimings

        return cls([], report, StageTimings(0.0, 0.0, 0.0, (), 0.0, 0.0), ())


def draw(
    config: DiffusionConfig,
    prompt: str,
    settings: Mapping[str, Any],
    files: PictureFiles,
    *,
    with_grid: bool = False,
) -> Drawing:
    """Draw pictures of a prompt, at once as many as pay and fit into memory.

    Checks that do not need Paddle, which takes seconds to import, come first.

    Args:
        files: The files of the pictures, and their number.
        with_grid: Write a grid of all pictures at the end.

    Raises:
        DiffusionError: As `open_pipeline`, `make_cli_request` and the pipeline's ``stream``; or a
            picture cannot be written.
    """
    checkpoint = open_configured(config)
    config = checkpoint.complete(config)
    seed = settings["seed"] if settings["seed"] is not None else config.defaults.seed
    seed = new_seed() if seed is None else seed
    whole = make_cli_request(checkpoint, prompt, {**settings, "seed": seed})
    check_early(whole, config.defaults, checkpoint)
    pipeline = open_pipeline(config, checkpoint)
    sizes = split_evenly(files.count, pipeline.choose_batch(whole))
    firsts = accumulate(sizes[:-1], initial=0)
    requests = [
        replace(whole, num_images_per_prompt=size, seed=count_seeds(seed, first, size))
        for first, size in zip(firsts, sizes, strict=True)
    ]
    for size in dict.fromkeys(sizes):  # requests are refused before the first picture
        pipeline.describe_request(replace(whole, num_images_per_prompt=size))
    return draw_requests(pipeline, requests, files, with_grid=with_grid)


def draw_requests(
    pipeline: DiffusionPredictor[Any],
    requests: Sequence[GenerationRequest],
    files: PictureFiles,
    *,
    with_grid: bool,
) -> Drawing:
    """Draw requests one after another, and save the pictures of each.

    Args:
        requests: At least one, each with a list of its pictures' seeds.
        files: The files of the pictures, and their number.
        with_grid: Write a grid at the end.

    Raises:
        DiffusionError: As the pipeline's ``stream``; or a picture cannot be written.
    """
    batches = []
    with _tell_what_is_saved(files), show_progress("building and checking") as show:
        pipeline.quantize(show)
        for request in requests:
            assert isinstance(request.seed, Sequence)  # as the caller makes them
            result = _watch(pipeline.stream(request), files, len(request.seed), show)
            pictures = [Picture(files.save(image), read_settings(image)) for image in result.images]
            batches.append(Drawing(pictures, result.report, result.timings, result.embeddings))
        if with_grid:
            files.save_grid()
    return _join(batches)


def split_evenly(count: int, most: int) -> list[int]:
    """Split a number of pictures into batches of at most ``most``.

    They are of one size or of two: engines that compile for each size compile no more often.
    """
    batches = -(-count // most)
    small, larger = divmod(count, batches)
    return [small + 1] * larger + [small] * (batches - larger)


def _watch(
    events: Iterable[StepEvent], files: PictureFiles, size: int, show: ShowProgress
) -> GenerationResult:
    """Run one batch, and show its steps."""
    first, last = len(files.saved) + 1, len(files.saved) + size
    what = "drawing"
    if files.count > 1:
        what = f"drawing {first if size == 1 else f'{first} to {last}'} of {files.count}"
    seconds = 0.0
    for event in events:
        seconds += event.seconds
        show(what, event.step, event.total, f"{event.step / seconds:.2f} steps/s", "step")
        if event.result is not None:
            return event.result
    raise EngineError("the loop ended without a result")


def _join(batches: list[Drawing]) -> Drawing:
    first, timings = batches[0], [each.timings for each in batches]
    return Drawing(
        [picture for each in batches for picture in each.pictures],
        batches[-1].report,
        replace(
            first.timings,
            prepare=sum(each.prepare for each in timings),
            text_encoder=sum(each.text_encoder for each in timings),
            prologue=sum(each.prologue for each in timings),
            steps=tuple(seconds for each in timings for seconds in each.steps),
            vae_decoder=sum(each.vae_decoder for each in timings),
            post_processing=sum(each.post_processing for each in timings),
            beginning=sum(each.beginning for each in timings),
        ),
        first.embeddings,
    )


@contextmanager
def _tell_what_is_saved(files: PictureFiles) -> Iterator[None]:
    """Report which pictures are saved, where drawing ends early."""
    try:
        yield
    except BaseException:
        if files.count > 1:
            saved = files.saved
            places = {str(saved[0]): None, str(saved[-1]): None} if saved else {}
            which = f": {' to '.join(places)}" if saved else ""
            print(f"saved {len(saved)} of {files.count} pictures{which}", file=sys.stderr)
        raise
