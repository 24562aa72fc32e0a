"""The noise schedule equals the one that torch computes."""

import diffusers
import numpy as np
import pytest

from fastdeploy_diffusion.schedulers import create_scheduler

CURVES = ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"]


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("count", [1000, 10])
def test_cumulated_alphas_equal_torch(curve, rescaled, count):
    config = {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": count,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": curve,
        "rescale_betas_zero_snr": rescaled,
    }
    ours = create_scheduler(config).alphas_cumprod
    theirs = diffusers.DDPMScheduler.from_config(config).alphas_cumprod.numpy()
    assert ours.dtype == np.float32
    # One unit in the last place; rescaling amplifies torch's rounding of the square root, which
    # depends on the processor: 2e-5 was measured of 10 timesteps, which differ little.
    np.testing.assert_allclose(ours, theirs, rtol=5e-5 if rescaled else 1.2e-7)
    if rescaled:
        assert ours[-1] == 0
