"""The request that the options of ``generate`` make, by the family of the checkpoint."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from fastdeploy_diffusion.checkpoints import Checkpoint
from fastdeploy_diffusion.config import RequestDefaults
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.request_fields import FIELDS
from fastdeploy_diffusion.requests.model_limits import ModelLimits
from fastdeploy_diffusion.requests.plan import plan_generation
from fastdeploy_diffusion.requests.request import GenerationRequest


def make_cli_request(
    checkpoint: Checkpoint, prompt: str, settings: Mapping[str, Any]
) -> GenerationRequest:
    """Make a request of the class that the checkpoint's family has.

    Args:
        settings: Fields of the requests of all families; None means "not given".

    Raises:
        RequestError: An option has no effect on this family.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    request_class = checkpoint.family.request_class
    known = {each.name for each in fields(request_class)}
    for name, value in given.items():
        if name not in known:
            flag, families = FIELDS[name].flag, " or ".join(FIELDS[name].families)
            raise RequestError(
                f"{flag} {value} has no effect on {checkpoint.path}, a checkpoint of the family "
                f"{checkpoint.family.name}",
                allowed=f"{flag} for a checkpoint of {families}",
                fix=f"leave {flag} out",
            )
    request: GenerationRequest = request_class(prompt=prompt, **given)
    scale = getattr(request, "true_cfg_scale", None)
    if request.negative_prompt is not None and scale is not None and scale <= 1:
        raise RequestError(
            f"--negative-prompt {request.negative_prompt!r} has no effect on {checkpoint.path}: "
            f"{checkpoint.family.title} runs without a negative prompt",
            allowed="--negative-prompt with a --true-cfg-scale above 1, at twice the cost",
            fix="--true-cfg-scale 4, or leave --negative-prompt out",
        )
    return request


def check_early(
    request: GenerationRequest, defaults: RequestDefaults, checkpoint: Checkpoint
) -> None:
    """Refuse values before Paddle is imported, which takes seconds; the pipeline checks them all.

    Raises:
        RequestError: A value is not allowed.
    """
    family, blocks = checkpoint.family, checkpoint.config("vae").get("block_out_channels")
    # The pipeline refuses anything but a list, with the name of the file.
    halvings = len(blocks) - 1 if isinstance(blocks, list) and blocks else 0
    multiple = 2 ** (halvings + 1 if family.is_packed else halvings)
    size, model = family.defaults.sample_size * multiple, str(checkpoint.path)
    limits = ModelLimits(
        size,
        size,
        multiple,
        1,
        family.defaults,
        model=model,
        is_packed=family.is_packed,
        control_scales=None,
        edits=None,
        ip_adapter_scales=None,
    )
    plan_generation(request, defaults, limits)
