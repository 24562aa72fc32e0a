"""``generate --prompts``: draws the rows of a file, but for pictures that are there already."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastdeploy_diffusion.checkpoints import Checkpoint, open_configured
from fastdeploy_diffusion.cli.draw import Drawing, draw_requests, split_evenly
from fastdeploy_diffusion.cli.kept_pictures import KeptPicture
from fastdeploy_diffusion.cli.output import ListedFiles, OutputTarget
from fastdeploy_diffusion.cli.pipeline import open_pipeline
from fastdeploy_diffusion.cli.progress import ShowProgress, show_progress
from fastdeploy_diffusion.cli.request import make_cli_request
from fastdeploy_diffusion.cli.result import format_json, format_text
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.noise import check_seed, count_seeds, new_seed
from fastdeploy_diffusion.request_fields import WEIGHTED
from fastdeploy_diffusion.requests.checked_values import check_number
from fastdeploy_diffusion.requests.prompt_file import PromptRow, read_prompt_file
from fastdeploy_diffusion.requests.request import GenerationRequest
from fastdeploy_diffusion.shown import show

if TYPE_CHECKING:
    from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor

MOST_PICTURES = 100_000
_EXAMPLE = 'fastdeploy-diffusion generate "a large red star on a blue background"'


class RowRequest(NamedTuple):
    """The request of a row, and the files of its pictures.

    Args:
        request: Of all of them; its seed is ``None`` where any seed will do.
    """

    row: PromptRow
    request: GenerationRequest
    files: list[Path]


class RowPicture(NamedTuple):
    """One picture to draw, and the request of its row."""

    request: GenerationRequest
    seed: int
    file: Path


class RowsDrawn(NamedTuple):
    """The pictures of a file's rows.

    Args:
        drawing: Those that were drawn now.
        skipped: Files that were there already.
        grid: The file of all pictures, if one was asked for.
    """

    drawing: Drawing
    skipped: list[Path]
    grid: Path | None


def require_prompt(prompt: str | None) -> None:
    """Refuse to draw without a prompt.

    Raises:
        RequestError: There is none.
    """
    if prompt is None:
        raise RequestError(
            "there is no PROMPT", allowed="a PROMPT, or --prompts FILE", fix=_EXAMPLE
        )


def draw_rows(
    config: DiffusionConfig,
    path: str,
    defaults: Mapping[str, Any],
    target: OutputTarget,
    *,
    with_grid: bool,
) -> RowsDrawn:
    """Draw the rows of a file of prompts; all are checked before the first picture.

    Picture ``i`` of row ``n`` is ``NAME-n-i``, and ``NAME-n`` if it is the only one. A file that is
    there, and is what its row asks for, is left as it is.

    Args:
        defaults: Settings of rows that do not give them; None means "not given".
        with_grid: Write a grid of all pictures at the end.

    Raises:
        RequestError: The file or a row of it cannot be used; or a picture is there that is not what
            its row asks for, without ``--overwrite``.
        DiffusionError: As `open_pipeline` and the pipeline's ``stream``; or a picture cannot be
            written.
    """
    checkpoint = open_configured(config)
    config = checkpoint.complete(config)
    rows = _make_requests(checkpoint, config, path, defaults, target)
    files = [file for each in rows for file in each.files]
    grid = target.name_grid(target.folder / target.stem) if with_grid else None
    target.check_folder()
    if grid and len(files) == 1:
        raise RequestError("--grid has no effect on one picture", fix="leave --grid out")
    pipeline = open_pipeline(config, checkpoint)
    with show_progress("checking rows") as tell:
        wanted = _find_missing(pipeline, rows, target, tell, same_size=with_grid)
        if grid and os.path.lexists(grid) and wanted and not target.overwrite:
            raise RequestError(
                f"{grid} exists already, and shows other pictures",
                fix="choose another --output, or add --overwrite",
            )
        requests = list(_join_pictures(pipeline, config, wanted))
        for request in requests:  # what does not fit into memory is refused now, too
            pipeline.stream(request).close()
    missing = ListedFiles(target, [each.file for each in wanted], files, grid or Path())
    drawing = Drawing.of_nothing(pipeline.report)
    try:
        if requests:
            drawing = draw_requests(pipeline, requests, missing, with_grid=with_grid)
        elif grid and not os.path.lexists(grid):
            missing.save_grid()
    except BaseException:
        print("the same command goes on with the others", file=sys.stderr)
        raise
    left = set(missing.saved)
    return RowsDrawn(drawing, [file for file in files if file not in left], grid)


def format_rows(rows: RowsDrawn, warnings: Sequence[str] | None) -> str:
    """Summarise in a few lines what was drawn, and how many pictures were there already.

    Args:
        warnings: Those shown on stderr, for JSON; ``None`` for people.
    """
    drawing, skipped, grid = rows
    if warnings is not None:
        return format_json(drawing, warnings, grid, skipped)
    drawn = len(drawing.pictures)
    lines = [format_text(drawing)] if drawn else []
    lines += [f"{grid}: all {drawn + len(skipped)} pictures"] if grid else []
    return "\n".join([*lines, f"drawn: {drawn}; there already, and skipped: {len(skipped)}"])


def _make_requests(
    checkpoint: Checkpoint,
    config: DiffusionConfig,
    path: str,
    defaults: Mapping[str, Any],
    target: OutputTarget,
) -> list[RowRequest]:
    rows, pictures = read_prompt_file(path, checkpoint.family.request_class), 0
    made = []
    for number, row in enumerate(rows, 1):
        with row.tell_place():
            settings = {**defaults, **row.settings}
            if settings["prompt"] is None:
                raise RequestError(
                    "the row has no prompt",
                    allowed="a prompt in each row, or PROMPT for those without one",
                )
            if settings["seed"] is None:
                settings["seed"] = config.defaults.seed
            if settings["seed"] is not None:
                check_seed(settings["seed"])
            count = check_number("num_images_per_prompt", settings["num_images_per_prompt"])
            pictures += count
            if pictures > MOST_PICTURES:
                raise RequestError(
                    "there are too many pictures",
                    allowed=f"at most {MOST_PICTURES:,}, all rows together",
                    fix="split the file",
                )
            request = make_cli_request(checkpoint, settings.pop("prompt"), settings)
        own = replace(target, stem=f"{target.stem}-{number}")
        made.append(RowRequest(row, request, [own.name_file(i, count) for i in range(count)]))
    if defaults["prompt"] is not None and all("prompt" in each.settings for each in rows):
        raise RequestError(
            f"PROMPT has no effect: all rows of {path} have a prompt of their own",
            fix="leave PROMPT out",
        )
    return made


def _find_missing(
    pipeline: DiffusionPredictor[Any],
    rows: Sequence[RowRequest],
    target: OutputTarget,
    tell: ShowProgress,
    *,
    same_size: bool,
) -> list[RowPicture]:
    """Check all rows, and list the pictures that are not there yet.

    Args:
        same_size: Refuse pictures of several sizes.

    Raises:
        RequestError: A row is refused, or one of its files is there and is something else.
    """
    found, first = [], None
    for number, (row, request, files) in enumerate(rows, 1):
        with row.tell_place():
            own = _take_first(request)
            settings = pipeline.describe_request(own)
            size = _describe_size(own, settings)
            if same_size and size != (first := first or size):
                raise RequestError(
                    f"the picture is {size}, and that of the first row {first}",
                    allowed="--grid for pictures of one size",
                    fix="leave --grid out",
                )
            found += _list_missing(pipeline, request, files, target)
        tell("checking", number, len(rows), unit="row")
    return found


def _list_missing(
    pipeline: DiffusionPredictor[Any],
    request: GenerationRequest,
    files: Sequence[Path],
    target: OutputTarget,
) -> list[RowPicture]:
    seed, there = request.seed, [os.path.lexists(file) for file in files]
    assert seed is None or isinstance(seed, int)  # as it was checked
    missing = [index for index, is_there in enumerate(there) if not is_there]
    if any(there):
        expected = pipeline.describe_picture(_take_first(request))
    for index in (index for index, is_there in enumerate(there) if is_there):
        kept = KeptPicture(files[index], expected)
        if seed is None and kept.seed is not None and not kept.difference:
            seed = (kept.seed - index) % 2**64  # the others of the row follow it
        difference = kept.difference or _compare_seeds(kept.seed, seed, index)
        if difference and not target.overwrite:
            raise RequestError(
                f"{files[index]} exists already, and is not what the row asks for: {difference}",
                fix="choose another --output, or add --overwrite",
            )
        missing += [index] if difference else []
    seed = new_seed() if seed is None else seed
    return [
        RowPicture(request, count_seeds(seed, index, 1)[0], files[index])
        for index in sorted(missing)
    ]


def _take_first(request: GenerationRequest) -> GenerationRequest:
    """Make the request of a row's first picture alone."""
    seed = 0 if request.seed is None else request.seed
    return replace(request, seed=seed, num_images_per_prompt=1)


