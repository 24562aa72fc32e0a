"""Every variant of DPM-Solver walks the same trajectory as in diffusers."""

import numpy as np
import pytest
from reference_trajectory import compare, walk

from fastdeploy_diffusion.errors import ConfigError, RequestError
from fastdeploy_diffusion.schedulers import create_scheduler

SD = {
    "_class_name": "DPMSolverMultistepScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


@pytest.mark.parametrize(("karras", "steps"), [(False, 20), (True, 10)])
@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
def test_variants(algorithm, order, solver_type, karras, steps):
    options = {
        "algorithm_type": algorithm,
        "solver_order": order,
        "solver_type": solver_type,
        "use_karras_sigmas": karras,
    }
    compare({**SD, **options}, steps)


@pytest.mark.parametrize(
    ("prediction", "steps"), [("epsilon", 10), ("v_prediction", 20), ("sample", 10)]
)
@pytest.mark.parametrize(
    ("algorithm", "order", "solver_type"),
    [
        ("dpmsolver", 1, "midpoint"),
        ("dpmsolver", 2, "midpoint"),
        ("dpmsolver", 2, "heun"),
        ("dpmsolver", 3, "midpoint"),
        ("sde-dpmsolver", 1, "midpoint"),
        ("sde-dpmsolver", 2, "midpoint"),
        ("sde-dpmsolver", 2, "heun"),
    ],
)
def test_noise_prediction_variants(algorithm, order, solver_type, prediction, steps):
    options = {
        "algorithm_type": algorithm,
        "solver_order": order,
        "solver_type": solver_type,
        "prediction_type": prediction,
        "final_sigmas_type": "sigma_min",
    }
    compare({**SD, **options}, steps)


@pytest.mark.parametrize(
    "options",
    [
        {"lower_order_final": False},
        {"lower_order_final": False, "solver_order": 3, "final_sigmas_type": "sigma_min"},
        {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True},
        {"thresholding": True, "sample_max_value": 1.5},
        {"thresholding": True, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
        {"lambda_min_clipped": -1.5},
        {"lambda_min_clipped": -1.5, "timestep_spacing": "leading"},
        {"lambda_min_clipped": -1.5, "timestep_spacing": "trailing"},
        {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0},
        {
            "use_karras_sigmas": True,
            "rescale_betas_zero_snr": True,
            "prediction_type": "v_prediction",
        },
        {
            "rescale_betas_zero_snr": True,
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
        },
    ],
)
def test_options(options):
    compare({**SD, **options}, 20)


def test_options_of_other_multistep_solvers_are_translated():
    config = {
        **SD,
        "_class_name": "DEISMultistepScheduler",
        "algorithm_type": "deis",
        "solver_type": "logrho",
        # diffusers refuses "zero" here, because it checks before it translates.
        "final_sigmas_type": "sigma_min",
    }
    compare(config, 20, name="dpm-solver")


def test_zero_final_sigma_needs_a_plus_plus_algorithm():
    with pytest.raises(ConfigError, match="final_sigmas_type='zero'"):
        create_scheduler({**SD, "algorithm_type": "dpmsolver"})


def test_third_order_does_not_exist_for_sde_dpmsolver():
    options = {
        "algorithm_type": "sde-dpmsolver",
        "solver_order": 3,
        "final_sigmas_type": "sigma_min",
    }
    with pytest.raises(ConfigError, match="solver_order=3"):
        create_scheduler({**SD, **options})


@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++", "sde-dpmsolver"])
@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
def test_karras_levels_that_end_at_the_final_one(algorithm, solver_type):
    """A step of no length: diffusers divides by zero there in the "heun" and SDE forms."""
    options = {"algorithm_type": algorithm, "solver_type": solver_type, "use_karras_sigmas": True}
    scheduler = create_scheduler({**SD, **options, "final_sigmas_type": "sigma_min"})
    for steps in (10, 20, 37, 50):
        latents = walk(scheduler, steps).latents
        assert np.isfinite(latents).all()
        np.testing.assert_array_equal(latents[-1], latents[-2])


def test_sigma_min_below_the_final_noise_level_is_refused():
    options = {"use_karras_sigmas": True, "sigma_min": 0.001, "final_sigmas_type": "sigma_min"}
    with pytest.raises(ConfigError, match=r"sigma_min=0\.001"):
        create_scheduler({**SD, **options}).set_timesteps(10)


def test_steps_that_repeat_a_noise_level_are_refused():
    scheduler = create_scheduler(SD)
    with pytest.raises(RequestError, match="num_inference_steps=1000"):
        scheduler.set_timesteps(1000)


def test_karras_timesteps_rounded_to_the_same_first_one():
    """Close noise levels share a rounded timestep; the first of them is the start."""
    config = {
        **SD,
        "use_karras_sigmas": True,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "v_prediction",
    }
    scheduler = create_scheduler(config)
    scheduler.set_timesteps(20)
    assert scheduler.timesteps[0] == scheduler.timesteps[1]
    compare(config, 20)
