"""Weights of a component with adapters in them, made when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.adapters.adapter_file import Adapter
from fastdeploy_diffusion.adapters.changes import LayerChange
from fastdeploy_diffusion.adapters.spellings import FloatArray, Place
from fastdeploy_diffusion.adapters.strengths import Strength, find_strength
from fastdeploy_diffusion.checkpoints.tensor_source import TensorSource, TensorView

_FORMULAS = 1  # to be counted up with every change of the numbers that adapters give


class _Addition(NamedTuple):
    """What an adapter adds to a tensor of ours."""

    change: LayerChange
    place: Place
    tensor: str
    strength: float

    def make(self, source: TensorSource) -> FloatArray:
        def read(place: Place) -> FloatArray:
            return source.read(f"{place.layer}.{self.tensor}")

        difference = self.change.differ(self.place, self.tensor, read)
        scaled: FloatArray = difference * np.float32(self.strength)
        return scaled


@dataclass(frozen=True)
class AdaptedView(TensorView):
    """A stored tensor, and what adapters add to it; in float32.

    Attributes:
        source: The unchanged tensors, of which DoRA may read several for one.
        additions: In the order of the adapters.
        signature: Tells the adapters and their strengths.
    """

    is_lasting: ClassVar[bool] = False

    source: TensorSource | None = None
    additions: tuple[_Addition, ...] = ()
    signature: str = ""

    @property
    def dtype(self) -> str:
        """Float32, whatever is stored."""
        return "F32"

    def describe(self) -> list[Any]:
        """Describe the view as JSON values."""
        return [*super().describe(), self.signature]

    def read_stored(self) -> npt.NDArray[Any]:
        """Compute the tensor."""
        return self.read()

    def read(self) -> npt.NDArray[np.float32]:
        """Compute the tensor."""
        assert self.source is not None
        stored = super().read_stored()
        total = np.array(self.file.to_float32(self.stored_name, stored), np.float32)
        for each in self.additions:
            total += each.make(self.source).reshape(total.shape)
        return total

    def read_into(self, out: npt.NDArray[Any]) -> None:
        """Compute the tensor into memory of the caller's."""
        out[...] = self.read()

    def digest(self) -> str:
        """Hash what the values depend on; they are not computed for it."""
        assert self.source is not None
        content = hashlib.sha256(f"{super().dtype} {self.signature}\n".encode())
        names = {
            f"{place.layer}.{each.tensor}" for each in self.additions for place in each.change.site
        }
        for name in sorted(names):
            content.update(self.source.digest_tensor(name).encode())
        return content.hexdigest()


@dataclass(frozen=True, eq=False)
class Adaptation:
    """The adapters of one component, at their strengths.

    Attributes:
        source: The component's own weights.
        digest: Of all that the changes depend on.
    """

    source: TensorSource
    additions: Mapping[str, tuple[_Addition, ...]]
    digest: str

    def apply(self, source: TensorSource) -> TensorSource:
        """Change the tensors of a source: the component's own, or some of them."""
        make = {
            name: partial(self._make_view, name, additions)
            for name, additions in self.additions.items()
        }
        return source.replace(make)

    def _make_view(
        self, name: str, additions: tuple[_Addition, ...], view: TensorView
    ) -> TensorView:
        own = {each.name: getattr(view, each.name) for each in fields(TensorView)}
        signature = f"{name} {self.digest}"
        return AdaptedView(**own, source=self.source, additions=additions, signature=signature)


def adapt(
    component: str, source: TensorSource, adapters: Sequence[tuple[Adapter, Strength]]
) -> Adaptation | None:
    """Collect what adapters change of a component; ``None`` if that is nothing.

    Every one changes the component's own weights, and what they add is summed up: their order has
    no effect on more than the last bits.
    """
    additions: dict[str, tuple[_Addition, ...]] = {}
    described: list[Any] = [_FORMULAS]
    for adapter, strength in adapters:
        for change in adapter.changes:
            for place in change.site:
                number = find_strength(strength, f"{component}.{place.layer}")
                if place.component != component or number == 0:
                    continue
                described.append([adapter.digest, change.name, place.layer, number])
                for tensor in change.tensors:
                    name = f"{place.layer}.{tensor}"
                    addition = _Addition(change, place, tensor, number)
                    additions[name] = (*additions.get(name, ()), addition)
    if not additions:
        return None
    digest = hashlib.sha256(json.dumps(described).encode()).hexdigest()
    return Adaptation(source, additions, digest)
