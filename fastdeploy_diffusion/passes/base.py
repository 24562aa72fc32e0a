"""The contract of a layer pass: find, refuse with a reason, rewrite, and count."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastdeploy_diffusion.errors import PassError
from fastdeploy_diffusion.out_of_memory import tells_of_memory
from fastdeploy_diffusion.passes.contract import Pass, require_promise
from fastdeploy_diffusion.passes.derivation_checks import check_derivations
from fastdeploy_diffusion.runtime.pass_result import PassResult
from fastdeploy_diffusion.runtime.recipe import Derivation, MadeOf, register_op, replace_names

if TYPE_CHECKING:
    import paddle

__all__ = ["Derivation", "LayerPass", "MadeOf", "apply_passes", "register_op"]


class LayerPass(Pass):
    """A rewrite of Paddle layers, made before the export so that every engine gains.

    It works on a layer without values, and gives a derivation for each new weight.
    """

    @abstractmethod
    def match(self, layer: paddle.nn.Layer) -> bool:
        """Tell whether a sublayer is of the kind that this pass rewrites."""

    @abstractmethod
    def check(self, layer: paddle.nn.Layer) -> str:
        """Return why a matching sublayer cannot be rewritten; empty if it can."""

    def count_places(self, layer: paddle.nn.Layer) -> int:
        """Count the places that ``rewrite`` changes in a sublayer; one by default."""
        return 1

    @abstractmethod
    def rewrite(self, layer: paddle.nn.Layer) -> Mapping[str, MadeOf]:
        """Rewrite a sublayer in place.

        Returns:
            The derivations of its new weights from the original's, by names within the sublayer.
        """

    def apply(self, network: paddle.nn.Layer) -> tuple[PassResult, dict[str, MadeOf]]:
        """Rewrite a whole network in place.

        Args:
            network: Made without values, in eval mode; nothing else may hold its parts.

        Returns:
            The counts, and every new weight by its name in the network.
        """
        expected = self.expect(network)
        derivations: dict[str, MadeOf] = {}
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
                derivations[prefix + name] = replace_names(each, prefix.__add__)
        return PassResult(self.name, count, expected, skipped), derivations


def apply_passes(
    passes: Sequence[LayerPass], network: paddle.nn.Layer, *, strict: bool
) -> tuple[list[PassResult], dict[str, MadeOf]]:
    """Apply passes one after the other.

    Returns:
        A result for each pass, and every new weight by its name in the network.

    Raises:
        PassError: A pass failed, or lacks a derivation of a new weight; in strict mode, it rewrote
            another number of places than the config promises.
        Exception: Memory ran out; as the runtime raises it, for no pass is to blame.
    """
    from fastdeploy_diffusion.paddle_runtime import eager_mode

    results: list[PassResult] = []
    derivations: dict[str, MadeOf] = {}
    originals = frozenset(network.state_dict())
    for each in passes:
        try:
            with eager_mode():
                result, derived = each.apply(network)
        except Exception as error:
            if tells_of_memory(error):
                raise  # not the pass's doing
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


def _rebase(made_of: MadeOf, earlier: Mapping[str, MadeOf]) -> MadeOf:
    """Express a derivation in tensors of the checkpoint, through those of earlier passes."""
    return replace_names(made_of, lambda name: earlier.get(name, name))


def _parts(network: Any) -> Iterator[tuple[str, Any]]:
    yield from network.named_sublayers(include_self=True)
