"""The contract of a layer pass: find, refuse with a reason, rewrite, and count."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.errors import PassError
from fastdeploy_diffusion.passes.contract import Pass, PassResult, require_promise
from fastdeploy_diffusion.passes.derivation_checks import check_derivations

if TYPE_CHECKING:
    import paddle

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Derivation:
    """How a rewritten layer's weight comes from weights of the original.

    Args:
        sources: Names of the original's weights.
        combine: Makes the new one of them, all float32 in PyTorch's layout.
    """

    sources: tuple[str, ...]
    combine: Callable[..., FloatArray]

    def read(self, read: Callable[[str], FloatArray]) -> FloatArray:
        """Make the weight, given what reads the original's."""
        return self.combine(*(read(name) for name in self.sources))


class LayerPass(Pass):
    """A rewrite of Paddle layers, made before the export so that every engine gains.

    It works on a layer without values, and says of each new weight what it is made of.
    """

    @abstractmethod
    def match(self, layer: paddle.nn.Layer) -> bool:
        """Tell whether a sublayer is of the kind that this pass rewrites."""

    @abstractmethod
    def check(self, layer: paddle.nn.Layer) -> str:
        """Say why a matching sublayer cannot be rewritten; nothing if it can."""

    def count_places(self, layer: paddle.nn.Layer) -> int:
        """Count the places that ``rewrite`` changes in a sublayer; one by default."""
        return 1

    @abstractmethod
    def rewrite(self, layer: paddle.nn.Layer) -> Mapping[str, Derivation]:
        """Rewrite a sublayer in place.

        Returns:
            Its new weights, and their sources, by names within the sublayer.
        """

    def apply(self, network: paddle.nn.Layer) -> tuple[PassResult, dict[str, Derivation]]:
        """Rewrite a whole network in place.

        Args:
            network: Made without values, in eval mode; nothing else may hold its parts.

        Returns:
            The counts, and every new weight by its name in the network.
        """
        expected = self.expect(network)
        derivations: dict[str, Derivation] = {}
        skipped: dict[str, str] = {}
        count = 0
        for path, part in list(_parts(network)):
            if not self.match(part):
                continue
            if reason := self.check(part):
                skipped[path] = reason
                continue
            count += self.count_places(part)
            prefix = f"{path}." if path else ""
            for name, each in self.rewrite(part).items():
                sources = tuple(prefix + source for source in each.sources)
                derivations[prefix + name] = Derivation(sources, each.combine)
        return PassResult(self.name, count, expected, skipped), derivations


def apply_passes(
    passes: Sequence[LayerPass], network: paddle.nn.Layer, *, strict: bool
) -> tuple[list[PassResult], dict[str, Derivation]]:
    """Apply passes one after the other.

    Args:
        passes: In order.
        network: As for `LayerPass.apply`.
        strict: Whether a count other than the expected one is an error.

    Returns:
        A result for each pass, and every new weight by its name in the network.

    Raises:
        PassError: A pass failed, or says too little of its new weights; in strict mode, it rewrote
            another number of places than the config promises.
        MemoryError: As it comes: no pass is to blame.
    """
    from fastdeploy_diffusion.paddle_runtime import eager_mode

    results: list[PassResult] = []
    derivations: dict[str, Derivation] = {}
    originals = frozenset(network.state_dict())
    for each in passes:
        try:
            with eager_mode():
                result, derived = each.apply(network)
        except MemoryError:
            raise  # not the pass's doing
        except Exception as error:
            raise PassError(
                f"the pass {each} failed on {type(network).__name__}: "
                f"{type(error).__name__}: {error}",
                fix="leave the pass out, and report this",
            ) from error
        check_derivations(str(each), network, derived, originals, derivations.keys())
        results.append(result)
        derivations |= {name: _rebase(given, derivations) for name, given in derived.items()}
        if strict:
            require_promise(each, result, type(network).__name__)
    network.eval()  # new parts begin in training mode
    return results, derivations


def _rebase(derivation: Derivation, earlier: Mapping[str, Derivation]) -> Derivation:
    """Say what a weight is made of in terms of the checkpoint, where earlier passes had a hand."""
    if not any(source in earlier for source in derivation.sources):
        return derivation
    parts = [
        earlier.get(source) or Derivation((source,), lambda weight: weight)
        for source in derivation.sources
    ]

    def combine(*weights: FloatArray) -> FloatArray:
        left = iter(weights)
        return derivation.combine(
            *(part.combine(*islice(left, len(part.sources))) for part in parts)
        )

    return Derivation(tuple(name for part in parts for name in part.sources), combine)


def _parts(network: Any) -> Iterator[tuple[str, Any]]:
    yield from network.named_sublayers(include_self=True)
