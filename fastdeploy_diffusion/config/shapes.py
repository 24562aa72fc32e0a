"""The section for what one build serves: ranges of sizes."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from fastdeploy_diffusion.config.problems import refuse
from fastdeploy_diffusion.config.sections import ConfigSection, read_list

_LARGEST = 2**31 - 1
_HELP = "a list of the smallest, the one to tune for, and the largest; or one number"


def _check_range(value: Any) -> Any:
    if value is None:
        return value
    sizes = value if isinstance(value, tuple) else (value, value, value)
    is_whole = all(type(size) is int and 1 <= size <= _LARGEST for size in sizes)
    if len(sizes) != 3 or not is_whole or list(sizes) != sorted(sizes):
        raise refuse(fix=f"three whole numbers from 1 to {_LARGEST}, none less than the one before")
    return value


# Any, for an element that is refused must be blamed on the whole option.
Range = Annotated[Any, BeforeValidator(read_list), AfterValidator(_check_range)]


class ShapesConfig(ConfigSection):
    """What one build serves, where ``enable_dynamic_shape`` is on; None goes by the model."""

    batch: Range = Field(
        default=(1, 2, 8),
        description=f"rows of the denoiser, two for each picture with guidance: {_HELP}",
    )
    height: Range = Field(default=None, description=f"height of pictures in pixels: {_HELP}")
    width: Range = Field(default=None, description=f"width of pictures in pixels: {_HELP}")
