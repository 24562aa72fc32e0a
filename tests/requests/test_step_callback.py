"""What a callback returns after a step: tensors by name, and nothing else."""

import numpy as np
import pytest

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.requests.step_callback import read_replacements

TENSORS = {
    "latents": np.zeros((1, 4, 2, 2), np.float32),
    "prompt_embeds": np.zeros((1, 3, 8), np.float32),
    "negative_prompt_embeds": None,
}


def test_nothing_changes_nothing():
    for returned in (None, {}, {"negative_prompt_embeds": None}):
        assert not any(value is not None for value in read_replacements(returned, TENSORS).values())


def test_other_numbers_are_read_as_float32():
    for kind in (np.float64, np.float16, np.int32, np.float32):
        given = np.ones((1, 4, 2, 2), kind)
        (latents,) = read_replacements({"latents": given}, TENSORS).values()
        assert latents.dtype == np.float32
        np.testing.assert_array_equal(latents, 1)


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (5, "returned 5"),
        ([1], r"returned \[1\]"),
        ({"zz": 1}, "returned 'zz'"),
        ({"latent": TENSORS["latents"]}, "did you mean 'latents'"),
        ({3: 1}, "returned 3"),
        ({"latents": None}, "returned a NoneType for latents"),
        ({"latents": [[0.0]]}, "returned a list for latents"),
        ({"latents": np.zeros((2, 4, 2, 2), np.float32)}, r"float32 \(2, 4, 2, 2\) for latents"),
        ({"latents": np.full((1, 4, 2, 2), "a")}, "for latents"),
        ({"latents": np.full((1, 4, 2, 2), 1j)}, "complex128"),
        (
            {"negative_prompt_embeds": TENSORS["prompt_embeds"]},
            "negative_prompt_embeds, which this request does not have",
        ),
    ],
)
def test_what_takes_no_tensors_place_is_refused(returned, problem):
    with pytest.raises(RequestError, match=problem):
        read_replacements(returned, TENSORS)


def test_an_array_that_is_replaced_keeps_its_shape_in_the_message():
    with pytest.raises(RequestError) as caught:
        read_replacements({"prompt_embeds": np.zeros((1, 4, 8))}, TENSORS)
    assert caught.value.allowed == "a numpy array of float32 (1, 3, 8)"
