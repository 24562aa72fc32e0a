"""Memory, descriptors and threads over many pictures of alternating sizes, on every engine.

``python benchmarks/soak.py`` draws 300 small pictures of the model in the box on each engine that
runs here, in a process of its own, and says what the process held at some of them, and whether it
stayed within 5 % after the first ten. ``--json FILE`` keeps the numbers. Linux only.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.engines.registry import engine_names
from fastdeploy_diffusion.errors import EngineUnavailableError

SIZES = ((64, 64), (128, 128), (64, 128), (96, 64), (128, 96))
CAPTIONS = ("a large red star on a blue background", "a small green circle", "a yellow ring")
WARM = 10  # pictures after which nothing may grow
LIMIT = 0.05


def read_process() -> dict[str, float]:
    """What this process holds: resident memory in MiB, open descriptors, threads."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    numbers = {name: int(value) for name, value in re.findall(r"(\w+):\s+(\d+)", status)}
    return {
        "memory": numbers["VmRSS"] / 1024,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": numbers["Threads"],
    }


def soak(engine: str, options: argparse.Namespace) -> dict[str, Any]:
    """Draw, and read the process after some pictures and after ``close``."""
    sizes = SIZES[: options.sizes]
    config = DiffusionConfig.from_preset(
        options.model, engine=engine, memory=options.memory, cpu_fallback=False
    )
    pipeline = SDPipeline(config)
    found: dict[str, Any] = {}
    for index in range(options.pictures):
        height, width = sizes[index % len(sizes)]
        pipeline.text_to_image(
            f"{CAPTIONS[index % len(CAPTIONS)]} {index}",
            height=height,
            width=width,
            seed=index,
            num_inference_steps=options.steps,
        )
        if index + 1 in options.at:
            found[str(index + 1)] = read_process()
    pipeline.close()
    found["closed"] = read_process()
    return found


def find_growth(found: dict[str, Any]) -> float:
    """How much more memory was held at some picture than at the first that counts, as a share."""
    after = [each["memory"] for name, each in found.items() if name.isdigit() and int(name) >= WARM]
    return max(after) / after[0] - 1


def describe(engine: str, found: dict[str, Any]) -> str:
    """A row of the table."""
    columns = [
        " / ".join(f"{each[name]:.0f}" for each in found.values())
        for name in ("memory", "descriptors", "threads")
    ]
    growth = find_growth(found)
    verdict = "flat" if growth <= LIMIT else "GROWS"
    return f"| {engine} | {' | '.join(columns)} | {growth:+.1%} {verdict} |"


def main() -> None:
    """Soak each engine in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", nargs="+", default=engine_names(), choices=engine_names())
    parser.add_argument("--model", default="shapes", help="a preset")
    parser.add_argument("--memory", default="resident", choices=("resident", "staged"))
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="how many in turn")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--at", type=int, nargs="+", help="pictures after which to look")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.at = options.at or sorted({1, WARM, options.pictures // 2, options.pictures})
    if options.child:
        try:
            print(json.dumps(soak(options.child, options)))
        except EngineUnavailableError as error:
            print(json.dumps({"missing": error.problem}))
        return
    at = " / ".join(map(str, [*options.at, "closed"]))
    print(f"| engine | memory in MiB at {at} | descriptors | threads | after {WARM} |")
    print("|---|---|---|---|---|", flush=True)
    rows: dict[str, Any] = {}
    for engine in options.engine:
        command = [sys.executable, __file__, *sys.argv[1:], "--child", engine]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = rows[engine] = json.loads(done.stdout.splitlines()[-1])
        missing = found.get("missing")
        print(f"| {engine} | {missing} |" if missing else describe(engine, found), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
