"""The benchmark plan that the options of ``bench`` describe."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastdeploy_diffusion.benchmark.case import Work
from fastdeploy_diffusion.benchmark.needs import check_model
from fastdeploy_diffusion.benchmark.peers import PEER_PRECISIONS, find_peers
from fastdeploy_diffusion.benchmark.plan import (
    BenchmarkPlan,
    describe_model,
    is_shapes,
    plan_cases,
    plan_works,
)
from fastdeploy_diffusion.benchmark.random_checkpoint import (
    describe_weights,
    make_random_checkpoint,
)
from fastdeploy_diffusion.benchmark.sweep import SWEEPS, widen
from fastdeploy_diffusion.checkpoints import open_configured
from fastdeploy_diffusion.cli.build import parse_sizes
from fastdeploy_diffusion.cli.model import load_config
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.config.layers import preset_names
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.suggest import did_you_mean


@dataclass(frozen=True)
class BenchOptions:
    """The options as they were given; see ``bench --help``."""

    config: str | None
    model: str | None
    random_weights: str | None
    engines: Sequence[str]
    device: str | None
    precisions: Sequence[str]
    size: str | None
    batch: str
    steps: int | None
    threads: int | None
    sweep: str | None
    runs: int
    ablation: bool
    peers: Sequence[str]
    peer_precisions: Sequence[str]
    peer_pythons: Sequence[str]
    time_limit: float


def split_names(text: str | None) -> list[str]:
    """Read ``a,b`` as names; none if nothing was given."""
    return [] if text is None else [name.strip() for name in text.split(",")]


def make_plan(options: BenchOptions) -> BenchmarkPlan:
    """Check the options, and plan what is measured.

    Raises:
        ConfigError: An option is refused.
        CheckpointError: The checkpoint cannot be used.
        EngineUnavailableError: An engine that was asked for does not run here.
        ResourceError: The model does not fit into this machine.
    """
    sizes, batches = parse_sizes(options.size), _parse_batches(options.batch)
    peers = find_peers(options.peers, options.peer_pythons)
    _check_precisions("--precision", options.precisions, PRECISIONS)
    _check_precisions("--peer-precision", options.peer_precisions, PEER_PRECISIONS)
    config = _load(options)
    given, name = config.model_fields_set, options.random_weights
    checkpoint = open_configured(config)
    works = plan_works(config, checkpoint, sizes, batches, options.steps)
    if options.sweep is not None:
        works = _sweep(options.sweep, works, {"size": sizes, "batch": batches})
    check_model(checkpoint)
    cases, missing = plan_cases(
        config,
        works,
        options.engines or ([config.engine] if "engine" in given else []),
        options.precisions or [config.precision],
        peers,
        options.peer_precisions,
    )
    return BenchmarkPlan(
        config=config,
        model=describe_model(checkpoint, name and describe_weights(name)),
        family=checkpoint.family.name,
        cases=tuple(cases),
        missing=tuple(missing),
        peers=tuple(peers),
        runs=options.runs,
        ablation=options.ablation,
        time_limit=options.time_limit,
        is_shapes=is_shapes(config),
        sweep=options.sweep,
    )


def _sweep(sweep: str, works: Sequence[Work], lists: Mapping[str, Sequence[Any]]) -> list[Work]:
    if sweep not in SWEEPS:
        raise ConfigError(
            f"--sweep {sweep}", allowed=", ".join(SWEEPS), fix=did_you_mean(sweep, SWEEPS)
        )
    for name, points in lists.items():
        if name != sweep and len(points) > 1:
            raise ConfigError(
                f"--sweep {sweep} and a list for --{name}",
                allowed=f"one --{name}: only what is swept changes",
            )
    return widen(works, sweep, is_given=len(works) > 1)


def _load(options: BenchOptions) -> DiffusionConfig:
    model, file = options.model, options.config
    if file in preset_names():
        if model is not None:
            raise ConfigError(
                f"--config {file} and --model {model}",
                allowed="--config FILE.yaml with --model, or a preset alone",
                fix=f"for a model with the settings of a preset: a file with 'preset: {file}'",
            )
        model, file = file, None
    if options.random_weights is not None:
        if model is not None:
            raise ConfigError(
                f"--model {model} and --random-weights {options.random_weights}",
                allowed="one of both",
            )
        model = str(make_random_checkpoint(options.random_weights))
    return load_config(model, file, device=options.device, threads=options.threads)


def _parse_batches(text: str) -> list[int]:
    numbers = [each.strip() for each in text.split(",")]
    if not all(each.isdecimal() and int(each) for each in numbers):
        raise ConfigError(
            f"--batch {text}", allowed="whole numbers of 1 or more, with commas between"
        )
    return [int(each) for each in numbers]


def _check_precisions(option: str, names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{option} {name}", allowed=", ".join(known), fix=did_you_mean(name, known)
            )
