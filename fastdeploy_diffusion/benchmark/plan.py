"""Which cases a run measures, and which it cannot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastdeploy_diffusion.benchmark.case import OWN, Case, Model, Work
from fastdeploy_diffusion.benchmark.peers import Peer
from fastdeploy_diffusion.benchmark.result import Missing
from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.config.diffusion_config import COMPONENTS
from fastdeploy_diffusion.config.layers import preset_layer
from fastdeploy_diffusion.config.part_options import list_parts
from fastdeploy_diffusion.device import parse_device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.placement import AUTO
from fastdeploy_diffusion.engines.registry import create_engine, engine_names
from fastdeploy_diffusion.errors import EngineUnavailableError
from fastdeploy_diffusion.pipelines.opening import open_pipeline
from fastdeploy_diffusion.requests.request import GenerationRequest

PROMPT, SEED = "a large red star on a blue background", 7
STEPS = 20  # where neither the options nor the configuration say it, and the model needs as many
# The layers themselves, without passes.
REFERENCE: Mapping[str, Any] = {
    "engine": "paddle-eager",
    "precision": "fp32",
    "device": "cpu",
    "target": None,
    "passes": [],
    "cache": False,
    "int8_quality": None,
    "int8_portable": False,
}

Size = tuple[int | None, int | None]


@dataclass(frozen=True)
class BenchmarkPlan:
    """Everything that a run does.

    Args:
        time_limit: Seconds that a process may take.
        is_shapes: Whether the judge of the models in the box can judge.
        sweep: What is changed from case to case, one of ``SWEEPS``; ``None`` for nothing.
    """

    config: DiffusionConfig
    model: Model
    family: str
    cases: tuple[Case, ...]
    missing: tuple[Missing, ...]
    peers: tuple[Peer, ...]
    runs: int
    ablation: bool
    time_limit: float
    is_shapes: bool
    sweep: str | None = None

    @property
    def works(self) -> tuple[Work, ...]:
        """Every piece of work, once."""
        return tuple(dict.fromkeys(case.work for case in self.cases))


def describe_model(checkpoint: Checkpoint, random_weights: str | None) -> Model:
    """Identify a checkpoint; reads all weights once."""
    name = checkpoint.path.absolute().name
    return Model(name=name, digest=checkpoint.digest(), random_weights=random_weights)


def plan_works(
    config: DiffusionConfig,
    checkpoint: Checkpoint,
    sizes: Sequence[Size],
    batches: Sequence[int],
    steps: int | None,
) -> list[Work]:
    """Fill in what options leave open: the configuration's own values, then the model's.

    Raises:
        UnsupportedModelError: No pipeline draws with it.
        RequestError: The model does not draw one of the sizes.
    """
    pipeline = open_pipeline(DiffusionConfig(**describe_reference(config)), checkpoint)
    works = []
    for width, height in sizes:
        request = GenerationRequest(
            prompt=PROMPT, width=width, height=height, num_inference_steps=steps
        )
        settings = pipeline.describe_request(request)
        drawn = settings["num_inference_steps"]
        if steps is None and config.defaults.num_inference_steps is None:
            drawn = min(drawn, STEPS)
        works += [
            Work(
                prompt=PROMPT,
                seed=SEED,
                width=settings["width"],
                height=settings["height"],
                batch=batch,
                steps=drawn,
                guidance_scale=settings["guidance_scale"],
                threads=BuildSpec(parse_device("cpu"), threads=config.threads).cpu_threads,
            )
            for batch in batches
        ]
    return works


def describe_reference(config: DiffusionConfig) -> dict[str, Any]:
    """Give the options of what draws the reference of a configuration's pictures."""
    options = config.model_dump(exclude_unset=True)
    # A component's own choice of an engine is no reference.
    kept = {name: value for name, value in options.items() if name not in COMPONENTS}
    parts = {name: {"model_path": path} for name, path in list_parts(config).items()}
    return {**kept, **parts, **REFERENCE}


def plan_cases(
    config: DiffusionConfig,
    works: Sequence[Work],
    engines: Sequence[str],
    precisions: Sequence[str],
    peers: Sequence[Peer],
    peer_precisions: Sequence[str] = (),
) -> tuple[list[Case], list[Missing]]:
    """Combine works, engines, precisions and peers into cases.

    Args:
        engines: Engines asked for; all that run here if empty.
        peer_precisions: Of the peers; ours if empty.

    Returns:
        The cases, and what this machine cannot do.

    Raises:
        EngineUnavailableError: An engine that was asked for does not run here at all.
        ConfigError: There is no such engine.
    """
    cases: list[Case] = []
    missing: list[Missing] = []
    device = config.device
    for engine in engines or engine_names():
        refusals = {each: _find_refusal(engine, device, each) for each in precisions}
        if engines and all(refusals.values()):
            error = next(filter(None, refusals.values()))
            raise _name_engine(engine, error)
        for precision, refusal in refusals.items():
            for work in works:
                case = Case(
                    painter=OWN, engine=engine, device=device, precision=precision, work=work
                )
                if refusal is None:
                    cases.append(case)
                else:
                    missing.append(Missing(case=str(case), reason=refusal.problem))
    for peer in peers:
        cases += [
            Case(painter=peer.name, engine=peer.name, device=device, precision=each, work=work)
            for each in peer_precisions or precisions
            for work in works
        ]
    # All of one work together: they are compared with each other.
    return sorted(cases, key=lambda case: list(works).index(case.work)), missing


def _name_engine(engine: str, error: EngineUnavailableError) -> EngineUnavailableError:
    """Name the engine in an error."""
    return EngineUnavailableError(
        f"--engine {engine}: {error.problem}", allowed=error.allowed, fix=error.fix
    )


def is_shapes(config: DiffusionConfig) -> bool:
    """Tell whether a configuration means a model in the box."""
    models = [preset_layer(name).values["model_path"] for name in ("shapes", "flux-shapes")]
    return config.model_path in models


def _find_refusal(engine: str, device: str, precision: str) -> EngineUnavailableError | None:
    if engine == AUTO:
        return None
    try:
        create_engine(engine).require_build(BuildSpec(parse_device(device), precision))
    except EngineUnavailableError as error:
        return error
    return None
