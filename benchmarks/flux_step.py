"""A step of a Flux transformer of full width and little depth, in turns with those of others.

``python benchmarks/flux_step.py --folder FOLDER`` draws random weights, runs
ours, diffusers' in torch, and what OpenVINO converts from diffusers', and says how far each is from
diffusers in float32. ``pip install torch diffusers openvino`` first.

``--precision bf16,int8`` is ours, in each of them; the others run in the first that is no int8, or
in what ``--peer-precision`` says. int8 is calibrated with random inputs at eight noise levels:
with random weights, it says nothing of quality but how far the numbers are off.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from random_flux import RandomInputs, RandomTransformer

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.predictors.flux_denoiser import FluxDenoiser
from fastdeploy_diffusion.runtime.program import Signature
from fastdeploy_diffusion.runtime.session import Row

SIGMA, GUIDANCE = 0.7, 3.5
Step = Callable[[], np.ndarray]


def draw_inputs(denoiser: FluxDenoiser, options: argparse.Namespace) -> RandomInputs:
    """What every transformer gets."""
    return RandomInputs(denoiser.config, options.pixels, options.text_tokens, options.seed)


def open_ours(
    checkpoint: RandomTransformer, options: argparse.Namespace, precision: str, opened: ExitStack
) -> tuple[Step, Any]:
    """Ours; what stays the same over the steps is computed before them, and timed apart."""
    config = DiffusionConfig(
        model_path=str(checkpoint.path),
        engine=options.engine,
        precision=precision,
        threads=options.threads,
        cpu_fallback=False,
        cache=False,
        **({"passes": tuple(filter(None, options.passes.split(",")))} if options.passes else {}),
    )
    denoiser = FluxDenoiser(checkpoint, config)
    inputs = draw_inputs(denoiser, options)
    signature = denoiser.signature(inputs.tokens.shape[1], options.text_tokens)
    tensors = inputs.condition(GUIDANCE)
    if precision == "int8":
        calibrate(denoiser, signature, inputs)
    session = opened.enter_context(denoiser.component.lend(signature))
    sigmas = [SIGMA, *np.linspace(1, 0.05, 19).tolist()]

    def time_conditioning() -> float:
        started = time.perf_counter()
        session.condition(tensors, sigmas)
        return time.perf_counter() - started

    row = Row(session.condition(tensors, sigmas), inputs.tokens[0], SIGMA)
    report = denoiser.component.report
    facts = {
        "passes": dict(report.passes),
        "relative_error": report.relative_error,
        "seconds before 20 steps": time_conditioning(),
    }
    return lambda: session.run_rows([row]), facts


def calibrate(denoiser: FluxDenoiser, signature: Signature, inputs: RandomInputs) -> None:
    """Choose the ranges of int8 on random inputs."""
    from fastdeploy_diffusion.compiler.quantizing import choose_sensitive, observe
    from fastdeploy_diffusion.quantization import Quantization

    component = denoiser.component
    fixed = {**inputs.condition(GUIDANCE), "hidden_states": inputs.tokens}
    feeds = [
        {**fixed, "timestep": np.array([sigma], np.float32)} for sigma in np.linspace(1, 0.05, 8)
    ]
    ranges = observe(component.plan(signature), feeds)
    skip = choose_sensitive(component.name, list(ranges))
    component.quantize(Quantization(ranges, skip))


def load_torch(checkpoint: RandomTransformer) -> Any:
    """Diffusers' transformer with the same weights, in float32."""
    import torch
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        model = FluxTransformer2DModel(**checkpoint.config("transformer"))
    source = checkpoint.tensors("transformer")
    weights = {name: torch.from_numpy(source.read(name)) for name in model.state_dict()}
    model.load_state_dict(weights, assign=True)
    return model.eval()


def list_torch_inputs(inputs: RandomInputs) -> dict[str, Any]:
    """Inputs by diffusers' names."""
    import torch

    arrays = {
        "hidden_states": inputs.tokens,
        "encoder_hidden_states": inputs.texts,
        "pooled_projections": inputs.pooled,
        "timestep": np.array([SIGMA], np.float32),
        "img_ids": inputs.positions,
        "txt_ids": np.zeros((inputs.texts.shape[1], 3), np.float32),
        "guidance": np.array([GUIDANCE], np.float32),
    }
    return {name: torch.from_numpy(each) for name, each in arrays.items()}


