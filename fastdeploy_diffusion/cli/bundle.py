"""``bundle``: a folder to copy to a machine that only draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastdeploy_diffusion.cli.build import Size
from fastdeploy_diffusion.cli.json_text import to_json
from fastdeploy_diffusion.cli.pipeline import open_pipeline, quantize_first
from fastdeploy_diffusion.cli.progress import show_progress
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.memory_room import format_size

if TYPE_CHECKING:
    from fastdeploy_diffusion.runtime.bundle import Bundle


def make_bundle(
    config: DiffusionConfig,
    sizes: Sequence[Size],
    folder: Path,
    chunks: Sequence[int | None],
    shown: Sequence[int | None],
    *,
    encoder: bool = False,
) -> Bundle:
    """Build a pipeline for some sizes, and write it into a folder; raises as `write_bundle`."""
    pipeline = open_pipeline(config)
    quantize_first(pipeline)
    # Not above: it imports Paddle.
    from fastdeploy_diffusion.compiler.bundle_writer import write_bundle

    with show_progress("building and checking"):
        return write_bundle(pipeline, sizes, folder, chunks, shown, encoder=encoder)


def format_bundle(folder: Path, bundle: Bundle, as_json: bool) -> str:
    """Format the bundle's files and sizes, for people or for programs."""
    if as_json:
        return to_json({"folder": str(folder), **bundle.model_dump(mode="json")})
    components = bundle.components.items()
    sizes = ", ".join(f"{width} x {height}" for width, height in bundle.sizes)
    places = dict.fromkeys(f"{each.engine} on {each.device}" for _, each in components)
    prompts = ""
    if bundle.chunks != [1]:
        prompts = f", prompts of {' or '.join(map(str, bundle.chunks))} chunks"
    if bundle.shown != [1]:
        prompts += f", {' or '.join(map(str, bundle.shown))} pictures for each IP-Adapter"
    taken = sum(size for size, _ in bundle.files.values())
    return (
        f"{folder}  {format_size(taken)}, for {sizes} pixels{prompts} with {', '.join(places)}\n"
        f"on a machine that has it: fastdeploy-diffusion generate PROMPT --model {folder.name}"
    )
