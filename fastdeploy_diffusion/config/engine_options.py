"""The sections for what engines let users choose, one for each engine that has any."""

from pydantic import Field

from fastdeploy_diffusion.config.sections import ConfigSection


class TensorRTConfig(ConfigSection):
    """How TensorRT builds; None takes its own default."""

    optimization_level: int | None = Field(
        default=None,
        ge=0,
        le=5,
        description="how long the builder searches: a whole number from 0 to 5",
    )
    workspace_gib: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="GiB of GPU memory for scratch while building: a finite number above 0",
    )
