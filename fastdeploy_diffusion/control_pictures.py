"""Control pictures that are made of other pictures without a network: their edges."""

import numpy as np
from PIL import Image

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.pictures_in import GivenPicture, flatten, read_picture

INSTALL = 'pip install "fastdeploy-diffusion[control]"'
_LARGEST_THRESHOLD = 2040  # of a Sobel filter on 8 bits, in both directions together


def detect_edges(picture: GivenPicture, low: float = 100, high: float = 200) -> Image.Image:
    """Find the edges of a picture (Canny, 1986), as control pictures for Canny ControlNets are.

    The same picture gives the same edges. Needs OpenCV.

    Args:
        picture: Laid on white where it is transparent.
        low: Gradient from which a pixel goes on an edge that it touches.
        high: Gradient from which a pixel begins one. Gradients are sums of the absolute values of
            Sobel's filters in both directions, in the channel where that is largest; both defaults
            are those of the code that came with ControlNet.

    Returns:
        Mode "RGB", white on black, of the picture's size.

    Raises:
        RequestError: The picture cannot be read, a threshold is not allowed, or OpenCV is not
            installed.
        ResourceError: The picture is too large.
    """
    for name, value in {"low": low, "high": high}.items():
        if not 0 <= value <= _LARGEST_THRESHOLD:
            raise RequestError(
                f"{name} is {value!r}", allowed=f"a gradient of 0 to {_LARGEST_THRESHOLD}"
            )
    if low > high:
        raise RequestError(f"low is {low:g}, and high {high:g}", allowed="a low up to the high")
    pixels = np.asarray(flatten(read_picture("picture", picture)))
    try:
        import cv2
    except ImportError as error:
        raise RequestError(
            f"the edges of a picture are asked for, and OpenCV cannot be imported: {error}",
            allowed="a control_image of edges, without control_preprocess",
            fix=INSTALL,
        ) from error
    edges = cv2.Canny(pixels, low, high)
    return Image.fromarray(edges).convert("RGB")
