"""What the options of networks share that are added to a checkpoint's: ControlNets, IP-Adapters."""

import os
from typing import Annotated, Any

from pydantic import Field

from fastdeploy_diffusion.config.problems import refuse
from fastdeploy_diffusion.precision import PRECISIONS

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


def refuse_quantized(precision: str | None, network: str, reads: str, fix: str) -> None:
    """Refuse a precision that would have to be calibrated with pictures.

    Args:
        network: What has the precision, with its article.
        reads: What calibration would need, with its article.

    Raises:
        ValueError: The precision is quantized; as `refuse` makes it.
    """
    if precision in PRECISIONS and PRECISIONS[str(precision)].is_quantized:
        raise refuse(
            f"the precision of {network} is {precision!r}, by which nothing is calibrated that "
            f"takes {reads}",
            allowed=", ".join(n for n, each in PRECISIONS.items() if not each.is_quantized),
            fix=fix,
            option="precision",
        )


def read_sections(value: Any) -> Any:
    """Turn a list of sections, or of paths alone, into the tuple of an option."""
    if not isinstance(value, list | tuple):
        return value
    return tuple({"path": each} if isinstance(each, str | os.PathLike) else each for each in value)
