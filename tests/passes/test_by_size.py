import pytest

from fastdeploy_diffusion.passes.by_size import count_pixels, keep_usable
from fastdeploy_diffusion.passes.registry import choose_passes, find_passes, pass_names
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec
from fastdeploy_diffusion.size_range import SizeRange

FOR_KNOWN_SIZES = {"winograd-4x4", "winograd-2x2", "channels-last", "resize-nearest"}
OPEN = SizeRange(32, 64, 128, "height")


def sign(*shape):
    return Signature((TensorSpec("sample", shape, "float32"),), ())


@pytest.mark.parametrize("is_kept", [True, False])
def test_passes_for_known_sizes(is_kept):
    passes = choose_passes([*FOR_KNOWN_SIZES, "merge-qkv", "channel-group-norm"])
    kept = keep_usable(passes, sign(None, 4, 8 if is_kept else OPEN, 8))
    left_out = {each.name for each in passes} - {each.name for each in kept}
    assert left_out == (set() if is_kept else FOR_KNOWN_SIZES)


@pytest.mark.parametrize(
    ("shape", "pixels"),
    [
        ((None, 4, 32, 31), 992),
        ((None, 4, OPEN, 16), 0),  # its size is known with the request only
        ((None, 77), 0),  # no picture
        ((None, 1024, 64), 0),
    ],
)
def test_pixels_of_latents(shape, pixels):
    timestep = TensorSpec("timestep", (None,), "float32")
    assert count_pixels(sign(*shape)) == pixels
    assert count_pixels(Signature((timestep, *sign(*shape).inputs), ())) == pixels
    residual = TensorSpec("residual", (None, 8, 16, 16), "float32")
    if len(shape) == 4:
        assert count_pixels(Signature((*sign(*shape).inputs, residual), ())) == pixels


def test_an_encoder_is_as_large_as_the_latents_that_it_gives():
    (pictures,), _ = sign(None, 3, 128, 120)
    moments = TensorSpec("moments", (None, 8, 16, 15), "float32")
    assert count_pixels(Signature((pictures,), (moments,))) == 240
    assert count_pixels(Signature((moments,), (pictures,))) == 240  # a decoder


def test_hidden_states_of_all_layers_are_no_picture():
    texts = TensorSpec("input_ids", (None, 77), "int64")
    states = TensorSpec("hidden_states", (None, 13, 77, 768), "float32")
    assert count_pixels(Signature((texts,), (states,))) == 0


def test_what_is_known_of_a_pass_before_its_import_is_what_it_says():
    for named in find_passes(pass_names()):
        loaded = named.load()
        assert named is not loaded
        for each in ("name", "module", "needs_known_sizes", "is_native", "changes_picture"):
            assert getattr(named, each) == getattr(loaded, each), named.name
        assert named.identify() == loaded.identify()
