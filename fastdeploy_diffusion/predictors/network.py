"""One network of a checkpoint: its layer, with or without weights, and the weights alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.checkpoints import (
    TensorSource,
    build_layer,
    build_skeleton,
    check_weights,
)
from fastdeploy_diffusion.families.networks.activations import CountActivations, count_nothing
from fastdeploy_diffusion.lazy import Deferred, load
from fastdeploy_diffusion.predictors.digest_memo import recall_digest

_HUB_PREFIX = "models--"  # of folders in a cache of the Hugging Face hub


@dataclass(frozen=True)
class Network:
    """How to make a network, and where its weights are.

    Args:
        layer: Path of the class whose parameters have the checkpoint's names, made of ``config``.
            It is imported, and Paddle with it, when the layer is needed.
        cut: Takes a part of the layer, whose weights are those of ``source`` but for ``unread``.
        wrap: Makes the layer that engines run of it.
        prefix: Prefix of the parameters' names in the wrapped layer: ``"vae."``.
        role: The options of a configuration that apply; empty for one of no pipeline.
        count_activations: Counts what a run holds besides weights, for shapes of inputs.
        unread: Prefixes of weights that belong to other parts of the layer.
    """

    layer: str
    config: Any
    source: TensorSource
    cut: Deferred | None = None
    wrap: Deferred | None = None
    prefix: str = ""
    role: str = ""
    count_activations: CountActivations = count_nothing
    unread: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse weights that are not the network's, by names and shapes; no value is read.

        Raises:
            CheckpointError: Lists what is missing, unexpected or of another shape.
        """
        check_weights(build_skeleton(self._make), self._select())

    @property
    def model(self) -> str:
        """The checkpoint's name for people: that of its folder or file, or the hub's."""
        path = Path(self.source.origin).absolute()
        for part in path.parts:
            if part.startswith(_HUB_PREFIX):
                return part.removeprefix(_HUB_PREFIX).replace("--", "/")
        return path.stem if path.suffix == ".safetensors" else path.parent.name

    def load(self) -> Any:
        """Make the layer with its weights, in eval mode.

        Raises:
            CheckpointError: The weights do not fit the layer, or cannot be read.
        """
        return self._finish(build_layer(self._make, self._select()))

    def sketch(self) -> Any:
        """Make the layer without weights, in eval mode: nothing is read or allocated for them."""
        return self._finish(build_skeleton(self._make))

    def count_weights(self) -> int:
        """Count the numbers that an engine holds as weights; nothing is read."""
        source = self._select()
        return sum(prod(source.shape(name)) for name in source)

    def identify(self, root: Path) -> dict[str, Any]:
        """Identify the network for the keys of its builds.

        Args:
            root: The cache's folder, for digests of weights, so that each is computed once.
        """
        return {**self.describe(), "weights": recall_digest(self.source, root)}

    def describe(self) -> dict[str, Any]:
        """Describe the network without its weights, as JSON."""
        return {
            "layer": self.layer,
            "config": asdict(self.config),
            "cut": [self.cut.path, *map(repr, self.cut.arguments)] if self.cut else [],
            "wrap": [self.wrap.path, *self.wrap.arguments] if self.wrap else [],
        }

    @property
    def modules(self) -> list[str]:
        """The modules that define it."""
        paths = [self.layer, *(each.path for each in (self.cut, self.wrap) if each)]
        return [path.partition(":")[0] for path in paths]

    def find_tensor(self, name: str) -> str:
        """Translate a weight's name in the wrapped layer to the checkpoint's."""
        return name.removeprefix(self.prefix)

    def _select(self) -> TensorSource:
        """Select the weights of its own."""
        names = [name for name in self.source if not name.startswith(self.unread)]
        return self.source.rename({name: name for name in names}) if self.unread else self.source

    def _make(self) -> Any:
        layer = load(self.layer)(self.config)
        return self.cut(layer) if self.cut else layer

    def _finish(self, layer: Any) -> Any:
        finished = self.wrap(layer) if self.wrap else layer
        finished.eval()
        return finished
