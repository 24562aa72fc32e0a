"""A Flux transformer of random weights, streamed: memory, seconds, and the resident one's numbers.

``python benchmarks/streamed_flux.py --folder FOLDER`` writes a transformer as wide as FLUX.1-dev
there, runs it resident and streamed in turns with one double and two single blocks, then streamed
with all 19 and 38 in a process of its own, and removes what it wrote: 24 GB.
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from random_flux import RandomInputs, RandomTransformer

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.predictors.flux_denoiser import FluxDenoiser
from fastdeploy_diffusion.runtime.session import Row, Session


def open_session(
    checkpoint: Checkpoint, options: Any, memory: str, opened: ExitStack
) -> tuple[Any, Session]:
    """Give the denoiser and its session, which is open as long as ``opened``."""
    config = DiffusionConfig(
        model_path=str(checkpoint.path), engine=options.engine, cache=False, memory=memory
    )
    denoiser = FluxDenoiser(checkpoint, config)
    tokens = (options.pixels // 16) ** 2
    lent = denoiser.component.lend(denoiser.signature(tokens, options.text_tokens))
    return denoiser, opened.enter_context(lent)


def predict(denoiser: Any, session: Session, options: Any, seed: int) -> np.ndarray:
    """Predict once from random inputs."""
    given = RandomInputs(denoiser.config, options.pixels, options.text_tokens, seed)
    handle = session.condition(given.condition(guidance=3.5), [0.7])
    return session.run_rows([Row(handle, given.tokens[0], 0.7)])


def time_step(denoiser: Any, session: Session, options: Any) -> float:
    """Seconds of one step."""
    started = time.perf_counter()
    predict(denoiser, session, options, seed=0)
    return time.perf_counter() - started


def compare(checkpoint: Checkpoint, options: Any) -> dict[str, Any]:
    """Run a transformer resident and streamed, in turns."""
    kinds = "resident", "streamed"
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    with ExitStack() as opened:
        both = {kind: open_session(checkpoint, options, kind, opened) for kind in kinds}
        given = {kind: predict(*each, options, seed=1) for kind, each in both.items()}
        for _ in range(options.turns):
            for kind, each in both.items():
                seconds[kind].append(time_step(*each, options))
    medians = {kind: statistics.median(each) for kind, each in seconds.items()}
    difference = np.abs(given["streamed"] - given["resident"]).max()
    return {
        "relative_difference": float(difference / np.abs(given["resident"]).max()),
        "seconds": seconds,
        "speed of streamed / resident": medians["resident"] / medians["streamed"],
    }


def run_streamed(checkpoint: Checkpoint, options: Any) -> dict[str, Any]:
    """Build and run a transformer streamed, and say what it took."""
    started = time.perf_counter()
    with ExitStack() as opened:
        denoiser, session = open_session(checkpoint, options, "streamed", opened)
        built, build_peak = time.perf_counter() - started, read_peak()
        seconds = [time_step(denoiser, session, options) for _ in range(options.steps)]
    return {
        "relative_error": denoiser.component.report.relative_error,
        "build_seconds": built,
        "build_peak_gb": build_peak,
        "step_seconds": seconds,
        "peak_gb": read_peak(),
        "peak_of_exports_gb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6,
    }


PARTS = {"compare": (compare, (1, 2)), "full": (run_streamed, (19, 38))}


def read_peak() -> float:
    """Peak of this process' resident memory in GB, as Linux counts it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 / 1e9 if found else 0.0


def main() -> None:
    """Write each transformer, measure it in a process of its own, and remove it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="on a disk with 26 GB to spare")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--text-tokens", type=int, default=512)
    parser.add_argument("--turns", type=int, default=5, help="of the comparison")
    parser.add_argument("--steps", type=int, default=2, help="at full depth; 0 to leave it out")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        measure, depth = PARTS[options.part]
        print(json.dumps(measure(RandomTransformer(options.folder, depth), options)))
        return
    found = {}
    for part, (_, depth) in PARTS.items():
        if part == "full" and not options.steps:
            continue
        checkpoint = RandomTransformer(options.folder, depth)
        try:
            command = [sys.executable, __file__, *sys.argv[1:], "--part", part]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[part] = json.loads(done.stdout.splitlines()[-1])
        finally:
            checkpoint.file.unlink()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
