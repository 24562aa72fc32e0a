"""The number of chunks that all texts of a request are filled up to."""

from dataclasses import replace
from typing import TypeVar

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.requests.model_limits import ModelLimits
from fastdeploy_diffusion.requests.plan import GenerationPlan

PlanT = TypeVar("PlanT", bound=GenerationPlan)


def fit_chunks(plan: PlanT, needed: int, limits: ModelLimits) -> PlanT:
    """Set a plan's number of chunks to what its longest text needs, or the request asks for.

    Args:
        needed: By the longest text, for either encoder, prompts and negative prompts alike.

    Raises:
        RequestError: There is no build for as many, and none can be made.
    """
    chunks = max(needed, plan.chunks)
    if limits.ranges is not None:
        limits.ranges.check_chunks(chunks)
    if limits.chunks and chunks not in limits.chunks:
        larger = [each for each in limits.chunks if each > chunks]
        pad = f"prompt_syntax='weighted', prompt_chunks={larger[0]}; or " if larger else ""
        raise RequestError(
            f"the texts of this request take {_count(chunks)}, which the bundle was not built for",
            allowed=", ".join(map(str, limits.chunks)),
            fix=f"{pad}make a bundle with it: fastdeploy-diffusion bundle --chunks {chunks},…",
        )
    return plan if plan.prompt_chunks is None else replace(plan, prompt_chunks=chunks)


def _count(chunks: int) -> str:
    return "1 chunk" if chunks == 1 else f"{chunks} chunks"
