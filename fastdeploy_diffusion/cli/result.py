"""What ``generate`` prints: a summary for people, or JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.cli.table import align
from fastdeploy_diffusion.images import read_settings
from fastdeploy_diffusion.predictors.component import ComponentReport
from fastdeploy_diffusion.predictors.result import GenerationResult


def format_text(files: Sequence[Path], result: GenerationResult) -> str:
    """Summarise a generation in a few lines.

    Args:
        files: The files of ``result.images``, in order.
        result: With Pillow images.
    """
    settings = [read_settings(image) for image in result.images]
    report, timings = result.report, result.timings
    pictures = [
        [str(file), f"seed {each['seed']}", f"{each['width']} x {each['height']}"]
        for file, each in zip(files, settings, strict=True)
    ]
    calls = len(timings.steps)  # more than the steps with schedulers that correct a step
    calls_per_second = calls / sum(timings.steps)
    denoiser = timings.prologue + sum(timings.steps)
    return "\n".join(
        [
            *align(pictures),
            f"{report.model} ({report.family}), {report.scheduler}, "
            f"steps {settings[0]['num_inference_steps']}{_describe_guidance(settings[0])}"
            + ("" if report.memory == "resident" else f", memory {report.memory}"),
            *align([["", *describe_component(each)] for each in report.components]),
            *([report.advice] if report.advice else []),
            *(
                f"{each.component}: {each.kept} of {each.texts} texts were encoded before"
                for each in result.embeddings
                if each.kept
            ),
            f"{timings.total:.2f} s: text encoder {timings.text_encoder:.2f}, "
            f"denoiser {denoiser:.2f} (calls {calls}, {calls_per_second:.2f}/s), "
            f"VAE {timings.vae_decoder:.2f}, post-processing {timings.post_processing:.2f}; "
            f"before that, building and checking {timings.prepare:.2f} s",
        ]
    )


def format_json(files: Sequence[Path], result: GenerationResult, warnings: Sequence[str]) -> str:
    """Write a generation as JSON: images with their settings, what ran, timings, warnings.

    Args:
        files: The files of ``result.images``, in order; made absolute.
        result: With Pillow images.
        warnings: What was shown on stderr.
    """
    timings = result.timings
    content: dict[str, Any] = {
        "images": [
            {"file": str(file.absolute()), **read_settings(image)}
            for file, image in zip(files, result.images, strict=True)
        ],
        **asdict(result.report),
        "embeddings": [asdict(each) for each in result.embeddings],
        "timings": {**asdict(timings), "total": timings.total},
        "warnings": list(warnings),
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _describe_guidance(settings: dict[str, Any]) -> str:
    names = {"guidance_scale": "guidance scale", "true_cfg_scale": "true CFG scale"}
    return "".join(
        f", {text} {settings[name]:g}" for name, text in names.items() if name in settings
    )


def describe_component(report: ComponentReport) -> list[str]:
    """Say on what a component runs, and how well that is proven, in cells."""
    if report.relative_error is not None:
        proof = f"proven to {report.relative_error:.0e} of the Paddle layer"
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
    return [report.name, report.engine, report.device, report.precision, proof]
