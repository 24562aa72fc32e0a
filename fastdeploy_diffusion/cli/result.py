"""The output of ``generate``: a summary for people, or JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdeploy_diffusion.cli.json_text import to_json
from fastdeploy_diffusion.cli.table import align

if TYPE_CHECKING:
    from fastdeploy_diffusion.cli.draw import Drawing
    from fastdeploy_diffusion.predictors.component import ComponentReport


# From here on, weights make so much of rounding that pictures may change.
_ILL_CONDITIONED = 0.05


def format_text(drawing: Drawing, grid: Path | None = None) -> str:
    """Summarise a generation in a few lines.

    Args:
        grid: The file of all pictures.
    """
    report, timings = drawing.report, drawing.timings
    settings = drawing.pictures[0].settings
    pictures = [
        [str(each.file), f"seed {each.settings['seed']}", _describe_size(each.settings)]
        for each in drawing.pictures
    ]
    calls = len(timings.steps)  # more than the steps for schedulers that correct a step
    calls_per_second = calls / sum(timings.steps)
    denoiser = timings.prologue + sum(timings.steps)
    return "\n".join(
        [
            *align(pictures),
            *([f"{grid}: all {len(pictures)} pictures"] if grid else []),
            f"{report.model} ({report.family}), {report.scheduler}, "
            f"steps {settings['num_inference_steps']}{_describe_guidance(settings)}"
            + ("" if report.memory == "resident" else f", memory {report.memory}"),
            *align([["", *describe_component(each)] for each in report.components]),
            *([report.advice] if report.advice else []),
            *(
                f"{each.component}: {each.kept} of {each.texts} texts were encoded before"
                for each in drawing.embeddings
                if each.kept
            ),
            f"{timings.total:.2f} s: text encoder {timings.text_encoder:.2f}, "
            f"denoiser {denoiser:.2f} (calls {calls}, {calls_per_second:.2f}/s), "
            f"VAE {timings.beginning + timings.vae_decoder:.2f}, "
            f"post-processing {timings.post_processing:.2f}; "
            f"before that, building and checking {timings.prepare:.2f} s",
        ]
    )


def format_json(
    drawing: Drawing,
    warnings: Sequence[str],
    grid: Path | None = None,
    skipped: Sequence[Path] | None = None,
) -> str:
    """Write a generation as JSON: images with their settings, what ran, timings, warnings.

    Args:
        drawing: Its files are made absolute.
        warnings: Those shown on stderr.
        grid: The file of all pictures.
        skipped: Files that were there already; ``None`` where there can be none.
    """
    timings = drawing.timings
    return to_json(
        {
            "images": [
                {"file": str(each.file.absolute()), **each.settings} for each in drawing.pictures
            ],
            **({} if skipped is None else {"skipped": [str(each.absolute()) for each in skipped]}),
            "grid": str(grid.absolute()) if grid else None,
            **asdict(drawing.report),
            "embeddings": [asdict(each) for each in drawing.embeddings],
            "timings": {**asdict(timings), "total": timings.total},
            "warnings": list(warnings),
        }
    )


def _describe_size(settings: Mapping[str, Any]) -> str:
    scale = settings.get("hires_scale")
    second = "" if scale is None else f", hires scale {scale:g}"
    return f"{settings['width']} x {settings['height']}{second}"


def _describe_guidance(settings: Mapping[str, Any]) -> str:
    names = {"guidance_scale": "guidance scale", "true_cfg_scale": "true CFG scale"}
    return "".join(
        f", {text} {settings[name]:g}" for name, text in names.items() if name in settings
    )


def _describe_rounding(error: float) -> str:
    if error < _ILL_CONDITIONED:
        return f"of which rounding explains {error:.0e}"
    return f"ill-conditioned in it: rounding alone makes {error:.0%}"


def describe_component(report: ComponentReport) -> list[str]:
    """Describe a component's placement and proof, in cells."""
    if report.relative_error is not None:
        proof = f"proven to {report.relative_error:.0e} of the Paddle layer"
        if report.changes_picture:
            proof += f" with {', '.join(report.changes_picture)}"
        if report.rounding_error is not None:
            proof += f", {_describe_rounding(report.rounding_error)}"
    elif report.unchecked:
        proof = f"not checked: {report.unchecked}"
    else:
        proof = "not checked yet"
    if report.target:
        proof = f"for {report.target}, {proof}"
    if report.cached:
        proof += ", kept build"
    if report.fallback:
        proof += ", a fallback"
    if report.left_out:
        proof += f", without {', '.join(report.left_out)}: a failed check"
    return [report.name, report.engine, report.device, report.precision, proof]
