"""A request that is given as keyword arguments."""

from dataclasses import fields
from typing import Any

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.hints import find_hint
from fastdeploy_diffusion.requests.request import GenerationRequest
from fastdeploy_diffusion.suggest import did_you_mean

_SYNONYMS = {
    "num_images": "num_images_per_prompt",
    "steps": "num_inference_steps",
    "callback": "callback_on_step_end",
}


def make_request(
    prompt: Any,
    settings: dict[str, Any],
    request_class: type[GenerationRequest] = GenerationRequest,
) -> GenerationRequest:
    """Turn keyword arguments into a request of a class.

    Raises:
        RequestError: A keyword is unknown.
    """
    names = [each.name for each in fields(request_class)]
    for name in settings:
        if name not in names:
            hint = find_hint(name)
            missing = f": {hint.missing}" if hint and hint.missing else ""
            raise RequestError(
                f"unknown argument {name!r}{missing}",
                allowed=", ".join(names),
                fix=hint.fix if hint else did_you_mean(name, names, _SYNONYMS),
            )
    return request_class(prompt=prompt, **settings)
