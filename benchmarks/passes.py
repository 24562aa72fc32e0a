"""Time a model with and without each pass, in turns.

``python benchmarks/passes.py --engine openvino`` draws the same picture without passes, with each
one alone and with all, in turns. It prints, for a call of the denoiser and for the VAE, the median
ratio to the plain build of the same turn, with the range. Every build has passed its proof; the
largest difference from the Paddle layer is printed beside it.
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from fastdeploy_diffusion import DiffusionConfig, GenerationRequest, SDPipeline
from fastdeploy_diffusion.passes.registry import pass_names


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a diffusers folder; the model in the box if left out")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--result", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args()
    sets = {"none": (), **{name: (name,) for name in pass_names()}, "all": pass_names()}
    request = GenerationRequest(prompt="a star", seed=7, num_inference_steps=options.steps)
    pipelines = {
        name: open_pipeline(options.model, options.engine, passes) for name, passes in sets.items()
    }
    seconds: dict[str, dict[str, list[float]]] = {
        name: {"denoiser": [], "vae_decoder": []} for name in sets
    }
    for turn in range(options.runs + 1):
        for name, pipeline in pipelines.items():
            timings = pipeline.generate(request).timings
            if turn:  # the first builds and warms up
                seconds[name]["denoiser"].append(statistics.median(timings.steps))
                seconds[name]["vae_decoder"].append(timings.vae_decoder)
    rows = {
        name: {
            stage: compare(seconds["none"][stage], seconds[name][stage])
            for stage in ("denoiser", "vae_decoder")
        }
        | {"errors": read_errors(pipelines[name])}
        for name in sets
    }
    for name, row in rows.items():
        print(name, json.dumps(row))
    if options.result:
        result = {
            "machine": read_cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "engine": options.engine,
            "packages": {name: version(name) for name in ("paddlepaddle", options.engine)},
            "rows": rows,
            "seconds": seconds,
        }
        options.result.parent.mkdir(parents=True, exist_ok=True)
        options.result.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def open_pipeline(model: str | None, engine: str, passes: Sequence[str]) -> SDPipeline:
    """The pipeline with these passes and no others."""
    choice = {"engine": engine, "passes": list(passes), "cpu_fallback": False}
    if model is None:
        return SDPipeline(DiffusionConfig.from_preset("shapes", **choice))
    return SDPipeline(DiffusionConfig(model_path=model, **choice))


def compare(plain: list[float], given: list[float]) -> dict[str, float]:
    """Seconds, and how many times as fast as the plain build, turn by turn."""
    ratios = [before / after for before, after in zip(plain, given, strict=True)]
    return {
        "median_seconds": round(statistics.median(given), 5),
        "times_plain": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
    }


def read_errors(pipeline: SDPipeline) -> dict[str, float]:
    """The largest difference of each component from the Paddle float32 layer."""
    return {each.name: each.relative_error for each in pipeline.report.components}


def read_cpu() -> str:
    """The CPU's model name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


if __name__ == "__main__":
    main()
