"""Whole trajectories equal those of diffusers, for every class and its main options.

Each class goes with each option and each length. Lengths are dealt to options in turn, so that any
two values meet, and not any three.
"""

import pytest
from reference_trajectory import LARGEST_ERROR_OF_MKL, compare

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
    "TCDScheduler": ("epsilon", "v_prediction", "sample"),
    "LMSDiscreteScheduler": ("epsilon", "v_prediction", "sample"),
    "KDPM2DiscreteScheduler": ("epsilon", "v_prediction"),
    "KDPM2AncestralDiscreteScheduler": ("epsilon", "v_prediction"),
    "DPMSolverSDEScheduler": ("epsilon", "v_prediction"),
    "DPMSolverSinglestepScheduler": ("epsilon", "v_prediction", "sample"),
    "DEISMultistepScheduler": ("epsilon", "v_prediction", "sample"),
    "UniPCMultistepScheduler": ("epsilon", "v_prediction", "sample"),
}
SPACINGS = ("linspace", "leading", "trailing")
LENGTHS = (50, 20, 10)
BASE = [
    (name, prediction, spacing, LENGTHS[(row + column) % 3])
    for name, predictions in PREDICTIONS.items()
    for row, prediction in enumerate(predictions)
    for column, spacing in enumerate(SPACINGS)
]


@pytest.mark.parametrize(("name", "prediction", "spacing", "steps"), BASE)
def test_trajectory_equals_diffusers(name, prediction, spacing, steps):
    config = {"_class_name": name, "prediction_type": prediction, "timestep_spacing": spacing}
    compare({**SD, **config, "steps_offset": 1}, steps)


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("options", [*({"timestep_spacing": each} for each in SPACINGS), {}])
def test_noise_of_sde_moves_little_with_the_last_bits_of_torch(options, steps):
    spaced = options or {"use_karras_sigmas": True}
    config = {**SD, "_class_name": "DPMSolverSDEScheduler", "steps_offset": 1, **spaced}
    compare(config, steps, largest_error=LARGEST_ERROR_OF_MKL)


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_sde_equals_diffusers_at_every_length(spacing, steps):
    config = {"_class_name": "DPMSolverSDEScheduler", "timestep_spacing": spacing}
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
    "TCDScheduler": [
        {"original_inference_steps": 100},
        {"thresholding": True, "clip_sample": True},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ],
    "LMSDiscreteScheduler": [{"beta_schedule": "squaredcos_cap_v2"}],
    "KDPM2DiscreteScheduler": [{"beta_schedule": "squaredcos_cap_v2"}],
    "DPMSolverSDEScheduler": [{"beta_schedule": "squaredcos_cap_v2"}],
    "DEISMultistepScheduler": [
        *({"solver_order": order} for order in (1, 3)),
        *({"solver_order": order, "lower_order_final": False} for order in (2, 3)),
        {"thresholding": True, "sample_max_value": 1.5},
        {"algorithm_type": "dpmsolver++", "solver_type": "midpoint"},
    ],
    "UniPCMultistepScheduler": [
        *({"solver_order": order} for order in (1, 3, 4)),
        *(
            # To no noise, diffusers' bh1 gives NaN.
            {"solver_order": order, "solver_type": "bh1", "final_sigmas_type": "sigma_min"}
            for order in (1, 2, 3)
        ),
        *(
            {"solver_order": order, "predict_x0": False, "final_sigmas_type": "sigma_min"}
            for order in (1, 2, 3)
        ),
        {"lower_order_final": False, "solver_order": 3, "final_sigmas_type": "sigma_min"},
        {"disable_corrector": [0, 1, 5]},
        {"thresholding": True, "sample_max_value": 1.5},
        {"solver_type": "midpoint"},
        {
            "rescale_betas_zero_snr": True,
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
        },
    ],
    "DPMSolverSinglestepScheduler": [
        *(
            {"algorithm_type": algorithm, "solver_order": order, "solver_type": kind}
            for algorithm in ("dpmsolver++", "sde-dpmsolver++")
            for order in (1, 2, 3)
            for kind in ("midpoint", "heun")
        ),
        *(
            {
                "algorithm_type": "dpmsolver",
                "solver_order": order,
                "solver_type": kind,
                "final_sigmas_type": "sigma_min",
            }
            for order in (1, 2, 3)
            for kind in ("midpoint", "heun")
        ),
        {"lower_order_final": True, "solver_order": 3, "final_sigmas_type": "sigma_min"},
        {"lambda_min_clipped": -1.5},
        {"thresholding": True, "sample_max_value": 1.5},
        {"algorithm_type": "deis", "solver_type": "logrho", "final_sigmas_type": "sigma_min"},
    ],
}


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        (name, each, (10, 50)[index % 2])
        for name, many in VARIATIONS.items()
        for index, each in enumerate(many)
    ],
)
def test_options_equal_diffusers(name, options, steps):
    compare({**SD, "_class_name": name, **options}, steps)


