"""Values that no picture has are refused, with the settings that are likely to blame."""

from dataclasses import replace

import numpy as np
import pytest

from fastdeploy_diffusion.config import RequestDefaults
from fastdeploy_diffusion.errors import NonFiniteError
from fastdeploy_diffusion.families.flux import FLUX
from fastdeploy_diffusion.families.sd import SD1
from fastdeploy_diffusion.requests.flux_request import FluxRequest, plan_flux
from fastdeploy_diffusion.requests.latent_check import check_latents, check_returned
from fastdeploy_diffusion.requests.model_limits import ModelLimits
from fastdeploy_diffusion.requests.plan import plan_generation
from fastdeploy_diffusion.requests.request import GenerationRequest
from fastdeploy_diffusion.runtime.value_range import LARGEST_VALUE, is_in_range

SHAPE = (1, 4, 2, 2)
LATENTS = np.zeros(SHAPE, np.float32)


def plan(**settings):
    request = GenerationRequest(prompt="a cat", height=16, width=16, **settings)
    return plan_generation(request, RequestDefaults(), ModelLimits(16, 16, 8, 4, SD1.defaults))


def spoil(value):
    latents = LATENTS.copy()
    latents[0, 1, 1, 0] = value
    return latents


@pytest.mark.parametrize("value", [0, 25_000, -25_000, LARGEST_VALUE, -LARGEST_VALUE])
def test_what_a_schedule_may_begin_with_is_fine(value):
    assert is_in_range(spoil(value))
    check_latents(spoil(value), plan(), 1, 20)
    check_returned("latents", spoil(value))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.nan, "NaN or infinity"),
        (np.inf, "NaN or infinity"),
        (-np.inf, "NaN or infinity"),
        (1.1e6, r"values of up to 1\.1e\+06"),
        (-3e30, r"values of up to 3\.0e\+30"),
    ],
)
def test_what_no_picture_has_is_refused(value, found):
    assert not is_in_range(spoil(value))
    with pytest.raises(NonFiniteError, match=f"^the latents hold {found} after 3 of 20 steps\n"):
        check_latents(spoil(value), plan(), 3, 20)
    with pytest.raises(NonFiniteError, match=f"returned 'prompt_embeds' with {found}\n"):
        check_returned("prompt_embeds", spoil(value))


def test_whole_numbers_and_truth_values_are_numbers():
    assert is_in_range(np.array([0, 49407]))
    assert is_in_range(np.array([True, False]))
    assert not is_in_range(np.array([10**7]))


@pytest.mark.parametrize(
    ("settings", "fixes"),
    [
        ({}, "use another scheduler or more steps"),
        ({"guidance_scale": 20}, "use another scheduler or more steps"),
        ({"guidance_scale": 21}, "lower guidance_scale, which is 21: 1 to 20 is usual"),
        ({"callback_on_step_end": print}, "see what callback_on_step_end returns"),
        ({"latents": LATENTS}, "give latents of a standard normal distribution"),
        (
            {"guidance_scale": 1000, "callback_on_step_end": print},
            "lower guidance_scale, which is 1000: 1 to 20 is usual; or see what "
            "callback_on_step_end returns",
        ),
    ],
)
def test_the_settings_that_are_likely_to_blame_are_named(settings, fixes):
    with pytest.raises(NonFiniteError) as caught:
        check_latents(spoil(np.inf), plan(**settings), 1, 20)
    assert caught.value.fix.startswith(fixes)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"guidance_scale": 30}, "guidance_scale"),
        ({"true_cfg_scale": 30, "negative_prompt": ""}, "true_cfg_scale"),
    ],
)
def test_of_flux_the_guidance_that_it_runs_with_is_named(settings, name):
    limits = ModelLimits(16, 16, 8, 4, FLUX.defaults, model="flux", is_packed=True)
    asked = plan_flux(FluxRequest(prompt="a cat", **settings), RequestDefaults(), limits)
    assert replace(asked).guidance == (name, 30)
    with pytest.raises(NonFiniteError, match=f"lower {name}, which is 30"):
        check_latents(spoil(np.nan), asked, 1, 4)
