"""Outputs of Paddle layers, kept on disk: the reference of many builds, run once."""

import hashlib
import json
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastdeploy_diffusion.compiler.cache_key import identify_device
from fastdeploy_diffusion.compiler.code_digest import digest_code
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.disk_room import describe_shortage
from fastdeploy_diffusion.engines.paddle import PaddleEngine
from fastdeploy_diffusion.machine import find_version
from fastdeploy_diffusion.passes.contract import AnyPass
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.runtime.array_files import ArrayFiles
from fastdeploy_diffusion.runtime.cache import MAKE_ROOM, REFERENCES, CacheWarning
from fastdeploy_diffusion.runtime.cache_entry import CacheKey
from fastdeploy_diffusion.runtime.program import TensorSpec

LIMIT = 2**29
"""Bytes of all references: those of SDXL at 1024 x 1024, in every precision, take 150 MB."""
_FORMAT = 1  # raised when the layer is run in another way
# The modules, beside those of the network, that make the numbers.
_MAKES = (
    "fastdeploy_diffusion.checkpoints.layer_weights",
    "fastdeploy_diffusion.checkpoints.tensor_source",
    "fastdeploy_diffusion.engines.paddle_layer",
    "fastdeploy_diffusion.engines.paddle_rounding",
)


class ReferenceFiles:
    """The kept outputs of a network's layer, as it is and rounded.

    What cannot be kept is computed again by the next build, which a `CacheWarning` says once.

    Args:
        root: The cache's folder.
        outputs: Of the layer, in its order.
        passes: Applied to the layer.
    """

    def __init__(
        self,
        root: Path,
        network: Network,
        outputs: tuple[TensorSpec, ...],
        passes: tuple[AnyPass, ...] = (),
    ) -> None:
        self._root = root
        self._network = network
        self._outputs = outputs
        self._passes = passes
        self._files = ArrayFiles(root / REFERENCES, LIMIT, "the Paddle layer runs again")
        self._is_told = False

    def find(self, inputs: str, rounded_to: str) -> dict[str, np.ndarray] | None:
        """Look up the outputs for inputs of a digest; a damaged file is a `CacheWarning`."""
        found = self._files.find(self._digest(inputs, rounded_to))
        return dict(found[0]) if found else None

    def keep(self, inputs: str, rounded_to: str, outputs: Mapping[str, np.ndarray]) -> None:
        """Keep outputs, in place of those that were used least recently if there is no room."""
        try:
            self._files.keep(self._digest(inputs, rounded_to), outputs)
        except OSError as error:
            if not self._is_told:
                self._is_told = True
                problem = describe_shortage(error) or error.strerror or str(error)
                message = (
                    f"outputs of the Paddle layer are not kept in {self._files.folder}: {problem}; "
                    f"the next build runs it again; {MAKE_ROOM}"
                )
                warnings.warn(message, CacheWarning, stacklevel=2)

    def _digest(self, inputs: str, rounded_to: str) -> str:
        text = json.dumps([self._identity, inputs, rounded_to])
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def _identity(self) -> str:
        """The digest of all that the outputs depend on beside the inputs."""
        ingredients: dict[str, Any] = {
            "network": self._network.identify(self._root),
            "outputs": [each.describe() for each in self._outputs],
            "passes": [each.identify() for each in self._passes],
            "code": digest_code(
                [*_MAKES, *self._network.modules, *(each.module for each in self._passes)]
            ),
            "packages": {name: find_version(name) for name in PaddleEngine.packages},
            "device": identify_device(Device("cpu"), None),
            "format": _FORMAT,
        }
        return CacheKey(ingredients).digest
