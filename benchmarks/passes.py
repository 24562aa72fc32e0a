"""Time a model's components with and without passes, in turns, and keep every figure.

``python benchmarks/passes.py --engine openvino`` measures each pass alone, as
``fastdeploy-diffusion passes --measure`` does, and besides all of them together. Where a pass has
nothing to rewrite, two equal networks are compared: that ratio shows how much the machine wavers.
Every build has passed its proof; the largest difference from the Paddle layer is printed beside it.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.machine import describe_machine
from fastdeploy_diffusion.passes.registry import choose_passes, pass_names
from fastdeploy_diffusion.predictors.pass_tester import PassTester


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a diffusers folder; the model in the box if left out")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--result", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args()
    rows = []
    for row in measure(open_pipeline(options.model, options.engine)):
        rows.append(row)
        print(*(f"{key} {value}" for key, value in row.items() if key != "seconds"), sep="  ")
    if options.result:
        result = {
            "machine": describe_machine(),
            "engine": options.engine,
            "packages": {name: version(name) for name in ("paddlepaddle", options.engine)},
            "rows": rows,
        }
        options.result.parent.mkdir(parents=True, exist_ok=True)
        options.result.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measure(pipeline: SDPipeline) -> Iterator[dict[str, Any]]:
    """A row for each component and set of passes."""
    sets = {**{name: (name,) for name in pass_names()}, "all": pass_names()}
    for build in pipeline.plan_builds():
        with PassTester(build, measure=True) as tester:
            for name, names in sets.items():
                passes = choose_passes(names, pipeline.config.engine)
                error, timings = tester.build_with(passes)
                yield {
                    "component": build.name,
                    "passes": name,
                    "error": error,
                    "seconds_without": round(timings.median_before, 6),
                    "seconds_with": round(timings.median_after, 6),
                    "times_as_fast": round(timings.median_ratio, 3),
                    "quartiles": [round(ratio, 3) for ratio in timings.quartiles],
                    "seconds": asdict(timings),
                }


def open_pipeline(model: str | None, engine: str) -> SDPipeline:
    """The pipeline of a model, on this engine or not at all."""
    choice = {"engine": engine, "cpu_fallback": False}
    if model is None:
        return SDPipeline(DiffusionConfig.from_preset("shapes", **choice))
    return SDPipeline(DiffusionConfig(model_path=model, **choice))


if __name__ == "__main__":
    main()
