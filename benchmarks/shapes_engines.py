"""Draw with the model in the box on every engine of this machine, and with diffusers beside them.

``python benchmarks/shapes_engines.py`` draws the same prompt from the same seed in turns (A B C,
A B C, …), so that a busy moment of the machine hits all of them, and prints the median time of a
picture, the ratio to diffusers within each turn, and how far the picture is from diffusers' own.
diffusers and torch must be installed (``pip install ".[cpu,openvino,onnx,dev]"``).
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from machine import read_cpu

PROMPT, SEED, STEPS, GUIDANCE = "a large red star on a blue background", 7, 20, 4.0
ENGINES = ("openvino", "onnxruntime", "paddle")
PACKAGES = ("paddlepaddle", "openvino", "onnxruntime", "torch", "diffusers")


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--result", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args()
    painters = {"diffusers": load_diffusers(), **{name: load_engine(name) for name in ENGINES}}
    pictures = {name: draw() for name, draw in painters.items()}  # builds and warms up
    seconds: dict[str, list[float]] = {name: [] for name in painters}
    for _ in range(options.runs):
        for name, draw in painters.items():
            started = time.perf_counter()
            draw()
            seconds[name].append(time.perf_counter() - started)
    result = {
        "machine": read_cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "packages": {name: version(name) for name in PACKAGES},
        "prompt": PROMPT,
        "steps": STEPS,
        "guidance_scale": GUIDANCE,
        "rows": {name: summarise(name, seconds, pictures) for name in painters},
        "seconds": seconds,
    }
    for name, row in result["rows"].items():
        print(
            name,
            *(f"{key} {value:.3g}" for key, value in row.items() if value is not None),
            sep="  ",
        )
    if options.result:
        options.result.parent.mkdir(parents=True, exist_ok=True)
        options.result.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def load_engine(name: str) -> Callable[[], np.ndarray]:
    """Our pipeline on an engine."""
    from fastdeploy_diffusion import DiffusionConfig, SDPipeline

    pipeline = SDPipeline(DiffusionConfig.from_preset("shapes", engine=name, cpu_fallback=False))
    return lambda: pipeline.text_to_image(
        PROMPT, seed=SEED, num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="np"
    )


def load_diffusers() -> Callable[[], np.ndarray]:
    """Diffusers' pipeline on the same folder, eager, in float32."""
    import torch
    from diffusers import StableDiffusionPipeline

    from fastdeploy_diffusion import DiffusionConfig

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    folder = DiffusionConfig.from_preset("shapes").model_path
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return lambda: (
        pipeline(
            PROMPT,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(SEED),
            output_type="np",
        ).images
    )


def summarise(
    name: str, seconds: dict[str, list[float]], pictures: dict[str, np.ndarray]
) -> dict[str, float | None]:
    """The figures of one row: seconds, ratios to diffusers turn by turn, and PSNR in dB."""
    ratios = [
        theirs / ours for theirs, ours in zip(seconds["diffusers"], seconds[name], strict=True)
    ]
    error = float(np.mean((pictures[name] - pictures["diffusers"]) ** 2))
    return {
        "median_seconds": statistics.median(seconds[name]),
        "times_diffusers_median": statistics.median(ratios),
        "times_diffusers_lowest": min(ratios),
        "times_diffusers_highest": max(ratios),
        "psnr_db": -10 * np.log10(error) if error else None,
    }


if __name__ == "__main__":
    main()
