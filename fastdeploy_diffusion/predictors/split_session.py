"""A denoiser as two programs: a prologue once a request, and a step that takes its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.engines.session import OperatorTime, Session
from fastdeploy_diffusion.export.manifest import read_signature
from fastdeploy_diffusion.models.unet_split import UNetStep
from fastdeploy_diffusion.program import Program, TensorSpec

FloatArray = npt.NDArray[np.float32]

_PROLOGUE, _STEP = "prologue", "step"
# Timesteps that go through the prologue at once: always as many, so that engines which compile for
# each shape compile for one, whatever the number of steps.
TIMESTEPS = 64


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
    prologue, step = (Program(each.name, None, *read_signature(each)) for each in folders)
    read = program.read_weight
    return [
        (replace(prologue, read_weight=_below_prologue(read)), folders[0]),
        (replace(step, read_weight=read), folders[1]),
    ]


def split_program(program: Program, layer: Any) -> tuple[Program, Program] | None:
    """Make two programs of one whose layer has a prologue.

    Args:
        program: The whole: its signature, and what reads the weights of ``layer``.
        layer: The rewritten layer, with values or without.

    Returns:
        Prologue and step; ``None`` if the layer has no prologue.
    """
    prologue = getattr(layer, "prologue", None)
    if prologue is None:
        return None
    sample, timestep, context = program.inputs
    width = prologue.time_projections.weight.shape[1]
    time_features = TensorSpec("time_features", (*timestep.shape, width), "float32")
    context_features = TensorSpec(
        "context_features",
        (*context.shape[:2], prologue.context_projections.weight.shape[1]),
        "float32",
    )
    read = program.read_weight
    return (
        Program(
            f"{program.name}_{_PROLOGUE}",
            prologue,
            (replace(timestep, shape=(TIMESTEPS,)), context),
            (replace(time_features, shape=(TIMESTEPS, width)), context_features),
            read_weight=_below_prologue(read),
            graph_passes=program.graph_passes,
        ),
        replace(
            program,
            name=f"{program.name}_{_STEP}",
            layer=UNetStep(layer).eval(),
            inputs=(sample, time_features, context_features),
        ),
    )


def _below_prologue(
    read: Callable[[str], FloatArray] | None,
) -> Callable[[str], FloatArray] | None:
    return read and (lambda name: read(f"prologue.{name}"))


class SplitSession(Session):
    """Both programs behind the signature of the whole.

    What the prologue gave is kept until another prompt or a new timestep comes.

    Args:
        program: The whole.
        prologue: Its session.
        step: The other one's.
    """

    def __init__(self, program: Program, prologue: Session, step: Session) -> None:
        super().__init__(step.engine, program)
        self._prologue = prologue
        self._step = step
        self._time_features: dict[float, FloatArray] = {}
        self._context = np.empty(0, np.float32)

    def precompute(self, **inputs: np.ndarray) -> None:
        """Run the prologue for all timesteps of a request, and its conditioning (B, T, D)."""
        with self._lock:
            self._require_open()
            self._compute(inputs["timestep"], inputs["encoder_hidden_states"])

    def _run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return self._step.run(**self._prepare(feeds))

    def _profile(self, feeds: Mapping[str, np.ndarray]) -> Sequence[OperatorTime]:
        """Of the step alone, which is what runs again and again."""
        return self._step.profile(**self._prepare(feeds))

    def _prepare(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give the step's feeds, with the prologue's results."""
        sample, timesteps, context = feeds.values()
        is_known = all(float(each) in self._time_features for each in timesteps)
        if not is_known or not np.array_equal(context, self._context):
            self._compute(timesteps, context)
        rows = np.stack([self._time_features[float(each)] for each in timesteps])
        return {"sample": sample, "time_features": rows}

    def _close(self) -> None:
        self._prologue.close()
        self._step.close()

    def _compute(self, timesteps: npt.NDArray[np.float32], context: FloatArray) -> None:
        distinct = np.unique(timesteps)
        self._time_features = {}
        for start in range(0, len(distinct), TIMESTEPS):
            part = distinct[start : start + TIMESTEPS]
            padded = np.resize(part, TIMESTEPS)
            features = self._prologue.run(timestep=padded, encoder_hidden_states=context)
            rows = zip(part.tolist(), features["time_features"], strict=False)
            self._time_features.update(rows)
        self._step.bind(context_features=features["context_features"])
        self._context = context.copy()
