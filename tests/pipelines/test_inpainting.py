"""Inpainting and outpainting: what stays as it was, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.images import read_metadata, read_settings, save_image
from fastdeploy_diffusion.pictures_in import digest_picture

PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (32, 24, 3), np.uint8))
COVERED = np.zeros((32, 24), bool)
COVERED[6:18, 4:15] = True
MASK = Image.fromarray(np.where(COVERED, np.uint8(255), np.uint8(0)))
DOT = np.zeros((32, 24), bool)
DOT[1, 1] = True  # between the pixels of which latents are made
QUICK = {"seed": 5, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def pipeline(tiny_sd1):
    with SDPipeline(DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager")) as opened:
        yield opened


def pixels(picture):
    return np.asarray(picture)


def test_what_the_mask_leaves_is_put_back_bit_for_bit(pipeline):
    plain = pixels(pipeline.inpaint("a cat", PICTURE, MASK, **QUICK))
    put_back = pixels(pipeline.inpaint("a cat", PICTURE, MASK, overlay=True, **QUICK))
    np.testing.assert_array_equal(put_back[~COVERED], pixels(PICTURE)[~COVERED])
    np.testing.assert_array_equal(put_back[COVERED], plain[COVERED])
    assert (plain[~COVERED] != pixels(PICTURE)[~COVERED]).mean() > 0.5
    assert (put_back[COVERED] != pixels(PICTURE)[COVERED]).mean() > 0.5


def test_the_mask_is_what_is_transparent(pipeline):
    transparent = PICTURE.copy()
    transparent.putalpha(Image.fromarray(np.where(COVERED, np.uint8(0), np.uint8(255))))
    white = pixels(PICTURE).copy()
    white[COVERED] = 255
    given = pipeline.inpaint("a cat", transparent, **QUICK)
    wanted = pipeline.inpaint("a cat", white, COVERED, **QUICK)
    np.testing.assert_array_equal(pixels(given), pixels(wanted))


def test_a_picture_is_made_again_from_its_file(pipeline, tmp_path):
    asked = {"mask_blur": 2, "overlay": True, "strength": 0.5, **QUICK}
    drawn = pipeline.inpaint("a cat", PICTURE, MASK, **asked)
    save_image(drawn, tmp_path / "cat.png")
    run = read_metadata(tmp_path / "cat.png")["run"]
    assert run["mask_sha256"] == digest_picture(MASK)
    assert run["image_sha256"] == digest_picture(PICTURE)
    settings = read_settings(tmp_path / "cat.png")
    assert {name: settings[name] for name in asked} == asked
    again = pipeline.inpaint(image=PICTURE, mask=MASK, **settings)
    assert again.tobytes() == drawn.tobytes()


def test_a_mask_for_each_picture_and_one_for_all(pipeline):
    other = Image.fromarray(pixels(MASK)[::-1])
    settings = {"overlay": True, "output_type": "np", **QUICK}
    alone = [
        pipeline.inpaint("a cat", PICTURE, mask, **{**settings, "seed": seed})[0]
        for mask, seed in ((MASK, 5), (other, 6))
    ]
    both = pipeline.inpaint(["a cat"] * 2, PICTURE, [MASK, other], **settings)
    np.testing.assert_array_equal(both, np.stack(alone))
    same = pipeline.inpaint(["a cat"] * 2, [PICTURE, PICTURE], MASK, **settings)
    np.testing.assert_array_equal(same[0], alone[0])


def test_a_part_is_drawn_in_the_size_that_is_asked_for(pipeline):
    large, mask = PICTURE.resize((75, 90)), MASK.resize((75, 90), Image.Resampling.NEAREST)
    drawn = pipeline.inpaint(
        "a cat", large, mask, padding_mask_crop=4, height=32, width=32, **QUICK
    )
    assert drawn.size == (75, 90)
    kept = pixels(mask) == 0
    np.testing.assert_array_equal(pixels(drawn)[kept], pixels(large)[kept])
    assert (pixels(drawn)[~kept] != pixels(large)[~kept]).mean() > 0.5
    assert (read_settings(drawn)["width"], read_settings(drawn)["height"]) == (32, 32)


def test_outpainting_leaves_the_picture_as_it_is(pipeline):
    drawn = pixels(pipeline.outpaint("a cat", PICTURE, left=8, bottom=4, **QUICK))
    assert drawn.shape == (36, 32, 3)
    np.testing.assert_array_equal(drawn[:32, 8:], pixels(PICTURE))
    assert len(np.unique(drawn[:, :8])) > 20
    for sides, problem in (
        ({}, "nothing is to be added"),
        ({"left": -8}, "left is -8"),
        ({"top": 2.5}, "top is 2.5"),
        ({"right": 3}, "image is 27 x 32"),
    ):
        with pytest.raises(RequestError, match=problem):
            pipeline.outpaint("a cat", PICTURE, **sides, **QUICK)


@pytest.mark.parametrize(
    ("settings", "problem", "fix"),
    [
        ({"mask": MASK.resize((24, 30))}, "the mask is 24 x 30", ""),
        ({"mask": Image.new("L", (24, 32))}, "the mask is black", "inverted"),
        ({"mask": Image.new("L", (24, 32), 127)}, "the mask is black", "inverted"),
        ({"mask": DOT}, "the mask is too small", "padding_mask_crop"),
        ({"mask": None}, "there is no mask, and the image has no transparency", "mask="),
        ({"mask": "missing.png"}, "mask is 'missing.png'", ""),
        ({"mask": Image.new("RGBA", (24, 32))}, "mask is transparent in parts", "black or white"),
        ({"mask": [MASK] * 3}, "3 masks for one image", ""),
        ({"mask_blur": -1}, "mask_blur is -1", ""),
        ({"padding_mask_crop": 2.5}, "padding_mask_crop is 2.5", ""),
        ({"overlay": "yes"}, "overlay is 'yes'", ""),
        ({"mask_image": MASK}, "unknown argument 'mask_image'", "mask"),
        ({"strength": 0}, "strength is 0", "larger strength"),
    ],
)
def test_what_cannot_be_drawn_is_refused(pipeline, settings, problem, fix):
    with pytest.raises(RequestError) as caught:
        pipeline.inpaint("a cat", **{"image": PICTURE, "mask": MASK, **QUICK, **settings})
    assert problem in caught.value.problem
    assert fix in caught.value.fix


def test_what_has_no_effect_without_a_mask_is_refused(pipeline):
    for settings in ({"mask_blur": 2}, {"padding_mask_crop": 4}, {"overlay": True}):
        (name,) = settings
        with pytest.raises(RequestError, match=f"{name} is .*, and there is no mask"):
            pipeline.generate("a cat", image=PICTURE, **settings)
        with pytest.raises(RequestError, match=f"image_to_image takes no {name}"):
            pipeline.image_to_image("a cat", PICTURE, **settings)
