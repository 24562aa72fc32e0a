"""Drawing over a picture, inpainting, a ControlNet, the encoder: in turns with diffusers.

``python benchmarks/given_pictures.py controlnet --random-weights sd15`` measures one of `WORKS` in
this process, in float32, and prints what was found. ``--turns 0`` builds only, so that a later run
finds the builds kept and needs less memory. ``pip install torch diffusers transformers`` first.

`control-step` sets ours with a ControlNet against ours without. A ControlNet with random weights,
of the model's own shape, is written to ``--controlnet`` if nothing is there.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parents[1]))
from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.benchmark.architectures import ARCHITECTURES
from fastdeploy_diffusion.benchmark.child.serve import read_memory
from fastdeploy_diffusion.benchmark.random_checkpoint import make_random_checkpoint
from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.picture_quality import measure_psnr
from fastdeploy_diffusion.predictors.vae_encoder import VAEEncoder

WORKS = ("image-to-image", "inpainting", "controlnet", "control-step", "encoder")
SCHEDULER = ("ddim", "DDIMScheduler")
STRENGTH = 0.5  # of drawing over a picture; diffusers' 1 repaints what a mask covers


class Run(NamedTuple):
    """One run: seconds, and the numbers that came out."""

    seconds: float
    found: np.ndarray


Measure = Callable[[int], Run]
"""Runs once; the number of the turn makes each prompt another, so that none is found encoded."""


def draw_given(pixels: int) -> dict[str, Image.Image]:
    """Draw the pictures that are given: colours, a mask of the middle quarter, and edges."""
    quarter = pixels // 4
    box = (quarter, quarter, pixels - quarter, pixels - quarter)
    mask, edges = Image.new("L", (pixels, pixels)), Image.new("RGB", (pixels, pixels))
    ImageDraw.Draw(mask).rectangle(box, fill=255)
    ImageDraw.Draw(edges).ellipse(box, outline="white", width=2)
    colours = Image.radial_gradient("L").resize((pixels, pixels))
    ramp = Image.linear_gradient("L").resize((pixels, pixels))
    return {
        "image": Image.merge("RGB", (colours, ramp, ramp.rotate(90))),
        "mask": mask,
        "control_image": edges,
    }


def choose_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What is asked of ours; the names of given pictures are those of `draw_given`."""
    given = draw_given(options.pixels)
    asked: dict[str, Any] = {"num_inference_steps": options.steps, "output_type": "np"}
    if options.work == "image-to-image":
        return {**asked, "image": given["image"], "strength": STRENGTH}
    if options.work == "inpainting":
        return {**asked, "image": given["image"], "mask": given["mask"], "strength": 1.0}
    size = {"height": options.pixels, "width": options.pixels}
    return {**asked, **size, "control_image": given["control_image"]}


def open_ours(options: argparse.Namespace) -> SDPipeline:
    """Our pipeline, with the ControlNet where one is measured."""
    return SDPipeline(
        DiffusionConfig(
            model_path=options.model,
            engine=options.engine,
            scheduler=SCHEDULER[0],
            threads=options.threads,
            cpu_fallback=False,
            memory="resident" if options.turns else "staged",
            controlnets=[options.controlnet] if options.work.startswith("control") else [],
        )
    )


def measure_ours(pipeline: SDPipeline, settings: dict[str, Any]) -> Measure:
    """Whole pictures of ours."""

    def measure(turn: int) -> Run:
        started = time.perf_counter()
        result = pipeline.generate(f"a large red star, {turn}", seed=turn, **settings)
        return Run(time.perf_counter() - started, np.asarray(result.images))

    return measure


def measure_steps(pipeline: SDPipeline, settings: dict[str, Any]) -> Measure:
    """The median step of ours; what stays the same over the steps is computed before them."""

    def measure(turn: int) -> Run:
        result = pipeline.generate(f"a large red star, {turn}", seed=turn, **settings)
        return Run(statistics.median(result.timings.steps), np.asarray(result.images))

    return measure


def measure_diffusers(options: argparse.Namespace, settings: dict[str, Any]) -> Measure:
    """Whole pictures of diffusers' pipeline for the same work."""
    import diffusers
    import torch

    torch.set_num_threads(options.threads)
    kind, parts = {
        "image-to-image": ("StableDiffusionImg2ImgPipeline", {}),
        "inpainting": ("StableDiffusionInpaintPipeline", {}),
        "controlnet": ("StableDiffusionControlNetPipeline", {"controlnet": None}),
    }[options.work]
    if parts:
        parts = {"controlnet": load_controlnet(options)}
    pipeline = getattr(diffusers, kind).from_pretrained(
        options.model, dtype=torch.float32, safety_checker=None, **parts
    )
    pipeline.scheduler = getattr(diffusers, SCHEDULER[1]).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    names = {"mask": "mask_image"} if options.work == "inpainting" else {}
    if options.work == "controlnet":
        names = {"control_image": "image"}
    asked = {names.get(name, name): value for name, value in settings.items()}

    def measure(turn: int) -> Run:
        generator = torch.Generator().manual_seed(turn)
        started = time.perf_counter()
        found = pipeline(f"a large red star, {turn}", generator=generator, **asked).images
        return Run(time.perf_counter() - started, found)

    return measure


