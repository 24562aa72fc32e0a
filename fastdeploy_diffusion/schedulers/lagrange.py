"""Polynomials through the last outputs, which multistep solvers integrate."""

from collections.abc import Sequence

from numpy.polynomial import Polynomial


def lagrange_basis(nodes: Sequence[float]) -> list[Polynomial]:
    """Make for each node the polynomial that is 1 there and 0 at the others."""
    basis = []
    for index, node in enumerate(nodes):
        others = [*nodes[:index], *nodes[index + 1 :]]
        through = Polynomial.fromroots(others) if others else Polynomial([1.0])
        basis.append(through / through(node))
    return basis
