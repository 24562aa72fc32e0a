"""Load a full-size Stable Diffusion 1.5 with random weights and draw one picture.

``python benchmarks/full_size_sd15.py`` writes a checkpoint of the published architecture with
seeded random half-precision weights (2 GB, kept in ``--folder``), then measures in a fresh process
how long it takes to build the pipeline and to draw 512 × 512 pixels in two steps, and the largest
resident memory on the way. The picture is noise: what is measured is the machine's work.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import numpy as np
from machine import read_cpu
from safetensors.numpy import save_file

COMPONENTS = ("text_encoder", "unet", "vae")


def main() -> None:
    """Write the checkpoint if it is not there, and measure in a child process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/sd15-random"))
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--engine", default="paddle")
    parser.add_argument("--result", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.folder, options.engine, options.steps)))
        return
    if not (options.folder / "model_index.json").exists():
        write_checkpoint(options.folder)
    child = subprocess.run(
        [
            *(sys.executable, __file__, "--measure"),
            *("--folder", options.folder),
            *("--steps", str(options.steps)),
            *("--engine", options.engine),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures = json.loads(child.stdout)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.result:
        options.result.parent.mkdir(parents=True, exist_ok=True)
        options.result.write_text(text + "\n", encoding="utf-8")


def write_checkpoint(folder: Path) -> None:
    """Write a diffusers folder: the published configs, weights scaled so that nothing overflows."""
    from fastdeploy_diffusion.checkpoints.published_configs import SD_1_5
    from fastdeploy_diffusion.models.autoencoder import AutoencoderKL, AutoencoderKLConfig
    from fastdeploy_diffusion.models.clip import CLIPTextConfig, CLIPTextModel
    from fastdeploy_diffusion.models.unet import UNet2DConditionModel
    from fastdeploy_diffusion.models.unet_config import UNet2DConditionConfig
    from fastdeploy_diffusion.paddle_runtime import paddle

    configs = SD_1_5
    makers = {
        "text_encoder": lambda raw: CLIPTextModel(CLIPTextConfig.from_dict(raw)),
        "unet": lambda raw: UNet2DConditionModel(UNet2DConditionConfig.from_dict(raw)),
        "vae": lambda raw: AutoencoderKL(AutoencoderKLConfig.from_dict(raw)),
    }
    random = np.random.default_rng(0)
    for name in COMPONENTS:
        with paddle.LazyGuard():
            layer = makers[name](configs[name])
        linear = {
            f"{path}.weight"
            for path, part in layer.named_sublayers()
            if isinstance(part, paddle.nn.Linear)
        }
        weights = {}
        for key, parameter in layer.state_dict().items():
            shape = parameter.shape[::-1] if key in linear else parameter.shape
            weights[key] = draw_weight(random, key, shape)
        write_json(folder / name / "config.json", configs[name])
        stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        save_file(weights, folder / name / f"{stem}.safetensors")
    write_json(folder / "scheduler" / "scheduler_config.json", configs["scheduler"])
    write_tokenizer(folder / "tokenizer")
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "scheduler": ["diffusers", configs["scheduler"]["_class_name"]],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )


def draw_weight(random: np.random.Generator, name: str, shape: list[int]) -> np.ndarray:
    """Norms near one, biases near zero, matrices with 1 / sqrt(inputs)."""
    if len(shape) == 1:
        values = 0.02 * random.standard_normal(shape, np.float32)
        return (values + (name.endswith("weight"))).astype(np.float16)
    scale = np.float32(1 / np.sqrt(np.prod(shape[1:])))
    return (scale * random.standard_normal(shape, np.float32)).astype(np.float16)


def write_tokenizer(folder: Path) -> None:
    """The box model's vocabulary at CLIP's length: the published one cannot be shipped."""
    source = Path(str(resources.files("fastdeploy_diffusion.configs"))) / "shapes" / "tokenizer"
    shutil.copytree(source, folder, dirs_exist_ok=True)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**config, "model_max_length": 77})


def write_json(path: Path, value: dict) -> None:
    """Write a JSON file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def measure(folder: Path, engine: str, steps: int) -> dict:
    """Build the pipeline, draw, and say what that took."""
    from fastdeploy_diffusion import DiffusionConfig, GenerationRequest, SDPipeline

    started = time.perf_counter()
    pipeline = SDPipeline(DiffusionConfig(model_path=folder, engine=engine))
    opened = time.perf_counter()
    result = pipeline.generate(
        GenerationRequest(prompt="a star", seed=1, num_inference_steps=steps)
    )
    finished = time.perf_counter()
    timings = result.timings
    weights = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    return {
        "machine": read_cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "size": list(result.images[0].size),
        "steps": len(timings.steps),
        "seconds": {
            "open": opened - started,
            "build_and_check": timings.prepare,
            "text_encoder": timings.text_encoder,
            "prologue": timings.prologue,
            "each_step": list(timings.steps),
            "vae_decoder": timings.vae_decoder,
            "all": finished - started,
        },
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "weights_float32_gib": 2 * weights / 2**30,
        "components": {
            each.name: {"engine": each.engine, "relative_error": each.relative_error}
            for each in result.report.components
        },
    }


if __name__ == "__main__":
    main()
