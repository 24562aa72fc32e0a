"""A denoiser as two programs: a prologue once a request, and a step that takes its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.engines.session import Session
from fastdeploy_diffusion.models.unet_split import UNetStep
from fastdeploy_diffusion.program import Program, TensorSpec

FloatArray = npt.NDArray[np.float32]


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
    time_features = TensorSpec(
        "time_features", (None, prologue.time_projections.weight.shape[1]), "float32"
    )
    context_features = TensorSpec(
        "context_features",
        (*context.shape[:2], prologue.context_projections.weight.shape[1]),
        "float32",
    )
    read = program.read_weight
    return (
        Program(
            f"{program.name}_prologue",
            prologue,
            (timestep, context),
            (time_features, context_features),
            read_weight=read and (lambda name: read(f"prologue.{name}")),
            graph_passes=program.graph_passes,
        ),
        replace(
            program,
            name=f"{program.name}_step",
            layer=UNetStep(layer).eval(),
            inputs=(sample, time_features, context_features),
        ),
    )


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
        sample, timesteps, context = feeds.values()
        is_known = all(float(each) in self._time_features for each in timesteps)
        if not is_known or not np.array_equal(context, self._context):
            self._compute(timesteps, context)
        rows = np.stack([self._time_features[float(each)] for each in timesteps])
        return self._step.run(sample=sample, time_features=rows)

    def _close(self) -> None:
        self._prologue.close()
        self._step.close()

    def _compute(self, timesteps: npt.NDArray[np.float32], context: FloatArray) -> None:
        distinct = np.unique(timesteps)
        features = self._prologue.run(timestep=distinct, encoder_hidden_states=context)
        self._step.bind(context_features=features["context_features"])
        self._time_features = dict(zip(distinct.tolist(), features["time_features"], strict=True))
        self._context = context.copy()
