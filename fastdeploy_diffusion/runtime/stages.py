"""The stages of a network, in the order in which they run: data that a build and its run share.

A network declares them: a prologue, which runs once a request, and the stages of every step, where
a list of blocks that differ in nothing but their weights is one stage. How many of them are built
as one program is a schedule of the list: resident (`join_stages`), or streamed, block after block.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec

STAGES_FILE = "stages.json"
_NEXT = "next_"


@dataclass(frozen=True)
class Stage:
    """A part of a network that is, or could be, a program of its own.

    Args:
        name: ``"prologue"``, ``"single_block"`` …
        inputs: Inputs of the network, and outputs of earlier stages, by their names.
        outputs: The inputs of later stages. One named ``next_x`` replaces ``x``.
        per_request: Whether it runs once a request, and not at every step. Its first output then
            has a row for each row of the inputs whose batch it fixes: so many timesteps go through
            it at once.
        repeats: Number of runs in a row, each with the weights of another block.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    per_request: bool = False
    repeats: int = 1

    def describe(self) -> dict[str, Any]:
        """Describe the stage as JSON values."""
        return {
            "name": self.name,
            "inputs": [spec.describe() for spec in self.inputs],
            "outputs": [spec.describe() for spec in self.outputs],
            "per_request": self.per_request,
            "repeats": self.repeats,
        }

    @classmethod
    def parse(cls, described: Mapping[str, Any]) -> Stage:
        """Parse the JSON values of `describe`."""
        inputs, outputs = (
            tuple(TensorSpec.parse(each) for each in described[kind])
            for kind in ("inputs", "outputs")
        )
        per_request, repeats = bool(described["per_request"]), int(described["repeats"])
        return cls(str(described["name"]), inputs, outputs, per_request, repeats)


def name_value(output: str) -> str:
    """Name an output as later stages know it."""
    return output.removeprefix(_NEXT)


def check_chain(component: str, stages: Sequence[Stage], whole: Signature) -> None:
    """Refuse stages with an input that no earlier stage returns.

    Args:
        whole: Inputs, of which the first is the sample, and outputs of the network.

    Raises:
        EngineError: Names stage and tensor.
    """
    sample, *others = whole.inputs
    values = {spec.name: spec for spec in others}
    is_prologue = [stage.per_request for stage in stages]
    if is_prologue != [True] + [False] * (len(stages) - 1) or len(stages) < 2:
        raise EngineError(
            f"{component}: of the stages {', '.join(stage.name for stage in stages)}, "
            f"{sum(is_prologue)} run once a request",
            allowed="the first one, before one or more that run at every step",
        )
    for stage in stages:
        for spec in stage.inputs:
            _require(f"{component}: the stage {stage.name!r} takes", spec, values)
        for spec in stage.outputs:
            if spec.name != (value := name_value(spec.name)):
                _require(f"{component}: the stage {stage.name!r} replaces", spec, values)
            values[value] = replace(spec, name=value)
        values.setdefault(sample.name, sample)  # the prologue does not have it
    for spec in whole.outputs:
        _require(f"{component}: the network gives", spec, values)


def _require(what: str, spec: TensorSpec, values: Mapping[str, TensorSpec]) -> None:
    found = values.get(name_value(spec.name))
    if found is None:
        raise EngineError(
            f"{what} {spec.name!r}, which nothing before gives", allowed=", ".join(values)
        )
    # The batch may be that of another schedule: so many timesteps at once.
    if (found.dtype, found.shape[1:]) != (spec.dtype, spec.shape[1:]):
        raise EngineError(f"{what} {spec.name!r} as {spec}", allowed=f"{found}, as it is given")


def join_signatures(stages: Sequence[Stage], wanted: Sequence[TensorSpec]) -> Signature:
    """Join neighbouring stages to the inputs and outputs of one program.

    Args:
        wanted: The outputs that are used afterwards.
    """
    inputs: dict[str, TensorSpec] = {}
    given: dict[str, TensorSpec] = {}
    for stage in stages:
        inputs |= {spec.name: spec for spec in stage.inputs if spec.name not in given}
        given |= {name_value(spec.name): spec for spec in stage.outputs}
    outputs = [replace(given[spec.name], name=spec.name) for spec in wanted if spec.name in given]
    return Signature(tuple(inputs.values()), tuple(outputs))


def write_stages(stages: Sequence[Stage], folder: Path) -> None:
    """Write a build's stages into its folder."""
    text = json.dumps([stage.describe() for stage in stages], indent=2)
    (folder / STAGES_FILE).write_text(text, encoding="utf-8")


def read_stages(folder: Path) -> list[Stage]:
    """Read the stages of a build; none if it is one program.

    Raises:
        EngineError: The file is damaged.
    """
    path = folder / STAGES_FILE
    if not path.is_file():
        return []
    try:
        return [Stage.parse(each) for each in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"{path} cannot be read ({type(error).__name__}: {error})", fix="build it again"
        ) from error
