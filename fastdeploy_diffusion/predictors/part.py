"""What one component of a pipeline is asked for by one request."""

from collections.abc import Mapping
from typing import NamedTuple

from fastdeploy_diffusion.predictors.component import Component
from fastdeploy_diffusion.runtime.program import Signature


class Part(NamedTuple):
    """A component, the signature that a plan asks for, and the sizes of that plan.

    The sizes are those of free dimensions, by name.
    """

    component: Component
    signature: Signature
    sizes: Mapping[str, int]
