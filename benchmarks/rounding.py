"""What rounding to half precision does to networks, and what engines make of it.

``python benchmarks/rounding.py --random-weights sd15 --size 512x512`` builds each network of random
weights in bf16 and fp16, and prints the rows of the table in ``docs/precision.md``: the error that
rounding makes in the Paddle layer itself, and each engine's as a multiple of it. With ``--set``, a
network that does not fit into memory is made less deep: ``text_encoder_2.num_layers=4``.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.benchmark.architectures import ARCHITECTURES, Architecture
from fastdeploy_diffusion.benchmark.random_checkpoint import (
    make_random_checkpoint,
    write_random_checkpoint,
)
from fastdeploy_diffusion.compiler.build import ComponentBuild
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.placement import Placement, require_engine
from fastdeploy_diffusion.errors import AccuracyError, EngineUnavailableError
from fastdeploy_diffusion.passes.by_size import keep_usable
from fastdeploy_diffusion.passes.registry import find_passes
from fastdeploy_diffusion.pipelines.opening import open_pipeline
from fastdeploy_diffusion.runtime.program import Signature

PRECISIONS = ("bf16", "fp16")


def main() -> None:
    """Measure, and print a row for each network as soon as it is done."""
    options = read_options()
    config = DiffusionConfig(
        model_path=str(find_model(options)),
        precision="fp32",
        cpu_fallback=False,
        cache=options.cache is not None,
        cache_dir=options.cache,
    )
    width, height = map(int, options.size.split("x"))
    with open_pipeline(config) as pipeline:
        builds = pipeline.plan_builds(height, width)
        cells = [f"{each}: rounding | {' | '.join(options.engines)}" for each in options.precisions]
        print(f"| Network | {' | '.join(cells)} |", flush=True)
        for build in builds:
            if not options.components or build.name in options.components:
                cells = list(measure(build, options.engines, options.precisions))
                print(f"| {build.name} | {' | '.join(cells)} |", flush=True)
                build.reference.release()


def measure(
    build: ComponentBuild, engines: Sequence[str], precisions: Sequence[str]
) -> Iterator[str]:
    """Give the cells of a network's row: for each precision, the error, and the multiples."""
    for precision in precisions:
        rounding, multiples = 0.0, []
        for engine in engines:
            try:
                error, rounding, problem = compare(build, engine, precision)
            except EngineUnavailableError as unavailable:
                print(f"{build.name}: {unavailable.in_one_line}", file=sys.stderr)
                multiples.append("")
                continue
            multiples.append(f"{error / rounding:.2f}")
            found = {"network": build.name, "engine": engine, "precision": precision}
            found |= {"error": error, "rounding": rounding, "problem": problem}
            print(json.dumps(found), file=sys.stderr, flush=True)
        yield from (f"{rounding:.1e}".replace("e-0", "e-") if rounding else "", *multiples)


def compare(build: ComponentBuild, engine: str, precision: str) -> tuple[float, float, str]:
    """Build a network, and compare it with the Paddle layer.

    Returns:
        Its error, that of rounding, and why it is refused; empty if it is not.
    """
    spec = BuildSpec(build.placement.spec.device, precision, build.placement.spec.threads)
    placement = Placement(require_engine(engine, spec), spec)
    signature = Signature(build.inputs, build.outputs)
    names = build.name_default_passes(placement.engine, precision, build.network, signature)
    passes = keep_usable(find_passes(names), signature)
    try:
        built = replace(build, placement=placement, passes=passes).open(None)
    except AccuracyError as error:
        return error.relative_error, error.rounding_error or 0.0, error.problem
    built.session.close()
    assert built.accuracy is not None
    return built.accuracy.relative_error, built.accuracy.rounding_error or 0.0, ""


def find_model(options: Any) -> Path:
    """Find the model, or write one of random weights."""
    if options.model:
        return Path(options.model)
    name = options.random_weights
    if not options.set:
        return make_random_checkpoint(name)
    published = ARCHITECTURES[name]
    configs = {each: dict(config) for each, config in published.configs.items()}
    for part, key, number in options.set:
        configs[part][key] = number
    changes = [f"{part}.{key}={number}" for part, key, number in sorted(options.set)]
    folder: Path = options.folder / "-".join([name, *changes])
    if not (folder / "model_index.json").exists():
        write_random_checkpoint(folder, Architecture(published.family, configs, published.dtype))
    return folder


def read_change(text: str) -> tuple[str, str, int]:
    """Read ``COMPONENT.KEY=NUMBER``."""
    name, _, number = text.partition("=")
    part, _, key = name.partition(".")
    return part, key, int(number)


def read_options() -> Any:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="the path of a checkpoint")
    what.add_argument("--random-weights", choices=ARCHITECTURES)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=read_change,
        metavar="COMPONENT.KEY=NUMBER",
        help="another number in a config of the random weights",
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="for weights with --set")
    parser.add_argument("--size", default="512x512", help="of the picture: WIDTHxHEIGHT")
    parser.add_argument("--components", nargs="*", metavar="NAME", help="all if left out")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--engines", nargs="+", metavar="NAME", default=["onnxruntime"])
    parser.add_argument("--cache", help="a folder for builds and references; none if left out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
