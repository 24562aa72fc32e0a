"""Whether every weight of a rewritten network can be read from the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

from fastdeploy_diffusion.errors import PassError
from fastdeploy_diffusion.runtime.recipe import MadeOf, find_fault, list_names

if TYPE_CHECKING:
    import paddle


def check_derivations(
    what: str,
    network: paddle.nn.Layer,
    derived: Mapping[str, MadeOf],
    originals: Set[str],
    earlier: Set[str],
) -> None:
    """Refuse weights of unknown origin.

    Args:
        what: The pass that was applied, for the message.

    Raises:
        PassError: A new weight has no derivation, or one from what the checkpoint does not hold.
    """
    weights = network.state_dict().keys()
    problems = [
        *(
            f"has no derivation for {name}"
            for name in weights - originals - earlier - derived.keys()
        ),
        *(f"makes a weight {name}, which the network lacks" for name in derived.keys() - weights),
        *(
            f"makes {name} of {source}, which is no weight of the checkpoint"
            for name, made_of in derived.items()
            for source in list_names(made_of)
            if source not in originals | earlier
        ),
        *(
            f"has an invalid derivation for {name}: {fault}"
            for name, made_of in derived.items()
            if (fault := find_fault(made_of))
        ),
    ]
    if problems:
        raise PassError(
            f"the pass {what} {min(problems)}",
            allowed="for each new weight one of the network as it was, or a Derivation from such",
            fix="leave the pass out, and report this",
        )
