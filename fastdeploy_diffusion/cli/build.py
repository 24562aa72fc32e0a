"""``build``: make and prove builds for later starts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from typing import TYPE_CHECKING

from fastdeploy_diffusion.cli.json_text import to_json
from fastdeploy_diffusion.cli.pipeline import open_pipeline, quantize_first
from fastdeploy_diffusion.cli.result import describe_component
from fastdeploy_diffusion.cli.table import align
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.request_fields import MOST_CHUNKS

if TYPE_CHECKING:
    from fastdeploy_diffusion.predictors.result import PipelineReport

Size = tuple[int | None, int | None]


def parse_sizes(text: str | None) -> list[Size]:
    """Read ``512x512,768x512`` as (width, height) pairs; nothing is the model's own size.

    Raises:
        ConfigError: It is not such a list.
    """
    if text is None:
        return [(None, None)]
    sizes: list[Size] = []
    for each in text.split(","):
        width, _, height = each.strip().partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            raise ConfigError(
                f"--size {text}: {each!r} is no size",
                allowed="WIDTHxHEIGHT in pixels, several with commas between",
                fix="--size 512x512,768x512",
            )
        sizes.append((int(width), int(height)))
    return sizes


def parse_chunks(text: str | None) -> list[int | None]:
    """Read ``1,2,3``, numbers of a prompt's chunks; nothing is those of plain prompts.

    Raises:
        ConfigError: It is not such a list.
    """
    if text is None:
        return [None]
    counts = text.replace(" ", "").split(",")
    if not all(re.fullmatch("[1-9][0-9]?", each) and int(each) <= MOST_CHUNKS for each in counts):
        raise ConfigError(
            f"--chunks is {text}",
            allowed=f"numbers of chunks of 75 tokens, 1 to {MOST_CHUNKS}, with commas between",
            fix="--chunks 1,2",
        )
    return [int(each) for each in counts]


def parse_shown(text: str | None) -> list[int | None]:
    """Read ``1,2,3``, numbers of pictures for each IP-Adapter; nothing is one picture.

    Raises:
        ConfigError: It is not such a list.
    """
    if text is None:
        return [None]
    counts = text.replace(" ", "").split(",")
    if not all(re.fullmatch("[1-9][0-9]?", each) for each in counts):
        raise ConfigError(
            f"--ip-images is {text}",
            allowed="numbers of pictures for each IP-Adapter, 1 to 99, with commas between",
            fix="--ip-images 1,2",
        )
    return [int(each) for each in counts]


def build_all(
    config: DiffusionConfig,
    sizes: Sequence[Size],
    chunks: Sequence[int | None],
    shown: Sequence[int | None],
    *,
    encoder: bool = False,
) -> list[tuple[str, PipelineReport]]:
    """Build a pipeline's components for each size; returns each size's name and report.

    Raises:
        DiffusionError: As `open_pipeline` and the pipeline's ``build``.
    """
    pipeline = open_pipeline(config)
    quantize_first(pipeline)
    reports = []
    for (width, height), count, own in product(sizes, chunks, shown):
        report = pipeline.build(
            height=height, width=width, chunks=count, shown=own, encoder=encoder
        )
        name = f"{width} x {height}" if width else "the model's size"
        name += f", chunks: {count}" if count else ""
        reports.append((f"{name}, pictures for each IP-Adapter: {own}" if own else name, report))
    return reports


def format_builds(reports: Sequence[tuple[str, PipelineReport]], as_json: bool) -> str:
    """Format the builds, for people or for programs."""
    if as_json:
        return to_json([{"size": name, **asdict(report)} for name, report in reports])
    lines = []
    for name, report in reports:
        rows = [
            ["", *describe_component(each), f"{each.build_seconds or 0:.1f} s"]
            for each in report.components
        ]
        passed_over = {
            f"  {engine} was passed over: {reason}"
            for each in report.components
            for engine, reason in each.passed_over.items()
        }
        lines += [f"{report.model}, {name}", *align(rows), *sorted(passed_over)]
    return "\n".join(lines)