def _compare_seeds(found: int | None, first: int | None, index: int) -> str:
    wanted = None if first is None else count_seeds(first, index, 1)[0]
    return "" if found == wanted else f"its seed is {found}, and would be {wanted}"


def _describe_size(request: GenerationRequest, settings: Mapping[str, Any]) -> str:
    scale = settings.get("hires_scale") or 1
    size = f"{settings['width']} x {settings['height']}"
    if request.padding_mask_crop is not None:
        return f"as large as {show(request.image)}"
    return size if scale == 1 else f"{size}, enlarged by {scale:g}"


def _join_pictures(
    pipeline: DiffusionPredictor[Any], config: DiffusionConfig, pictures: Sequence[RowPicture]
) -> Iterator[GenerationRequest]:
    """Make requests of pictures that differ in prompt and seed alone, as many at once as pay."""

    def describe(picture: RowPicture) -> GenerationRequest:
        request = picture.request
        syntax = request.prompt_syntax or config.defaults.prompt_syntax
        # Long prompts are encoded in as many chunks as the longest of a request needs.
        prompt = request.prompt if syntax == WEIGHTED else ""
        return replace(request, prompt=prompt, seed=None, num_images_per_prompt=1)

    for _, group in groupby(pictures, describe):
        alike = list(group)
        first = alike[0].request
        for size in split_evenly(len(alike), pipeline.choose_batch(first)):
            taken, alike = alike[:size], alike[size:]
            yield replace(
                first,
                prompt=[str(each.request.prompt) for each in taken],
                seed=[each.seed for each in taken],
                num_images_per_prompt=1,
            )
