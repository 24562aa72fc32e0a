"""Texts for the second text encoder of families that have one."""

from typing import Any

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.requests.checked_values import spread_texts
from fastdeploy_diffusion.requests.request import GenerationRequest


def spread_seconds(
    name: str, given: Any, firsts: tuple[str, ...], request: GenerationRequest
) -> tuple[str, ...]:
    """Spread the texts for the second encoder over the pictures.

    Raises:
        RequestError: It is not one text, or one for each prompt.
    """
    if given is None:
        return firsts
    texts = spread_texts(name, given)
    prompts = len(firsts) // request.num_images_per_prompt
    if len(texts) == 1:
        texts = texts * prompts
    if len(texts) != prompts:
        raise RequestError(
            f"{name} has {len(texts)} texts for {prompts} prompts", allowed=f"one, or {prompts}"
        )
    return tuple(text for text in texts for _ in range(request.num_images_per_prompt))


def name_second(first: str, second: str) -> str | None:
    """Make the setting of a second text, which is left out if it equals the first."""
    return second if second != first else None
