"""The judge's score of a model in the box on every engine and precision that runs here.

``python benchmarks/judge_engines.py`` draws the 200 captions of the tests on each, and compares the
pictures with those of the first: OpenVINO, if it is there. ``--model flux-shapes --engines openvino
--precisions fp32,int8`` draws less. With ``--passes downsample-tokens`` it draws them on the first
engine alone, in float32, without passes and with these.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "examples"))
from shapes.scoring import choose_scenes, is_right

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.benchmark.shapes_judge import judge
from fastdeploy_diffusion.engines.registry import engine_names
from fastdeploy_diffusion.errors import EngineUnavailableError
from fastdeploy_diffusion.picture_quality import measure_psnr
from fastdeploy_diffusion.pipelines.opening import open_pipeline
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor

# The Paddle layer itself is the reference that each build is compared with.
ENGINES = [name for name in engine_names() if name != "paddle-eager"]
ENGINES.sort(key=lambda name: name != "openvino")
STEPS, BATCH = 20, 20


def main() -> None:
    """Judge every engine in every precision, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("shapes", "flux-shapes"), default="shapes")
    for name, default in {"engines": ENGINES, "precisions": PRECISIONS, "passes": ()}.items():
        parser.add_argument(f"--{name}", type=split, default=default, help="NAME,NAME,…")
    options = parser.parse_args()
    choices: dict[str, dict[str, Any]] = {
        f"{engine} {precision}": {"engine": engine, "precision": precision}
        for engine in options.engines
        for precision in options.precisions
    }
    if passes := options.passes:
        own = {"engine": options.engines[0], "precision": "fp32"}
        choices = {"no passes": {**own, "passes": []}, ", ".join(passes): {**own, "passes": passes}}
    rows: dict[str, Any] = {}
    first = None
    for name, choice in choices.items():
        try:
            pipeline = open_pipeline(
                DiffusionConfig.from_preset(options.model, cpu_fallback=False, **choice)
            )
        except EngineUnavailableError as error:
            rows[name] = {"missing": error.problem}
            continue
        pictures = draw(pipeline)
        first = pictures if first is None else first
        rows[name] = rate(pipeline, pictures, first)
        print(name, rows[name], file=sys.stderr, flush=True)
        pipeline.close()
    print(json.dumps(rows, indent=2))


def split(text: str) -> list[str]:
    """Split names at commas."""
    return text.split(",")


def draw(pipeline: DiffusionPredictor[Any]) -> list[Any]:
    """Draw the captions, a seed each."""
    captions = [scene.caption(language) for scene, language in choose_scenes()]
    pictures = []
    for start in range(0, len(captions), BATCH):
        prompts = captions[start : start + BATCH]
        seeds = range(start, start + len(prompts))
        pictures += pipeline.generate(prompts, seed=seeds, num_inference_steps=STEPS).images
    return pictures


def rate(
    pipeline: DiffusionPredictor[Any], pictures: list[Any], first: list[Any]
) -> dict[str, Any]:
    """Count the right ones, and compare them with the first engine's."""
    marks = [
        is_right(scene, judge(picture))
        for (scene, _), picture in zip(choose_scenes(), pictures, strict=True)
    ]
    pairs = zip(pictures, first, strict=True)
    differing = [
        psnr for pair in pairs if (psnr := measure_psnr(*(np.stack([each]) for each in pair)))
    ]
    return {
        "right": sum(marks),
        "captions": len(marks),
        "lowest_psnr_db": min(differing, default=None),
        "mean_psnr_db": float(np.mean(differing)) if differing else None,
        "relative_errors": {each.name: each.relative_error for each in pipeline.report.components},
        "precisions": {each.name: each.precision for each in pipeline.report.components},
    }


if __name__ == "__main__":
    main()
