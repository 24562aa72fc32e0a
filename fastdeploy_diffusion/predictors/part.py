"""The demand of one request on one component of a pipeline."""

from collections.abc import Mapping
from typing import NamedTuple

from fastdeploy_diffusion.predictors.component import Component
from fastdeploy_diffusion.runtime.program import Signature


class Part(NamedTuple):
    """A component, and the signature and sizes that a plan needs of it.

    The sizes are those of free dimensions, by name.
    """

    component: Component
    signature: Signature
    sizes: Mapping[str, int]
