"""Whether every weight of a rewritten network can be read from the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

from fastdeploy_diffusion.errors import PassError

if TYPE_CHECKING:
    import paddle

    from fastdeploy_diffusion.passes.base import Derivation


def check_derivations(
    what: str,
    network: paddle.nn.Layer,
    derived: Mapping[str, Derivation],
    originals: Set[str],
    earlier: Set[str],
) -> None:
    """Refuse weights of unknown origin.

    Args:
        what: The pass that was applied, for the message.
        network: What it made.
        derived: What it says of its new weights.
        originals: The weights of the checkpoint.
        earlier: The weights that earlier passes have made.

    Raises:
        PassError: A new weight has no derivation, or one from what the checkpoint does not hold.
    """
    weights = network.state_dict().keys()
    problems = [
        *(
            f"does not say what {name} is made of"
            for name in weights - originals - earlier - derived.keys()
        ),
        *(f"makes a weight {name}, which the network lacks" for name in derived.keys() - weights),
        *(
            f"makes {name} of {source}, which is no weight of the checkpoint"
            for name, derivation in derived.items()
            for source in derivation.sources
            if source not in originals | earlier
        ),
    ]
    if problems:
        raise PassError(
            f"the pass {what} {min(problems)}",
            allowed="a Derivation for each new weight, from weights of the network as it was",
            fix="leave the pass out, and report this",
        )
