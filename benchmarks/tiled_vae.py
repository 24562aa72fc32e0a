"""Time and peak memory of a VAE's decoder, as a whole and in tiles, from kept builds.

``python benchmarks/tiled_vae.py --random-weights sd15 --pixels 1024 --tiling exact`` writes the
network with random weights, builds the decoder, and decodes random latents in a process of its own.
With ``--encoder`` it is the encoder that runs.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.benchmark.architectures import ARCHITECTURES
from fastdeploy_diffusion.benchmark.child.serve import read_memory
from fastdeploy_diffusion.benchmark.random_checkpoint import make_random_checkpoint
from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.predictors.vae import VAEDecoder
from fastdeploy_diffusion.predictors.vae_encoder import VAEEncoder


def run(model: str, options: Any) -> dict[str, Any]:
    """Decode or encode once, and say what it took."""
    config = DiffusionConfig(
        model_path=model,
        engine=options.engine,
        cpu_fallback=False,
        cache_dir=options.cache,
        precision=options.precision,
        vae_tiling=options.tiling,
    )
    checkpoint = open_checkpoint(config.model_path)
    part: VAEDecoder | VAEEncoder = VAEDecoder(checkpoint, config)
    if options.encoder:
        part = VAEEncoder(checkpoint, config, part.config)
    signature = part.signature(*[options.pixels // part.config.downscale] * 2)
    _, *sizes = signature.inputs[0].shape
    given = np.random.default_rng(7).standard_normal((1, *sizes), np.float32)
    before = read_memory()["peak_bytes"]
    with part.component.lend(signature) as session:
        built = not part.component.report.cached
        started = time.perf_counter()
        if not options.build:
            (output,) = session.run(**{signature.inputs[0].name: given}).values()
            assert np.isfinite(output).all()
        seconds = time.perf_counter() - started
    return {
        "seconds": round(seconds, 1),
        "beyond_start_bytes": read_memory()["peak_bytes"] - before,
        "start_bytes": before,
        "weights": part.component.network.count_weights(),
        "built": built,
    }


def main() -> None:
    """Build, run in another process, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="a checkpoint")
    what.add_argument("--random-weights", choices=ARCHITECTURES)
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--pixels", type=int, default=1024)
    parser.add_argument("--tiling", choices=("off", "exact", "blended"), default="exact")
    parser.add_argument("--encoder", action="store_true")
    parser.add_argument("--build", action="store_true", help="build alone, to measure later")
    parser.add_argument("--cache", help="folder of the builds")
    parser.add_argument("--run", action="store_true", help="run here, from kept builds")
    options = parser.parse_args()
    model = options.model or str(make_random_checkpoint(options.random_weights))
    if options.build or options.run:
        print(json.dumps(run(model, options)))
        return
    shared = [each for each in sys.argv[1:] if each not in ("--random-weights", "--model")]
    shared.remove(options.model or options.random_weights)
    for step in ("--build", "--run"):
        command = [sys.executable, __file__, "--model", model, step, *shared]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