@pytest.mark.parametrize("variance_type", ["learned", "learned_range"])
def test_ddpm_learned_variance(variance_type):
    config = {**SD, "_class_name": "DDPMScheduler", "variance_type": variance_type}
    compare(config, 20, learned_variance=True)


SPACINGS_OF_LEVELS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
SPACED = (
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
)


@pytest.mark.parametrize(
    ("name", "spacing", "steps"),
    [
        (name, spacing, LENGTHS[(row + column) % 3])
        for row, name in enumerate(SPACED)
        for column, spacing in enumerate(SPACINGS_OF_LEVELS)
    ],
)
def test_spaced_levels_equal_diffusers(name, spacing, steps):
    if spacing == "use_beta_sigmas":
        pytest.importorskip("scipy")
    compare({**SD, "_class_name": name, spacing: True}, steps)


@pytest.mark.parametrize("spacing", SPACINGS_OF_LEVELS)
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_ends_of_spaced_levels_equal_diffusers(name, spacing):
    if spacing == "use_beta_sigmas":
        pytest.importorskip("scipy")
    compare({**SD, "_class_name": name, spacing: True, "sigma_min": 0.05, "sigma_max": 10.0}, 20)


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_ddim_eta(prediction, eta):
    config = {**SD, "_class_name": "DDIMScheduler", "prediction_type": prediction}
    compare(config, 20, eta=eta)


@pytest.mark.parametrize("eta", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_tcd_eta(prediction, eta):
    config = {**SD, "_class_name": "TCDScheduler", "prediction_type": prediction}
    for steps in (4, 20):
        compare(config, steps, eta=eta)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", PREDICTIONS)
def test_few_steps(name, steps):
    if name == "KDPM2AncestralDiscreteScheduler" and 1 < steps < 5:
        pytest.skip("nothing is left in float32 of what diffusers subtracts in such long steps")
    compare({**SD, "_class_name": name, "skip_prk_steps": True}, steps)


@pytest.mark.parametrize("steps", [4, 7])
def test_pndm_few_steps_with_runge_kutta(steps):
    compare({**SD, "_class_name": "PNDMScheduler"}, steps)


EDM_OPTIONS = (
    {},
    {"sigma_schedule": "exponential"},
    {"sigma_min": 0.01, "sigma_max": 20.0, "sigma_data": 0.7, "rho": 5.0},
    {"final_sigmas_type": "sigma_min"},
)


@pytest.mark.parametrize(
    ("options", "prediction", "steps"),
    [
        (options, prediction, (1, 10, 20, 50)[(row + column) % 4])
        for row, options in enumerate(EDM_OPTIONS)
        for column, prediction in enumerate(("epsilon", "v_prediction"))
    ],
)
def test_edm_equals_diffusers(options, prediction, steps):
    config = {"_class_name": "EDMEulerScheduler", "prediction_type": prediction, **options}
    compare(config, steps)
