"""Peak memory of a picture with ``memory: resident`` and ``memory: staged``, from kept builds.

``python benchmarks/staged_memory.py --random-weights sd15`` writes the network with random weights,
builds it in a cache of its own, and draws in a process of its own for each.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.benchmark.architectures import ARCHITECTURES
from fastdeploy_diffusion.benchmark.child.serve import read_memory
from fastdeploy_diffusion.benchmark.random_checkpoint import make_random_checkpoint
from fastdeploy_diffusion.pipelines.opening import open_pipeline

KINDS = ("staged", "resident")  # the first one makes the builds


def draw(options: Any) -> dict[str, Any]:
    """Draw a picture, and say what it took."""
    config = DiffusionConfig(
        model_path=options.model,
        engine=options.engine,
        cpu_fallback=False,
        cache_dir=options.cache,
        memory=options.draw,
    )
    pipeline = open_pipeline(config)
    size = {"height": options.pixels, "width": options.pixels, "num_inference_steps": 2}
    picture = pipeline.text_to_image("a large red star on a blue background", seed=7, **size)
    return {
        "peak_bytes": read_memory()["peak_bytes"],
        "built": not all(each.cached for each in pipeline.report.components),
        "picture": hashlib.sha256(picture.tobytes()).hexdigest(),
    }


def main() -> None:
    """Build, draw with each, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="a checkpoint")
    what.add_argument("--random-weights", choices=ARCHITECTURES)
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    parser.add_argument("--draw", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.draw:
        print(json.dumps(draw(options)))
        return
    model = options.model or str(make_random_checkpoint(options.random_weights))
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        for kind in (KINDS[0], *KINDS):
            command = [sys.executable, __file__, "--model", model, "--engine", options.engine]
            command += ["--pixels", str(options.pixels), "--cache", cache, "--draw", kind]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[kind] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
