"""Precisions are data: one table that configurations, engines, proofs and estimates read."""

import numpy as np
import pytest

from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.registry import ENGINES


@pytest.mark.parametrize("name", PRECISIONS)
def test_what_is_safer_is_known(name):
    precision = PRECISIONS[name]
    assert precision.name == name
    for safer in precision.safer:
        assert safer != name
        assert safer in PRECISIONS
    assert not precision.safer or precision.safer[-1] == "fp32"


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_sizes_are_those_of_the_types(name):
    precision = PRECISIONS[name]
    assert precision.weight_bytes == np.dtype(precision.weights).itemsize
    assert precision.activation_bytes == np.dtype(precision.activations).itemsize


@pytest.mark.parametrize("name", ENGINES)
def test_engines_compute_in_precisions_that_there_are(name):
    engine = create_engine(name)
    assert engine.devices
    for device, precisions in engine.precisions.items():
        assert device in ("cpu", "gpu", "xpu")
        assert set(precisions) <= set(PRECISIONS)
        assert "fp32" in precisions