def open_torch(model: Any, inputs: RandomInputs, precision: str) -> Step:
    """Diffusers' own, eager."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    model = model.to(dtype)
    given = {
        name: each if name.endswith("_ids") else each.to(dtype)
        for name, each in list_torch_inputs(inputs).items()
    }

    def step() -> np.ndarray:
        with torch.inference_mode():
            return model(**given, return_dict=False)[0].float().numpy()

    return step


def open_converted(model: Any, inputs: RandomInputs, options: argparse.Namespace) -> Step:
    """What OpenVINO makes of diffusers' transformer by itself, for these shapes."""
    import openvino
    import torch

    given = list_torch_inputs(inputs)

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            named = dict(zip(given, tensors, strict=True))
            return self.model(**named, return_dict=False)[0]

    converted = openvino.convert_model(Positional(), example_input=tuple(given.values()))
    arrays = [each.numpy() for each in given.values()]
    converted.reshape(dict(zip(converted.inputs, (each.shape for each in arrays), strict=True)))
    hints = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
    settings = {
        "INFERENCE_PRECISION_HINT": hints[options.peer_precision],
        "INFERENCE_NUM_THREADS": options.threads,
    }
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    return lambda: compiled(arrays)[0]


def open_peers(checkpoint: RandomTransformer, options: argparse.Namespace) -> Iterator[Any]:
    """Give the name and step of each, diffusers in float32 first."""
    import torch

    torch.set_num_threads(options.threads)
    denoiser = FluxDenoiser(checkpoint, DiffusionConfig(model_path=str(checkpoint.path)))
    inputs = draw_inputs(denoiser, options)
    yield "torch fp32", open_torch(load_torch(checkpoint), inputs, "fp32")
    step = open_converted(load_torch(checkpoint), inputs, options)
    yield f"openvino from diffusers {options.peer_precision}", step
    if options.peer_precision != "fp32":
        step = open_torch(load_torch(checkpoint), inputs, options.peer_precision)
        yield f"torch {options.peer_precision}", step


def main() -> None:
    """Write the transformer, measure, and remove it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--depth", type=int, nargs=2, default=(1, 2), help="double, single blocks")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--passes", help="in place of the default ones, comma-separated")
    parser.add_argument("--precision", default="fp32", help="ours, comma-separated")
    parser.add_argument("--peer-precision", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--text-tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    precisions = options.precision.split(",")
    floats = [each for each in precisions if each in ("fp32", "bf16", "fp16")]
    options.peer_precision = options.peer_precision or next(iter(floats), "bf16")
    checkpoint = RandomTransformer(options.folder, tuple(options.depth))
    try:
        with ExitStack() as opened:
            ours = {
                f"ours {each}": open_ours(checkpoint, options, each, opened) for each in precisions
            }
            steps = {name: step for name, (step, _) in ours.items()}
            steps |= dict(open_peers(checkpoint, options))
            gc.collect()
            outputs = {name: step() for name, step in steps.items()}
            seconds: dict[str, list[float]] = {name: [] for name in steps}
            for turn in range(options.turns):
                for name in steps if turn % 2 else reversed(steps):
                    started = time.perf_counter()
                    steps[name]()
                    seconds[name].append(time.perf_counter() - started)
    finally:
        checkpoint.file.unlink()
    exact = outputs["torch fp32"]
    pairs = {
        f"{own} / {name}": [theirs / took for took, theirs in zip(seconds[own], each, strict=True)]
        for own in ours
        for name, each in seconds.items()
        if name != own
    }
    result = {
        "ours": {name: facts for name, (_, facts) in ours.items()},
        "median seconds": {name: statistics.median(each) for name, each in seconds.items()},
        "so many times as fast": {
            name: [round(each, 3) for each in statistics.quantiles(ratios, n=4)]
            for name, ratios in pairs.items()
        },
        "root mean square difference from torch fp32, relative": {
            name: float(np.sqrt(np.mean((each - exact) ** 2) / np.mean(exact**2)))
            for name, each in outputs.items()
        },
        "largest difference from torch fp32, relative": {
            name: float(np.abs(each - exact).max() / np.abs(exact).max())
            for name, each in outputs.items()
        },
        "seconds": seconds,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
