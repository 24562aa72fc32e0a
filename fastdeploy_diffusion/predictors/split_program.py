"""A denoiser as two programs: a prologue once a request, and a step that takes its results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fastdeploy_diffusion.export.manifest import read_signature
from fastdeploy_diffusion.models.flux_split import FluxPrologue, FluxStep
from fastdeploy_diffusion.models.unet_split import UNetStep
from fastdeploy_diffusion.program import Program, Signature, TensorSpec
from fastdeploy_diffusion.size_range import SizeRange

_PROLOGUE, _STEP = "prologue", "step"
_BELOW = f"{_PROLOGUE}."  # what names of the prologue's weights begin with in the layer
# Timesteps that go through a UNet's prologue at once: always as many, so that engines which compile
# for each shape compile for one, whatever the number of steps.
TIMESTEPS = 64
# Combinations of timestep, guidance and pooled text that go through Flux's. The 28 steps of dev are
# one batch; each takes 4 MiB there.
COMBINATIONS = 32


class _Split(NamedTuple):
    """A prologue's signature, the step, and the step's inputs."""

    prologue: Signature
    step: Any
    inputs: tuple[TensorSpec, ...]


def list_parts(program: Program, artifact: Path) -> list[tuple[Program, Path]]:
    """The programs that a network is built as, and where each of them lies."""
    parts = split_program(program, program.layer)
    if parts is None:
        return [(program, artifact)]
    return [(part, artifact / part.name) for part in parts]


def find_parts(program: Program, artifact: Path) -> list[tuple[Program, Path]]:
    """The same of a finished build, by what it says itself: no layer is needed.

    Raises:
        EngineError: A part's manifest cannot be read.
    """
    folders = [artifact / f"{program.name}_{part}" for part in (_PROLOGUE, _STEP)]
    if not folders[0].is_dir():
        return [(program, artifact)]
    parts = [(Program(each.name, None, *read_signature(each)), each) for each in folders]
    return [(replace(part, tensors=program.tensors), folder) for part, folder in parts]


def split_program(program: Program, layer: Any) -> tuple[Program, Program] | None:
    """Make two programs of one whose layer has a prologue.

    The first output of the prologue has rows, one for each row of those inputs whose batch it
    fixes; a step takes as many of them as it has rows.

    Args:
        program: The whole: its signature, and what the weights of ``layer`` are made of.
        layer: The rewritten layer, with values or without.

    Returns:
        Prologue and step; ``None`` if the layer has no prologue.
    """
    prologue = getattr(layer, "prologue", None)
    if prologue is None:
        return None
    split = _split_flux if isinstance(prologue, FluxPrologue) else _split_unet
    parts = split(program.inputs, layer)
    recipe = {
        name.removeprefix(_BELOW): made_of
        for name, made_of in program.recipe.items()
        if name.startswith(_BELOW)
    }
    return (
        Program(
            f"{program.name}_{_PROLOGUE}",
            prologue,
            *parts.prologue,
            tensors=program.tensors,
            recipe=recipe,
            graph_passes=program.graph_passes,
        ),
        replace(
            program, name=f"{program.name}_{_STEP}", layer=parts.step.eval(), inputs=parts.inputs
        ),
    )


def _split_unet(inputs: tuple[TensorSpec, ...], unet: Any) -> _Split:
    sample, timestep, context = inputs
    width = unet.prologue.time_projections.weight.shape[1]
    time_features = TensorSpec("time_features", (*timestep.shape, width), "float32")
    context_features = TensorSpec(
        "context_features",
        (*context.shape[:2], unet.prologue.context_projections.weight.shape[1]),
        "float32",
    )
    signature = Signature(
        (_fix_rows(timestep, TIMESTEPS), _free_rows(context)),
        (_fix_rows(time_features, TIMESTEPS), _free_rows(context_features)),
    )
    return _Split(signature, UNetStep(unet), (sample, time_features, context_features))


def _split_flux(inputs: tuple[TensorSpec, ...], transformer: Any) -> _Split:
    latents, *others = inputs
    texts, *_ = others
    prologue = transformer.prologue
    sizes = [each.shape[0] for each in others if each.name in ("img_ids", "txt_ids")]
    tokens = sum(size for size in sizes if isinstance(size, int))  # Flux has no free sizes
    angles = tokens, transformer.config.attention_head_dim // 2
    width = sum(linear.weight.shape[1] for linear in prologue.modulations)
    dim = prologue.context_embedder.weight.shape[1]
    modulations, *shared = (
        TensorSpec("modulations", (texts.shape[0], width), "float32"),
        TensorSpec("context", (*texts.shape[:2], dim), "float32"),
        TensorSpec("cosines", angles, "float32"),
        TensorSpec("sines", angles, "float32"),
    )
    combined = ("pooled_projections", "timestep", "guidance")
    signature = Signature(
        tuple(_fix_rows(each, COMBINATIONS) if each.name in combined else each for each in others),
        (_fix_rows(modulations, COMBINATIONS), *shared),
    )
    return _Split(signature, FluxStep(transformer), (latents, modulations, *shared))


def _fix_rows(spec: TensorSpec, rows: int) -> TensorSpec:
    return replace(spec, shape=(rows, *spec.shape[1:]))


def _free_rows(spec: TensorSpec) -> TensorSpec:
    """Let a batch within bounds begin at one row, for each is conditioned by itself."""
    batch = spec.shape[0]
    if not isinstance(batch, SizeRange):
        return spec
    return replace(spec, shape=(replace(batch, min=1), *spec.shape[1:]))
