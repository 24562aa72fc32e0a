"""Rewrites of a network, each with an expected number of matches and a numeric proof.

Passes of other distributions import their contracts from here.
"""

from typing import TYPE_CHECKING

if __name__ != "fastdeploy_diffusion.passes":
    raise ImportError(
        f"{__name__!r} is only a link to a folder of the package: "
        "import fastdeploy_diffusion.passes instead"
    )

if TYPE_CHECKING:
    from fastdeploy_diffusion.families.networks.census import Convolution, Site
    from fastdeploy_diffusion.passes.base import Derivation, LayerPass, MadeOf, register_op
    from fastdeploy_diffusion.passes.graph_pass import GraphPass, GraphRule

__all__ = [
    "Convolution",
    "Derivation",
    "GraphPass",
    "GraphRule",
    "LayerPass",
    "MadeOf",
    "Site",
    "register_op",
]


def __getattr__(name: str) -> object:
    """Import a contract when it is first used, so that kept builds load without Paddle."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Before a pass imports Paddle, so that the import is quiet.
    import fastdeploy_diffusion.paddle_runtime  # noqa: F401
    from fastdeploy_diffusion.passes import base, contract, graph_pass

    value = next(vars(each)[name] for each in (base, graph_pass, contract) if name in vars(each))
    globals()[name] = value
    return value
