"""The request that the options of ``generate`` make, by the family of the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.predictors.flux_request import FluxRequest
from fastdeploy_diffusion.predictors.request import GenerationRequest
from fastdeploy_diffusion.predictors.sdxl_request import SDXLRequest

if TYPE_CHECKING:
    from fastdeploy_diffusion.predictors.checkpoint_predictor import CheckpointPredictor


def make_cli_request(
    pipeline: CheckpointPredictor, prompt: str, settings: Mapping[str, Any]
) -> GenerationRequest:
    """Make a request of the pipeline's own class.

    Args:
        pipeline: What will serve it.
        prompt: What to draw.
        settings: Fields of the requests of all families; None means "not given".

    Raises:
        RequestError: An option has no effect on this family.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    known = {each.name for each in fields(pipeline.request_class)}
    report = pipeline.report
    for name, value in given.items():
        if name not in known:
            flag = f"--{name.replace('_', '-')}"
            raise RequestError(
                f"{flag} {value} has no effect on {report.model}, a checkpoint of the family "
                f"{report.family}",
                allowed=f"{flag} for a checkpoint of {_name_families(name)}",
                fix=f"leave {flag} out",
            )
    request = pipeline.request_class(prompt=prompt, **given)
    if isinstance(request, FluxRequest) and request.negative_prompt is not None:
        _check_true_guidance(request, report.model)
    return request


def _name_families(setting: str) -> str:
    """Say which families have a setting that not all have."""
    requests = {"SDXL": SDXLRequest, "Flux": FluxRequest}
    return " or ".join(
        family
        for family, request_class in requests.items()
        if setting in {each.name for each in fields(request_class)}
    )


def _check_true_guidance(request: FluxRequest, model: str) -> None:
    if request.true_cfg_scale <= 1:
        raise RequestError(
            f"--negative-prompt {request.negative_prompt!r} has no effect on {model}: Flux runs "
            "without a negative prompt",
            allowed="--negative-prompt with a --true-cfg-scale above 1, at twice the cost",
            fix="--true-cfg-scale 4, or leave --negative-prompt out",
        )
