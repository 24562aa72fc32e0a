"""``quantize``: calibrates int8, and shows what it costs, in a table and in pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from fastdeploy_diffusion.cli.json_text import to_json
from fastdeploy_diffusion.cli.model import load_config
from fastdeploy_diffusion.cli.pipeline import open_pipeline
from fastdeploy_diffusion.cli.progress import show_progress
from fastdeploy_diffusion.cli.result import describe_component
from fastdeploy_diffusion.cli.table import align
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import ConfigError, EngineUnavailableError, RequestError
from fastdeploy_diffusion.images import check_folder, explain_unwritten
from fastdeploy_diffusion.precision import INT8, PRECISIONS
from fastdeploy_diffusion.whole_file import write_whole

if TYPE_CHECKING:
    from fastdeploy_diffusion.int8_report import BlockCost
    from fastdeploy_diffusion.picture_quality import Pictures
    from fastdeploy_diffusion.predictors.component import ComponentReport
    from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor
    from fastdeploy_diffusion.predictors.result import PipelineReport

_BLOCK_HEADINGS = ("block", "layers", "cost", "runs in")


class Pair(NamedTuple):
    """A held-out prompt, drawn in float32 and as the pipeline runs; (1, H, W, 3) uint8."""

    prompt: str
    exact: Pictures
    given: Pictures


def check_page(output: str | None) -> Path | None:
    """Check, before anything is calibrated, that a page can be written.

    Raises:
        RequestError: It exists, is no ``.html`` file, or its folder cannot be written.
    """
    if output is None:
        return None
    page = Path(output).expanduser()
    if page.suffix.lower() not in (".html", ".htm"):
        raise RequestError(
            f"--output is {output!r}", allowed="a file whose name ends in .html", fix="page.html"
        )
    check_folder(page.parent)
    if page.exists():
        raise RequestError(f"{page} exists already", fix="choose another --output")
    return page


def load_int8(
    model: str | None, file: str | None, precision: str | None, **options: Any
) -> DiffusionConfig:
    """Make the configuration of the command: in int8, unless it says which components are.

    Raises:
        ConfigError: As `load_config`, or another precision is asked for.
    """
    if precision is None and not load_config(model, file).list_quantized():
        precision = INT8
    config = load_config(model, file, precision=precision, **options)
    if not config.list_quantized():
        raise ConfigError(
            f"precision is {config.precision!r}, and nothing is in int8",
            allowed=", ".join(name for name, each in PRECISIONS.items() if each.is_quantized),
            fix="--precision int8",
        )
    return config


def quantize_all(config: DiffusionConfig, page: Path | None) -> tuple[PipelineReport, list[Pair]]:
    """Quantize a pipeline and build it, with progress on stderr.

    Args:
        page: Where pictures are shown; ``None`` to draw none.

    Returns:
        The report, and a pair of pictures for each held-out prompt.

    Raises:
        RequestError: There is a page, and what is built for another machine draws no pictures.
        DiffusionError: As `open_pipeline` and the pipeline's ``quantize`` and ``build``.
    """
    pipeline = open_pipeline(config)
    if page is not None:
        _require_pictures(pipeline)
    from fastdeploy_diffusion.compiler.int8_effort import plan_effort
    from fastdeploy_diffusion.compiler.int8_search import draw_held_out, open_like

    pairs: list[Pair] = []
    with show_progress("opening") as show:
        pipeline.quantize(show)
        show("building", 0, 1)
        report = pipeline.build()
        if page is not None:
            effort = plan_effort(pipeline)
            given = draw_held_out(pipeline, effort, "drawing in int8 for the page", show)
            pipeline.close()  # two models need not be in memory at once
            with open_like(pipeline, "fp32") as exact_pipeline:
                exact = draw_held_out(
                    exact_pipeline, effort, "drawing in float32 for the page", show
                )
            pairs = [
                Pair(prompt, exact[[index]], given[[index]])
                for index, prompt in enumerate(effort.prompts.held_out)
            ]
    return report, pairs


def _require_pictures(pipeline: DiffusionPredictor[Any]) -> None:
    for each in pipeline.report.components:
        placement = pipeline.component(each.name).placement
        if placement.spec.target is not None:
            try:
                placement.engine.require_run(placement.spec)
            except EngineUnavailableError as error:
                raise RequestError(
                    f"--output shows pictures, and {each.name} is built for "
                    f"{placement.spec.target} and does not run here: {error.problem}",
                    allowed="a table, without --output",
                    fix="leave out --output",
                ) from error


def format_quantization(report: PipelineReport, as_json: bool) -> str:
    """Format the layers in int8 and their cost, for people or for programs."""
    if as_json:
        return to_json(asdict(report))
    lines = [f"{report.model} ({report.family}), {report.scheduler}"]
    for each in report.components:
        lines += align([describe_component(each)])
        lines += describe_int8(each)
        if each.int8:
            lines += align([_BLOCK_HEADINGS, *_list_blocks(each)]) if each.int8.blocks else []
    return "\n".join(lines)


def describe_int8(component: ComponentReport) -> list[str]:
    """Describe in a few lines which layers of a component are in int8, and what that costs."""
    found = component.int8
    if found is None:
        return []
    if not PRECISIONS[component.precision].is_quantized:
        return [f"  not in int8: {component.fallback}"]
    lines = [f"  {found.quality}; the target is {found.target:g} dB"]
    if found.stand_in:
        lines.append(f"  measured on {found.stand_in}, which stands in for {component.engine}")
    if found.unquantized != "fp32" and found.unquantized_psnr is not None:
        lines.append(f"  wholly in {found.unquantized}: {found.unquantized_psnr:.1f} dB")
    if found.own_psnr is not None:
        lines.append(f"  by itself: {found.own_psnr:.1f} dB")
    if found.blocks:
        lines.append(
            f"  {found.quantized} layers in int8; {found.sensitive} sensitive ones are not"
        )
    lines += [
        f"  {each.block} stays in {found.unquantized}: alone it costs {_format_cost(each)}"
        for each in found.kept
    ]
    return lines


def write_page(page: Path, report: PipelineReport, pairs: Sequence[Pair]) -> None:
    """Write the page: the table of costs, and the pictures of both in pairs.

    Raises:
        RequestError: It cannot be written.
    """
    try:
        write_whole(page, format_page(report, pairs).encode())
    except OSError as error:
        raise explain_unwritten(page, error) from error


def format_page(report: PipelineReport, pairs: Sequence[Pair]) -> str:
    """Format the page, which needs nothing from outside."""
    from fastdeploy_diffusion.picture_quality import measure_psnr, measure_ssim

    title = f"int8 of {Path(report.model).name}"
    body = [f"<h1>{escape(title)}</h1>", f"<p>{escape(report.scheduler)}</p>"]
    for each in report.components:
        if each.int8 is None:
            continue
        body.append(f"<section><h2>{escape(' '.join(describe_component(each)))}</h2>")
        body += [f"<p>{escape(line.strip())}</p>" for line in describe_int8(each)]
        if each.int8.blocks:
            body.append(_tabulate(_BLOCK_HEADINGS, _list_blocks(each)))
        body.append("</section>")
    body.append("<section><h2>Held-out prompts: float32, then as it runs</h2>")
    for pair in pairs:
        psnr, ssim = (measure(pair.given, pair.exact) for measure in (measure_psnr, measure_ssim))
        quality = "the same" if psnr is None else f"PSNR {psnr:.1f} dB, SSIM {ssim:.3f}"
        images = "".join(
            f'<img alt="{escape(name)}" src="{_inline(pixels[0])}">'
            for name, pixels in (("float32", pair.exact), ("int8", pair.given))
        )
        body.append(
            f'<figure class="pair">{images}<figcaption>{escape(pair.prompt)}: {quality}'
            "</figcaption></figure>"
        )
    body.append("</section>")
    folder = resources.files("fastdeploy_diffusion.benchmark.report")
    style = folder.joinpath("style.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{style}.pair img {{ max-width: 49%; }}\n</style>",
            "</head>\n<body>\n<main>",
            *body,
            "</main>\n</body>\n</html>\n",
        ]
    )


def _list_blocks(component: ComponentReport) -> list[tuple[str, str, str, str]]:
    found = component.int8
    assert found is not None  # the caller has asked
    return [
        (
            each.block,
            str(each.layers),
            _format_cost(each),
            found.unquantized if each.is_kept else "int8",
        )
        for each in found.blocks
    ]


def _format_cost(block: BlockCost) -> str:
    return "not measured" if block.error is None else f"{block.error:.2%}"


def _tabulate(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f'<th scope="col">{escape(each)}</th>' for each in head)
    lines = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return (
        f'<div class="wide"><table class="figures"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _inline(pixels: np.ndarray) -> str:
    """Encode a picture as a PNG file in a URL."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
