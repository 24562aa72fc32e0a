import pytest

from fastdeploy_diffusion.passes.by_size import keep_paying, keep_usable
from fastdeploy_diffusion.passes.registry import choose_passes, find_passes, pass_names
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec
from fastdeploy_diffusion.size_range import SizeRange

FOR_LARGE_PICTURES = {"winograd-4x4", "winograd-2x2", "channels-last"}
OPEN = SizeRange(32, 64, 128, "height")


def sign(*shape):
    return Signature((TensorSpec("sample", shape, "float32"),), ())


@pytest.mark.parametrize(
    ("keep", "shape", "is_kept"),
    [
        (keep_paying, (None, 4, 32, 32), True),
        (keep_paying, (None, 4, 128, 8), True),
        (keep_paying, (None, 4, 32, 31), False),
        (keep_paying, (None, 4, OPEN, 16), True),  # its size is known with the request only
        (keep_paying, (None, 77), True),  # no picture
        (keep_usable, (None, 4, 8, 8), True),
        (keep_usable, (None, 4, OPEN, 64), False),
    ],
)
def test_passes_for_large_pictures(keep, shape, is_kept):
    passes = choose_passes([*FOR_LARGE_PICTURES, "merge-qkv", "channel-group-norm"])
    left_out = {each.name for each in passes} - {each.name for each in keep(passes, sign(*shape))}
    assert left_out == (set() if is_kept else FOR_LARGE_PICTURES)


def test_an_encoder_is_as_large_as_the_latents_that_it_gives():
    (pictures,), _ = sign(None, 3, 128, 128)
    passes = choose_passes([*FOR_LARGE_PICTURES])
    for side, kept in ((16, []), (32, passes)):
        moments = TensorSpec("moments", (None, 8, side, side), "float32")
        assert list(keep_paying(passes, Signature((pictures,), (moments,)))) == kept


def test_what_is_known_of_a_pass_before_its_import_is_what_it_says():
    for named in find_passes(pass_names()):
        loaded = named.load()
        assert named is not loaded
        for each in ("name", "module", "needs_known_sizes", "pays_from", "changes_picture"):
            assert getattr(named, each) == getattr(loaded, each), named.name
        assert named.identify() == loaded.identify()
