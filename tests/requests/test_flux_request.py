"""What a request of Flux becomes: the request wins over the configuration, that over the model."""

import pytest

from fastdeploy_diffusion.config import RequestDefaults
from fastdeploy_diffusion.families.flux import FLUX
from fastdeploy_diffusion.requests.flux_request import FluxRequest, plan_flux
from fastdeploy_diffusion.requests.model_limits import ModelLimits


def make_limits(is_distilled):
    return ModelLimits(
        height=64,
        width=64,
        multiple=16,
        latent_channels=4,
        model="a model",
        defaults=FLUX.defaults if is_distilled else FLUX.unguided,
        is_packed=True,
    )


@pytest.mark.parametrize(
    ("asked", "default", "is_distilled", "expected"),
    [
        (None, None, True, 512),
        (None, None, False, 256),
        (None, 77, True, 77),
        (None, 300, False, 300),
        (9, 77, True, 9),
        (512, None, False, 512),
    ],
)
def test_how_many_tokens_t5_reads(asked, default, is_distilled, expected):
    request = FluxRequest(prompt="a dog", max_sequence_length=asked)
    defaults = RequestDefaults(max_sequence_length=default)
    plan = plan_flux(request, defaults, make_limits(is_distilled))
    assert plan.max_sequence_length == expected
    assert plan.settings(0)["max_sequence_length"] == expected