def load_controlnet(options: argparse.Namespace) -> Any:
    """Diffusers' ControlNet, in float32."""
    import diffusers
    import torch

    return diffusers.ControlNetModel.from_pretrained(options.controlnet, dtype=torch.float32)


def write_controlnet(model: str, folder: Path) -> None:
    """Write a ControlNet of a UNet's shape, with random weights in float16."""
    import torch
    from diffusers import ControlNetModel, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet")
    controlnet = ControlNetModel.from_unet(unet)
    # They begin as zeros, which would add nothing.
    for layer in (
        *controlnet.controlnet_down_blocks,
        controlnet.controlnet_mid_block,
        controlnet.controlnet_cond_embedding.conv_out,
    ):
        layer.reset_parameters()
    controlnet.half().save_pretrained(folder)


def open_encoders(options: argparse.Namespace) -> Iterator[tuple[str, Measure]]:
    """The encoders of both, from a picture to the moments of its latents."""
    checkpoint = open_checkpoint(options.model)
    config = DiffusionConfig(
        model_path=options.model,
        engine=options.engine,
        threads=options.threads,
        cpu_fallback=False,
    )
    network = checkpoint.read_network("vae", checkpoint.family.networks["vae"].config.from_dict)
    encoder = VAEEncoder(checkpoint, config, network)
    pixels = np.asarray(draw_given(options.pixels)["image"], np.float32).transpose(2, 0, 1)[None]
    images = np.ascontiguousarray(pixels / 127.5 - 1)
    side = options.pixels // network.downscale
    signature = encoder.signature(side, side)

    def ours(turn: int) -> Run:
        with encoder.component.lend(signature) as session:
            started = time.perf_counter()
            moments = encoder.encode(session, images)
            return Run(time.perf_counter() - started, moments)

    yield "ours", ours
    if not options.turns:
        return
    import torch
    from diffusers import AutoencoderKL

    torch.set_num_threads(options.threads)
    vae = AutoencoderKL.from_pretrained(options.model, subfolder="vae", dtype=torch.float32)

    def theirs(turn: int) -> Run:
        started = time.perf_counter()
        with torch.inference_mode():
            moments = vae.encode(torch.from_numpy(images)).latent_dist.parameters
        return Run(time.perf_counter() - started, moments.numpy())

    yield "diffusers", theirs


def open_both(options: argparse.Namespace) -> Iterator[tuple[str, Measure]]:
    """What is compared, ours first; the other is opened when ours has been built."""
    if options.work == "encoder":
        yield from open_encoders(options)
        return
    settings, pipeline = choose_settings(options), open_ours(options)
    if options.work == "control-step":
        yield "with", measure_steps(pipeline, settings)
        yield "without", measure_steps(pipeline, {**settings, "control_image": None})
        return
    yield "ours", measure_ours(pipeline, settings)
    if options.turns:
        yield "diffusers", measure_diffusers(options, settings)


def compare(work: str, runs: dict[str, list[Run]], warm: dict[str, Run]) -> dict[str, Any]:
    """Sum up the turns: the ratio of each pair, and how far the pictures are from each other."""
    first, second = runs
    ratios = [
        other.seconds / own.seconds for own, other in zip(runs[first], runs[second], strict=True)
    ]
    one, other = warm[first].found, warm[second].found
    if work == "encoder":
        far = {
            "largest difference, relative": float(np.abs(one - other).max() / np.abs(other).max())
        }
    elif work == "control-step":
        ratios = [1 / each for each in ratios]
        far = {}
    else:
        bytes_of = [(each * 255).round().astype(np.uint8) for each in (one, other)]
        far = {"psnr": measure_psnr(*bytes_of)}
    name = "cost of a step" if work == "control-step" else "so many times as fast as diffusers"
    return {name: statistics.median(ratios), "pairs": ratios, **far}


def main() -> None:
    """Build, take turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=WORKS)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="a diffusers folder of SD 1.x or 2.x")
    what.add_argument("--random-weights", choices=ARCHITECTURES)
    parser.add_argument("--controlnet", type=Path, help="a folder; beside the model if left out")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    options.model = options.model or str(make_random_checkpoint(options.random_weights))
    options.controlnet = options.controlnet or Path(f"{options.model}-controlnet")
    if options.work.startswith("control") and not options.controlnet.exists():
        write_controlnet(options.model, options.controlnet)
    measures, warm = {}, {}
    for name, measure in open_both(options):
        measures[name], warm[name] = measure, measure(0)
        print(f"{name} is warm: {warm[name].seconds:.2f} s", file=sys.stderr)
        gc.collect()
    runs: dict[str, list[Run]] = {name: [] for name in measures}
    for turn in range(1, options.turns + 1):
        for name in measures if turn % 2 else reversed(measures):
            runs[name].append(measures[name](turn))
            print(f"turn {turn}, {name}: {runs[name][-1].seconds:.2f} s", file=sys.stderr)
    found = {
        "work": options.work,
        "pixels": options.pixels,
        "steps": options.steps,
        "peak_bytes": read_memory()["peak_bytes"],
        "seconds": {name: [each.seconds for each in found] for name, found in runs.items()},
    }
    if options.turns:
        found |= compare(options.work, runs, warm)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
