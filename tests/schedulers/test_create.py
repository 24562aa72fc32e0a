"""From a scheduler_config.json to a scheduler: what is read, switched, ignored and refused."""

import logging
import math

import diffusers
import numpy as np
import pytest
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from published_schedulers import SD15, SDXL
from reference_trajectory import compare, create_reference, missing_package

from fastdeploy_diffusion.errors import ConfigError, RequestError
from fastdeploy_diffusion.scheduler_names import SAMPLERS
from fastdeploy_diffusion.schedulers import SCHEDULERS, create_scheduler

# EDM's models are no others'.
SWITCHES = sorted({*SCHEDULERS} - {"edm-euler"})


@pytest.mark.parametrize("config", [SD15, SDXL], ids=["sd15", "sdxl"])
@pytest.mark.parametrize("name", [None, *SWITCHES])
def test_published_configs_and_every_switch_equal_diffusers(config, name):
    compare(config, 20, name=name)


def test_every_scheduler_starts_from_its_own_defaults_as_in_diffusers():
    for each in SCHEDULERS.values():
        if missing_package(each.diffusers_name):
            continue
        config = create_scheduler({"_class_name": each.diffusers_name}).config
        reference = create_reference({}, each.diffusers_name, 4).config
        own = {key: value for key, value in vars(config).items() if key in reference}
        own.pop("noise_sampler_seed", None)  # the reference is made for pictures with seeds
        if each.diffusers_name == "DPMSolverSinglestepScheduler":
            # Its last level is 0, and then it lowers the order, whatever the config says; diffusers
            # writes that into the config.
            assert own.pop("final_sigmas_type") == "zero"
            assert not own.pop("lower_order_final")
            assert reference["lower_order_final"]
        assert own == {key: reference[key] for key in own}
        missing = set(reference) - set(vars(config))
        assert all(key.startswith("_") for key in missing), missing


