"""What int8 needs to know of a network: the ranges of its numbers, and which layers bear it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastdeploy_diffusion.compiler.rewriting import rewrite_network
from fastdeploy_diffusion.disk_room import make_temporary_folder
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.export.int8 import quantize_export
from fastdeploy_diffusion.export.int8_switches import add_switches
from fastdeploy_diffusion.export.observers import OBSERVED, choose_ranges, observe_export
from fastdeploy_diffusion.families.networks.census import Site
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.precision import INT8
from fastdeploy_diffusion.quantization import Quantization, Range
from fastdeploy_diffusion.runtime.program import Program

if TYPE_CHECKING:
    from fastdeploy_diffusion.compiler.build import ComponentBuild
    from fastdeploy_diffusion.runtime.session import Session
    from fastdeploy_diffusion.runtime.weight_store import WeightStore

# The first and the last layers, shortcuts, and what makes vectors of timesteps and prompts: few
# multiplications, and errors that reach every number. In a decoder all but its resnets' own.
_SENSITIVE: Mapping[str, str] = {
    "denoiser": r"(^|\.)(time_\w+|add_embedding|time_text_embed|guidance_embedder|context_embedder"
    r"|x_embedder|conv_in|conv_out|conv_shortcut|norm\w*\.linear|norm_out|modulations)(\.|$)"
    r"|^proj_out$",
    "vae_decoder": r"^(?!.*\.resnets\.\d+\.conv[12]$)",
}


def observe(
    build: ComponentBuild,
    feeds: Iterable[Mapping[str, np.ndarray]],
    *,
    clips: bool = True,
    symmetric: bool = False,
) -> dict[str, Range]:
    """Run a component on inputs, and choose the range of what each of its layers reads.

    It runs on the build's engine, in bf16 where that is the faster one, or else in float32.

    Args:
        feeds: Inputs of the whole component, of one or more runs.
        clips: As for `choose_ranges`.
        symmetric: Likewise.

    Returns:
        By name after the layer passes, in the order of the graph.

    Raises:
        EngineError: There are no inputs, or the engine does not read ONNX graphs.
        NonFiniteError: A number in the network is not finite.
    """
    with open_trials(build) as trials:
        return trials.observe(feeds, clips=clips, symmetric=symmetric)


def choose_sensitive(component: str, layers: Collection[str]) -> frozenset[str]:
    """Choose the layers that stay in floating point by default.

    Args:
        component: ``"denoiser"``, ``"vae_decoder"`` …; of one that is not known, none.
    """
    if component not in _SENSITIVE:
        return frozenset()
    pattern = re.compile(_SENSITIVE[component])
    return frozenset(layer for layer in layers if pattern.search(layer))


@dataclass(frozen=True)
class Trials:
    """A component that is observed, and quantized again and again, from one export.

    Args:
        spec: Of the export in float32 or half precision.
        program: Likewise; with the store of its weights.
        folder: Likewise.
    """

    build: ComponentBuild
    spec: BuildSpec
    program: Program
    folder: Path

    def observe(
        self,
        feeds: Iterable[Mapping[str, np.ndarray]],
        *,
        clips: bool = True,
        symmetric: bool = False,
    ) -> dict[str, Range]:
        """Run it on inputs, and choose the ranges of its layers, as `observe` does."""
        engine = self.build.placement.engine
        with self._copy() as folder:
            observed, layers = observe_export(self.program, folder)
            with engine.load(observed, self.spec, folder) as session:
                rows = (session.run(**feed)[OBSERVED] for feed in feeds)
                return choose_ranges(
                    self.build.name, layers, rows, clips=clips, symmetric=symmetric
                )

    def start(self, quantization: Quantization) -> Session:
        """Quantize it; the session is the caller's to close.

        Raises:
            EngineError: It does not load.
        """
        program = replace(self.program, quantization=quantization)
        spec = replace(self.build.placement.spec, precision=INT8)
        with self._copy() as folder:
            engine = self.build.placement.engine
            dialect = engine.dialect or Dialect.STANDARD
            quantize_export(program, folder, INT8, spec.weight_bits, dialect)
            return engine.load(program, spec, folder)

    def start_switched(self, blocks: Sequence[Mapping[str, Range]]) -> Session:
        """Start it with each block in floating point and in int8, switched by an input.

        Args:
            blocks: Layers, and the ranges of what they read, as for `add_switches`.

        Raises:
            EngineError: It does not load.
        """
        engine, spec = self.build.placement.engine, self.build.placement.spec
        spec = replace(spec, precision=INT8)
        with self._copy() as folder:
            dialect = engine.dialect or Dialect.STANDARD
            program = add_switches(self.program, folder, blocks, spec.weight_bits, dialect)
            return engine.load(program, spec, folder)

    @contextmanager
    def _copy(self) -> Iterator[Path]:
        with make_temporary_folder(self.build.name) as folder:
            yield shutil.copytree(self.folder, folder / "trial")


@contextmanager
def open_trials(build: ComponentBuild, store: WeightStore | None = None) -> Iterator[Trials]:
    """Export a component once, to observe it, and to try one choice of layers after the other.

    Args:
        store: Makes each weight once for all trials, which map it; ``None`` to make all of them in
            memory, for each.

    Raises:
        EngineError: It cannot be exported.
    """
    spec = _choose_float(build)
    with _export(build, spec) as (program, folder):
        yield Trials(build, spec, replace(program, store=store), folder)


@contextmanager
def _export(build: ComponentBuild, spec: BuildSpec) -> Iterator[tuple[Program, Path]]:
    """Export a component as one program, without graph passes: they leave these numbers alone."""
    engine = build.placement.engine
    if not engine.can_be_observed:
        raise EngineError(
            f"{build.name}: {engine.name} cannot show what its layers read",
            allowed="openvino and onnxruntime",
        )
    # With invariants hoisted there would be two programs.
    passes = [each for each in build.layer_passes if Site.INVARIANT not in (each.sites or ())]
    rewritten = rewrite_network(build.network, passes)
    program = Program(
        build.name,
        rewritten.layer,
        build.inputs,
        build.outputs,
        tensors=build.network.source,
        recipe=rewritten.recipe,
    )
    with make_temporary_folder(build.name) as folder:
        engine.build(program, spec, folder / build.name)
        yield replace(program, layer=None), folder / build.name


def _choose_float(build: ComponentBuild) -> BuildSpec:
    half = replace(build.placement.spec, precision="bf16")
    support = build.placement.engine.supports(half)
    return half if support.ok and not support.slower else replace(half, precision="fp32")
