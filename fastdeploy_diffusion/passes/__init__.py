"""Rewrites of a network, each with an expected number of matches and a numeric proof.

Passes of other distributions import their contracts from here.
"""

if __name__ != "fastdeploy_diffusion.passes":
    raise ImportError(
        f"{__name__!r} is only a link to a folder of the package: "
        "import fastdeploy_diffusion.passes instead"
    )

# Before any module of this room imports Paddle, so that the import is quiet.
import fastdeploy_diffusion.paddle_runtime  # noqa: F401
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
