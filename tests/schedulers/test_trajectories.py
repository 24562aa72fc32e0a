"""Whole trajectories equal those of diffusers, for every class and its main options."""

from itertools import product

import pytest
from reference_trajectory import compare

# The noise schedule of Stable Diffusion.
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PREDICTIONS = {
    "DDPMScheduler": ("epsilon", "v_prediction", "sample"),
    "DDIMScheduler": ("epsilon", "v_prediction", "sample"),
    "PNDMScheduler": ("epsilon", "v_prediction"),
    "EulerDiscreteScheduler": ("epsilon", "v_prediction", "sample"),
    "EulerAncestralDiscreteScheduler": ("epsilon", "v_prediction"),
    "HeunDiscreteScheduler": ("epsilon", "v_prediction", "sample"),
    "DPMSolverMultistepScheduler": ("epsilon", "v_prediction", "sample"),
    "LCMScheduler": ("epsilon", "v_prediction", "sample"),
}
SPACINGS = ("linspace", "leading", "trailing")
BASE = [
    (name, prediction, spacing)
    for name, predictions in PREDICTIONS.items()
    for prediction, spacing in product(predictions, SPACINGS)
]


@pytest.mark.parametrize("steps", [10, 20, 50])
@pytest.mark.parametrize(("name", "prediction", "spacing"), BASE)
def test_trajectory_equals_diffusers(name, prediction, spacing, steps):
    config = {"_class_name": name, "prediction_type": prediction, "timestep_spacing": spacing}
    compare({**SD, **config, "steps_offset": 1}, steps)


VARIATIONS = {
    "DDPMScheduler": [
        {"variance_type": "fixed_small_log"},
        {"variance_type": "fixed_large"},
        {"clip_sample": False},
        {"clip_sample_range": 0.5},
        {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "sigmoid"},
        {"beta_schedule": "laplace"},
        {"num_train_timesteps": 100, "trained_betas": [0.001 + 0.0002 * i for i in range(100)]},
    ],
    "DDIMScheduler": [
        {"clip_sample": False},
        {"clip_sample": False, "set_alpha_to_one": False},
        {"thresholding": True, "sample_max_value": 1.5},
        {
            "rescale_betas_zero_snr": True,
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
            "clip_sample": False,
        },
        {"rescale_betas_zero_snr": True, "timestep_spacing": "leading"},
    ],
    "PNDMScheduler": [
        {"skip_prk_steps": True},
        {"skip_prk_steps": True, "set_alpha_to_one": True},
        {"skip_prk_steps": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
        {"set_alpha_to_one": True, "timestep_spacing": "linspace"},
    ],
    "EulerDiscreteScheduler": [
        {"use_karras_sigmas": True},
        {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0},
        {"final_sigmas_type": "sigma_min"},
        {
            "rescale_betas_zero_snr": True,
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
        },
    ],
    "EulerAncestralDiscreteScheduler": [
        {
            "rescale_betas_zero_snr": True,
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
        },
    ],
    "HeunDiscreteScheduler": [
        {"use_karras_sigmas": True},
        {"clip_sample": True, "clip_sample_range": 2.0},
        {"beta_schedule": "exp"},
    ],
    "LCMScheduler": [
        {"original_inference_steps": 100, "timestep_scaling": 5.0},
        {"clip_sample": True, "clip_sample_range": 2.0},
        {"thresholding": True},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ],
}


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize(
    ("name", "options"), [(name, each) for name, many in VARIATIONS.items() for each in many]
)
def test_options_equal_diffusers(name, options, steps):
    compare({**SD, "_class_name": name, **options}, steps)


@pytest.mark.parametrize("variance_type", ["learned", "learned_range"])
def test_ddpm_learned_variance(variance_type):
    config = {**SD, "_class_name": "DDPMScheduler", "variance_type": variance_type}
    compare(config, 20, learned_variance=True)


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_ddim_eta(prediction, eta):
    config = {**SD, "_class_name": "DDIMScheduler", "prediction_type": prediction}
    compare(config, 20, eta=eta)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", PREDICTIONS)
def test_few_steps(name, steps):
    compare({**SD, "_class_name": name, "skip_prk_steps": True}, steps)


@pytest.mark.parametrize("steps", [4, 7])
def test_pndm_few_steps_with_runge_kutta(steps):
    compare({**SD, "_class_name": "PNDMScheduler"}, steps)
