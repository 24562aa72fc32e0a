"""Pictures for CLIP's vision towers against the processor that transformers has for them."""

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil

from fastdeploy_diffusion.clip_pictures import prepare_pictures
from fastdeploy_diffusion.errors import ResourceError

SIZES = [(32, 32), (224, 224), (640, 427), (61, 250), (9, 7), (225, 224), (1000, 333)]


def draw_picture(width, height):
    random = np.random.default_rng(width)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("size", [32, 31, 224])
def test_they_equal_those_of_transformers(size):
    pictures = [draw_picture(*each) for each in SIZES]
    processor = CLIPImageProcessorPil(size=size, crop_size=size)
    wanted = processor(pictures, return_tensors="np").pixel_values
    assert np.array_equal(prepare_pictures(pictures, size), wanted)


def test_a_line_that_would_grow_beyond_memory_is_refused():
    with pytest.raises(ResourceError, match="2000000 x 1"):
        prepare_pictures([Image.new("RGB", (2_000_000, 1))], 224)
