"""The reference of a component's builds: the Paddle layer in float32."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Self

from fastdeploy_diffusion.compiler.reference_files import ReferenceFiles
from fastdeploy_diffusion.compiler.rewriting import rewrite_network
from fastdeploy_diffusion.engines.paddle_eager import PaddleEagerEngine
from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.engines.paddle_rounding import round_layer
from fastdeploy_diffusion.passes.base import LayerPass
from fastdeploy_diffusion.passes.contract import AnyPass, keep_changing
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.predictors.memory_need import (
    hold_activations,
    require_room,
)
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.runtime.program import Program, Signature


class Reference:
    """A component's layer, which is loaded for as long as it is needed.

    It is slow and large, and for the same inputs its outputs stay the same: so they are kept, and
    builds for other engines and precisions, of other processes as well, are compared with one run
    of the layer.

    Args:
        root: The cache's folder, to keep them on disk; ``None`` to keep them in memory alone.
        passes: Those that change the picture on purpose, which alone are applied to it.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        signature: Signature,
        root: Path | None = None,
        passes: tuple[AnyPass, ...] = (),
    ) -> None:
        self.program = Program(name, None, *signature)
        self.passes = passes
        self._network = network
        self._layer: Any = None
        self._rounded_to = ""
        self._outputs: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        self.root = root
        self._files = ReferenceFiles(root, network, signature.outputs, passes) if root else None

    def load(self, rounded_to: str = "") -> Program:
        """Load the layer with its weights, which stay in memory until `release`.

        Args:
            rounded_to: The type that its weights, and the values between its parts, are rounded
                to; empty for float32. This overwrites the weights, so that it takes no memory;
                asked for another type, the layer is loaded anew.

        Raises:
            CheckpointError: The weights do not fit the layer, or cannot be read.
        """
        if self._layer is not None and self._rounded_to not in ("", rounded_to):
            self.release()
        if self._layer is None:
            self._layer, self._rounded_to = self._load_layer(), ""
        if self._rounded_to != rounded_to:
            round_layer(self._layer, rounded_to)
            self._rounded_to = rounded_to
        return replace(self.program, layer=self._layer)

    @property
    def layer_passes(self) -> tuple[LayerPass, ...]:
        """The passes that are applied to it; loading them imports Paddle."""
        loaded = (each.load() for each in self.passes)
        return tuple(each for each in loaded if isinstance(each, LayerPass))

    def _load_layer(self) -> Any:
        if not self.passes:
            return self._network.load()
        return rewrite_network(self._network, self.layer_passes).load()

    def follow(self, passes: Sequence[AnyPass]) -> Self:
        """Return the reference of builds with other passes: itself, if these change as much."""
        changes = keep_changing(passes)
        if [str(each) for each in changes] == [str(each) for each in self.passes]:
            return self
        signature = Signature(self.program.inputs, self.program.outputs)
        return type(self)(self.program.name, self._network, signature, self.root, changes)

    def release(self) -> None:
        """Free the layer's memory; its outputs are kept."""
        self._layer = None

    def expect(
        self, feeds: Mapping[str, np.ndarray], rounded_to: str = ""
    ) -> dict[str, np.ndarray]:
        """Compute the layer's outputs, by name, for every input in the signature's order.

        Args:
            rounded_to: As for `load`.

        Raises:
            CheckpointError: As `load`.
            ResourceError: The layer does not fit into memory.
            EngineError: The layer does not return as many tensors as the signature names.
        """
        key = _digest(feeds), rounded_to
        if not self._recall(key):
            self.require_room({name: array.shape for name, array in feeds.items()})
            self._outputs[key] = run_layer(self.load(rounded_to), feeds)
            if self._files:
                self._files.keep(*key, self._outputs[key])
        return self._outputs[key]

    def knows(self, feeds: Mapping[str, np.ndarray], rounded_to: str = "") -> bool:
        """Tell whether the outputs for inputs are kept, so that `expect` runs nothing."""
        return self._recall((_digest(feeds), rounded_to))

    def _recall(self, key: tuple[str, str]) -> bool:
        found = self._files.find(*key) if self._files and key not in self._outputs else None
        if found is not None:
            self._outputs[key] = found
        return key in self._outputs

    def require_room(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse to run the layer on inputs of these shapes, by name, where it does not fit.

        Raises:
            ResourceError: There is less memory than it takes.
        """
        counted = self._network.count_activations(shapes)
        weights = self._network.count_weights() if self._layer is None else 0
        require_room(
            f"{self.program.name}: the Paddle layer, with which a new build is compared,",
            PRECISIONS["fp32"].weight_bytes * weights
            + hold_activations(PaddleEagerEngine(), "fp32", counted),
        )


def _digest(feeds: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in feeds.items():
        digest.update(f"{name} {array.dtype} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
