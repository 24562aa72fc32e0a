"""What other tools call samplers is ours where it is the same sampler, and refused where not."""

import pytest

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.scheduler_names import (
    SAMPLERS,
    choose_scheduler,
    find_nearest_sampler,
    find_sampler,
)
from fastdeploy_diffusion.schedulers import SCHEDULERS


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("euler", "euler"),
        ("Euler", "euler"),
        ("k_euler", "euler"),
        ("Euler a", "euler-ancestral"),
        ("euler_a", "euler-ancestral"),
        ("k_euler_a", "euler-ancestral"),
        ("euler_ancestral", "euler-ancestral"),
        ("Heun", "heun"),
        ("DDIM", "ddim"),
        ("LCM", "lcm"),
        ("PLMS", "PLMS"),
        ("DPM++ 2M", "DPM++ 2M"),
        ("dpm++2m", "DPM++ 2M"),
        ("dpmpp_2m", "DPM++ 2M"),
        ("k_dpmpp_2m", "DPM++ 2M"),
        ("DPM++ 2M Karras", "DPM++ 2M Karras"),
        ("dpmpp_2m_karras", "DPM++ 2M Karras"),
        ("DPM++ 2M SDE Karras", "DPM++ 2M SDE Karras"),
        ("dpmpp_2m_sde", "DPM++ 2M SDE"),
        ("dpmpp_3m_sde", "DPM++ 3M SDE"),
        ("dpmpp_sde", "DPM++ SDE"),
        ("DPM++ SDE Karras", "DPM++ SDE Karras"),
        ("DPM++ 2M Exponential", "DPM++ 2M Exponential"),
        ("LMS", "lms"),
        ("k_lms", "lms"),
        ("LMS Karras", "LMS Karras"),
        ("unipc", "unipc"),
        ("uni_pc", "unipc"),
        ("uni_pc_bh2", "unipc"),
        ("DEIS", "deis"),
        ("TCD", "tcd"),
        ("dpm_2", "kdpm2"),
        ("k_dpm_2_a", "kdpm2-ancestral"),
        ("dpm_2_ancestral", "kdpm2-ancestral"),
        ("DPM2 a Karras", "DPM2 a Karras"),
        ("Euler Beta", "Euler Beta"),
        *((each.diffusers_name, name) for name, each in SCHEDULERS.items()),
    ],
)
def test_a_sampler_is_found_by_its_name_elsewhere(given, ours):
    assert find_sampler(given) == ours
    assert DiffusionConfig(model_path="m", scheduler=given).scheduler == ours


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("DPM fast", "dpm-solver"),
        ("DPM adaptive Karras", "dpm-solver"),
        ("DPM++ 2S a", "DPM++ 2S"),
        ("dpmpp_2s_ancestral", "DPM++ 2S"),
        ("Euler a Karras", "euler-ancestral"),
        ("ipndm", "lms"),
        ("Restart", "heun"),
    ],
)
def test_what_is_another_sampler_is_refused_and_the_nearest_named(given, nearest):
    assert find_sampler(given) is None
    found = find_nearest_sampler(given)
    assert found == nearest
    with pytest.raises(ConfigError) as caught:
        DiffusionConfig(model_path="m", scheduler=given)
    assert caught.value.problem == f"scheduler is {given!r}, which is not implemented"
    assert caught.value.fix == f"scheduler={found!r} is the nearest there is"


@pytest.mark.parametrize("given", ["", "eular", "FlowMatchEulerDiscreteScheduler", "turbo"])
def test_what_is_no_sampler_is_refused_without_a_nearest(given):
    assert find_sampler(given) is None
    assert find_nearest_sampler(given) is None
    with pytest.raises(ConfigError, match="scheduler is "):
        DiffusionConfig(model_path="m", scheduler=given)


def test_our_names_are_of_one_of_our_schedulers():
    assert {choose_scheduler(name).name for name in (*SCHEDULERS, *SAMPLERS)} == set(SCHEDULERS)
    # A name of ours leaves the checkpoint's options alone.
    assert [dict(choose_scheduler(name).options) for name in SCHEDULERS] == [{}] * len(SCHEDULERS)
