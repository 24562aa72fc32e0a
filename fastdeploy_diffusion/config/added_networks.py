"""What the options of networks share that are added to a checkpoint's: ControlNets, IP-Adapters."""

import os
from typing import Annotated, Any

from pydantic import Field

from fastdeploy_diffusion.config.problems import refuse
from fastdeploy_diffusion.precision import INT8, PRECISIONS

Scale = Annotated[
    float,
    Field(
        ge=0,
        le=10,
        allow_inf_nan=False,
        title="factor of what it adds, where a request does not say it",
        description="a number of 0 to 10",
    ),
]


def refuse_int8(precision: str | None, network: str) -> None:
    """Refuse the precision whose layers are chosen for the checkpoint's own networks alone.

    Args:
        network: What has the precision, with its article.

    Raises:
        ValueError: It is int8; as `refuse` makes it.
    """
    if precision == INT8:
        raise refuse(
            f"the precision of {network} is {precision!r}, for which layers are chosen in the "
            "checkpoint's own networks alone",
            allowed=", ".join(name for name in PRECISIONS if name != INT8),
            fix="leave precision out: beside a denoiser in int8, it runs in floating point; "
            "int8-weights needs no choice",
            option="precision",
        )


def read_sections(value: Any) -> Any:
    """Turn a list of sections, or of paths alone, into the tuple of an option."""
    if not isinstance(value, list | tuple):
        return value
    return tuple({"path": each} if isinstance(each, str | os.PathLike) else each for each in value)
