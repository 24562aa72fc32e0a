"""Stacks linear layers of the same tokens as one: the outputs of the first come first.

One matrix product of their widths together; the numbers are the same, for every output is the same
sum.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from paddle import LazyGuard, nn

from fastdeploy_diffusion.passes.base import Derivation, MadeOf


def check_biases(layer: nn.Layer, names: Sequence[str]) -> str:
    """Return why linear layers cannot be stacked, if so: all must have a bias, or none."""
    biased = [attrgetter(name)(layer).bias is not None for name in names]
    return "" if all(biased) or not any(biased) else "some projections have a bias, others not"


def stack_linears(layer: Any, names: Sequence[str], merged: str) -> dict[str, MadeOf]:
    """Replace several linear layers by one.

    Args:
        names: Of the linear layers, within ``layer``, in the order of their outputs.

    Returns:
        The derivations of its weights.
    """
    linears = [attrgetter(name)(layer) for name in names]
    has_bias = linears[0].bias is not None
    with LazyGuard():
        stacked = nn.Linear(
            linears[0].weight.shape[0],
            sum(linear.weight.shape[1] for linear in linears),
            bias_attr=None if has_bias else False,
        )
    stacked.eval()
    for name in names:
        owner, _, own_name = name.rpartition(".")
        delattr(attrgetter(owner)(layer) if owner else layer, own_name)
    setattr(layer, merged, stacked)
    return {
        f"{merged}.{kind}": Derivation(tuple(f"{name}.{kind}" for name in names), "concatenate")
        for kind in (("weight", "bias") if has_bias else ("weight",))
    }