# By diffusers' own table of the WebUI's samplers (docs, "Schedulers"), but for "DPM++ SDE": there,
# its nearest; here, its own.
WEBUI = {
    "Euler": ("EulerDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "DEIS": ("DEISMultistepScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ 2M SDE Heun": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
    ),
    "DPM++ 3M SDE": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
    ),
    "DPM++ 2S": ("DPMSolverSinglestepScheduler", {}),
    "DPM++ SDE": ("DPMSolverSDEScheduler", {}),
    "PLMS": ("PNDMScheduler", {"skip_prk_steps": True}),
}
SPACINGS = {
    "Karras": "use_karras_sigmas",
    "Exponential": "use_exponential_sigmas",
    "Beta": "use_beta_sigmas",
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_of_the_webui_equals_diffusers(name):
    base, _, spacing = name.rpartition(" ")
    base, spacing = (base, spacing) if spacing in SPACINGS else (name, "")
    if spacing == "Beta":
        pytest.importorskip("scipy")
    class_name, options = WEBUI[base]
    # What the file says otherwise does not come through.
    contrary = {"use_karras_sigmas": spacing != "Karras", "skip_prk_steps": False}
    unspaced = dict.fromkeys(SPACINGS.values(), False)
    options = {**unspaced, **options, **({SPACINGS[spacing]: True} if spacing else {})}
    if base.startswith(("DPM++ 2", "DPM++ 3")):
        contrary |= {"algorithm_type": "dpmsolver", "solver_order": 1, "solver_type": "bh2"}
        standard = {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}
        options = {**standard, **options}
    compare({**SDXL, **contrary}, 10, name=name, reference=(class_name, options))


def test_every_sampler_is_one_of_these():
    bases = {name.removesuffix(f" {spacing}") for name in SAMPLERS for spacing in SPACINGS}
    assert {base for base in bases if base.split()[-1] not in SPACINGS} == WEBUI.keys()


def test_karras_ends_survive_a_switch():
    config = {**SDXL, "use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 9.0}
    compare(config, 10, name="heun")
    compare(config, 10, name="dpm-solver")


def test_options_of_other_algorithms_are_recorded():
    scheduler = create_scheduler(SD15)
    assert dict(scheduler.ignored_options) == {"clip_sample": False}


def test_a_lost_noise_schedule_is_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        create_scheduler({**SDXL, "rescale_betas_zero_snr": True}, "heun")
    assert "rescale_betas_zero_snr" in caplog.text


def test_defaults_recorded_by_diffusers_do_not_survive_a_switch():
    config = dict(diffusers.DDIMScheduler().config)
    assert config["timestep_spacing"] == "leading"
    assert create_scheduler(config, "euler").config.timestep_spacing == "linspace"


def test_known_names_cover_the_diffusers_family():
    ours = {each.diffusers_name for each in SCHEDULERS.values()}
    family = {each.name for each in KarrasDiffusionSchedulers}
    assert family <= ours


@pytest.mark.parametrize(
    ("config", "name", "words"),
    [
        ({**SDXL, "beta_strat": 1}, None, ["beta_strat=1", "beta_start"]),
        ({**SDXL, "_class_name": "EulerDiscrete"}, None, ["'EulerDiscrete'", "did you mean"]),
        ({**SDXL, "_class_name": "UniPCMultistep"}, None, ["did you mean 'UniPCMultistepSch"]),
        ({"_class_name": "EDMEulerScheduler"}, "euler", ["'EDMEulerScheduler'", "allowed: DDIM"]),
        (SDXL, "edm-euler", ["'edm-euler' cannot sample", "allowed: EDMEulerScheduler"]),
        ({"_class_name": "EDMEulerScheduler", "sigma_min": 99.0}, None, ["sigma_min=99.0"]),
        ({**SDXL, "_class_name": ["A", "B"]}, None, ["['A', 'B']", "DDIMScheduler"]),
        ({**SDXL, "_class_name": ["A", "B"]}, "euler", ["['A', 'B']", "DDIMScheduler"]),
        ({**SDXL, "_class_name": None}, None, ["_class_name", "DDIMScheduler"]),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "euler", ["FlowMatch", "allowed"]),
        (SDXL, "eular", ["'eular'", "did you mean 'euler'"]),
        (
            {**SDXL, "use_exponential_sigmas": True, "use_beta_sigmas": True},
            None,
            ["use_exponential_sigmas and use_beta_sigmas exclude each other"],
        ),
        (
            {**SDXL, "predict_x0": False},
            "unipc",
            ["predict_x0=False", "final_sigmas_type='sigma_min'"],
        ),
        ({**SDXL, "solver_p": "DDIMScheduler"}, "unipc", ["solver_p='DDIMScheduler'"]),
        ({**SDXL, "prediction_type": "sample"}, "kdpm2", ["'sample'", "'epsilon'"]),
        ({**SDXL, "noise_sampler_seed": -1}, "dpm-solver-sde", ["noise_sampler_seed=-1"]),
        (
            {**SDXL, "algorithm_type": "dpmsolver"},
            "dpm-solver-singlestep",
            ["final_sigmas_type='zero'"],
        ),
        ({**SDXL, "interpolation_type": "log_linear"}, None, ["'log_linear'", "'linear'"]),
        ({**SDXL, "timestep_type": "continuous"}, None, ["'continuous'", "'discrete'"]),
        ({**SDXL, "prediction_type": "flow_prediction"}, None, ["flow_prediction", "'epsilon'"]),
        ({**SDXL, "prediction_type": "sample"}, "pndm", ["'sample'", "'epsilon'"]),
        ({**SDXL, "prediction_type": "sample"}, "euler-ancestral", ["'sample'", "'epsilon'"]),
        ({**SDXL, "use_lu_lambdas": True}, "dpm-solver", ["use_lu_lambdas=True", "False"]),
        ({**SDXL, "use_flow_sigmas": True}, "dpm-solver", ["use_flow_sigmas=True", "False"]),
        ({**SDXL, "variance_type": "learned"}, "dpm-solver", ["'learned'", "'fixed_small'"]),
        ({**SDXL, "variance_type": "fixed_large_log"}, "ddpm", ["'fixed_large_log'"]),
        ({**SDXL, "num_train_timesteps": "1000"}, None, ["num_train_timesteps='1000'", "integer"]),
        ({**SDXL, "num_train_timesteps": 0}, None, ["num_train_timesteps=0", "greater than 0"]),
        ({**SDXL, "beta_schedule": "cosine"}, None, ["'cosine'", "'squaredcos_cap_v2'"]),
        ({**SDXL, "timestep_spacing": "even"}, None, ["'even'", "'trailing'"]),
        ({**SDXL, "trained_betas": [0.1, 0.2]}, None, ["2 values", "1000"]),
        (
            {**SDXL, "num_train_timesteps": 10**9},
            None,
            ["num_train_timesteps=1000000000", "100000"],
        ),
        ({**SDXL, "num_train_timesteps": True}, None, ["num_train_timesteps=True", "integer"]),
        ({**SDXL, "num_train_timesteps": 1000.0}, None, ["num_train_timesteps=1000.0", "integer"]),
        ({**SDXL, "num_train_timesteps": 20_000}, None, ["a share of 0 of the signal", "20000"]),
        ({**SDXL, "beta_start": 0.02}, None, ["beta_start=0.02 is larger than beta_end=0.012"]),
        ({**SDXL, "beta_start": -0.1}, None, ["beta_start=-0.1", "greater than 0"]),
        ({**SDXL, "beta_start": math.nan}, None, ["beta_start=nan", "finite"]),
        ({**SDXL, "beta_end": math.inf}, None, ["beta_end=inf", "finite"]),
        ({**SDXL, "beta_end": 10**400}, None, ["beta_end=a number of about 401 digits"]),
        ({**SDXL, "beta_end": "0.012"}, None, ["beta_end='0.012'", "number"]),
        ({**SDXL, "beta_end": 0.999}, None, ["a share of 0 of the signal", "beta_end"]),
        (
            {**SDXL, "beta_start": 1e-12, "beta_end": 1e-12},
            None,
            ["a share of 1 of the signal after 1000 training timesteps"],
        ),
        ({**SDXL, "beta_start": 1e-12}, "dpm-solver", ["and 1 after the first"]),
        ({**SDXL, "steps_offset": 1000}, None, ["steps_offset=1000", "0 to 999"]),
        ({**SDXL, "steps_offset": 10**400}, None, ["steps_offset=1000"]),
        ({**SDXL, "sample_max_value": -math.inf}, "dpm-solver", ["sample_max_value=-inf"]),
        ({**SDXL, "lambda_min_clipped": math.nan}, "dpm-solver", ["lambda_min_clipped=nan"]),
        (
            {**SDXL, "clip_sample_range": 10**400},
            "ddim",
            ["clip_sample_range=a number of about 401 digits"],
        ),
        ({**SDXL, "timestep_scaling": 1e300}, "lcm", ["timestep_scaling=1e+300", "1000000"]),
        ({**SDXL, "_use_default_values": 5}, None, ["_use_default_values=5", "a list"]),
        (
            {**SDXL, "num_train_timesteps": 1, "rescale_betas_zero_snr": True, "steps_offset": 0},
            None,
            ["rescale_betas_zero_snr=True with num_train_timesteps=1"],
        ),
        ({**SDXL, "sigma_min": 0.0}, None, ["sigma_min=0.0", "greater than"]),
        ({**SDXL, "sigma_max": 1e30}, None, ["sigma_max=1e+30", "less than"]),
        ({**SDXL, "sigma_min": 9.0, "sigma_max": 0.1}, None, ["sigma_min=9.0", "sigma_max=0.1"]),
        ({**SDXL, "original_inference_steps": 1001}, "lcm", ["1001", "1000"]),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(config, name, words):
    with pytest.raises(ConfigError) as caught:
        create_scheduler(config, name)
    for word in words:
        assert word in str(caught.value)


def test_no_clipping_of_the_log_snr_is_read_as_diffusers_writes_it():
    config = {**SDXL, "lambda_min_clipped": -math.inf}
    assert create_scheduler(config, "dpm-solver").config.lambda_min_clipped == -math.inf


@pytest.mark.parametrize("name", ["euler", "heun", "dpm-solver"])
def test_a_karras_end_beyond_the_other_one(name):
    scheduler = create_scheduler({**SDXL, "use_karras_sigmas": True, "sigma_min": 99.0}, name)
    with pytest.raises(ConfigError, match="the smallest noise level, 99, is above the largest"):
        scheduler.set_timesteps(4)


def test_eta_belongs_to_ddim_and_tcd():
    with pytest.raises(RequestError, match=r"eta=0\.5"):
        create_scheduler(SDXL, eta=0.5)
    for name in ("ddim", "tcd"):
        with pytest.raises(RequestError, match=r"eta=1\.5"):
            create_scheduler(SDXL, name, eta=1.5)


def test_config_is_frozen():
    with pytest.raises(AttributeError):
        create_scheduler(SDXL).config.steps_offset = 0
    assert np.all(np.diff(create_scheduler(SD15).alphas_cumprod) < 0)
