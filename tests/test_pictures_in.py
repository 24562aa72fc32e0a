"""Pictures that are given: every usual form is read alike, and what is no picture is named."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from fastdeploy_diffusion import pictures_in
from fastdeploy_diffusion.errors import DiffusionError, RequestError, ResourceError
from fastdeploy_diffusion.pictures_in import (
    Size,
    digest_picture,
    flatten,
    normalize,
    read_picture,
    read_pictures,
    resize,
)

PIXELS = np.random.default_rng(20261130).integers(0, 256, (5, 7, 3), np.uint8)
IMAGE = Image.fromarray(PIXELS)


def encode(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def pixels(picture):
    return np.asarray(picture)


@pytest.mark.parametrize(
    "given",
    [
        IMAGE,
        PIXELS,
        PIXELS.astype(np.float32) / 255,
        PIXELS.astype(np.float64) / 255,
        PIXELS.astype(np.uint16) * 257,
        encode(IMAGE),
        bytearray(encode(IMAGE, "BMP")),
        encode(IMAGE, "TIFF"),
        encode(IMAGE, "WEBP", lossless=True),
    ],
    ids=["pillow", "bytes", "float32", "float64", "uint16", "png", "bmp", "tiff", "webp"],
)
def test_every_form_is_the_same_picture(given):
    read = read_picture("image", given)
    assert read.mode == "RGB"
    np.testing.assert_array_equal(pixels(read), PIXELS)


def test_a_path_is_read(tmp_path):
    IMAGE.save(tmp_path / "a.png")
    for given in (tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(pixels(read_picture("image", given)), PIXELS)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # How a viewer turns what is stored, by the EXIF standard.
    turned = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2),
        6: PIXELS.transpose(1, 0, 2)[:, ::-1],
        7: PIXELS.transpose(1, 0, 2)[::-1, ::-1],
        8: PIXELS.transpose(1, 0, 2)[::-1],
    }
    read = read_picture("image", encode(IMAGE, exif=exif))
    np.testing.assert_array_equal(pixels(read), turned[orientation])


def test_grey_values_of_1_8_and_16_bits_are_colours():
    grey = PIXELS[..., 0]
    wanted = np.repeat(grey[..., None], 3, axis=2)
    deep = grey.astype(np.uint16) * 257
    for given in (
        grey,
        grey[..., None],
        Image.fromarray(grey),
        encode(Image.fromarray(deep)),
        encode(Image.fromarray(deep), "TIFF"),
        Image.fromarray(deep.astype(np.int32)),
        Image.fromarray(grey.astype(np.float32) / 255),
    ):
        read = read_picture("image", given)
        assert read.mode == "RGB"
        np.testing.assert_array_equal(pixels(read), wanted)
    bits = pixels(read_picture("image", encode(Image.fromarray(grey > 127))))
    np.testing.assert_array_equal(bits, np.where(wanted > 127, 255, 0))


def test_palettes_and_cmyk_are_colours():
    palette = IMAGE.convert("P", palette=Image.Palette.ADAPTIVE)
    wanted = pixels(palette.convert("RGB"))
    np.testing.assert_array_equal(pixels(read_picture("image", encode(palette, "GIF"))), wanted)
    cmyk = Image.merge("CMYK", [Image.new("L", (4, 3), value) for value in (255, 0, 0, 0)])
    read = read_picture("image", encode(cmyk, "JPEG", quality=100))
    assert np.abs(pixels(read).astype(int) - (0, 255, 255)).max() <= 2


def test_transparency_is_kept_and_laid_on_white():
    alpha = np.full((5, 7, 1), 255, np.uint8)
    alpha[:2], alpha[2] = 0, 128
    array = np.concatenate([PIXELS, alpha], axis=2)
    palette = Image.fromarray(np.zeros((5, 7), np.uint8), "P")
    palette.putpalette([10, 20, 30])
    palette.info["transparency"] = 0
    for given in (array, Image.fromarray(array), encode(Image.fromarray(array))):
        read = read_picture("image", given)
        assert read.mode == "RGBA"
        flat = pixels(flatten(read)).astype(int)
        assert (flat[:2] == 255).all()
        np.testing.assert_array_equal(flat[3:], PIXELS[3:])
        assert np.abs(flat[2] - (PIXELS[2].astype(int) + 255) / 2).max() <= 2
    assert (pixels(flatten(read_picture("image", encode(palette)))) == 255).all()


def test_several_are_a_list_or_an_array():
    both = np.stack([PIXELS, PIXELS[::-1]])
    for given in (both, [PIXELS, Image.fromarray(PIXELS[::-1])], (both[0], encode(IMAGE))):
        assert len(read_pictures("image", given)) == 2
    np.testing.assert_array_equal(pixels(read_pictures("image", both)[1]), PIXELS[::-1])
    assert len(read_pictures("image", PIXELS)) == 1


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (None, "image is None"),
        (7, "image is 7"),
        ([], "an empty list"),
        ("no-such-file.png", "no file that exists"),
        (".", "a folder"),
        ("https://example.org/a.png", "an address"),
        (b"", "0 bytes"),
        (b"no picture", "cannot be read"),
        (encode(IMAGE)[:60], "cannot be read"),
        (PIXELS.astype(np.int64), "an array of int64"),
        (PIXELS.astype(np.float32), "values from"),
        (PIXELS / 255 * np.nan, "values from nan"),
        (np.zeros((4, 4, 2), np.uint8), "(4, 4, 2)"),
        (np.zeros((0, 4, 3), np.uint8), "(0, 4, 3)"),
        (np.zeros((2, 2, 4, 4, 3), np.uint8), "(2, 2, 4, 4, 3)"),
        ([PIXELS, "missing.png"], "image[1] is 'missing.png'"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read"),
    ],
)
def test_what_is_no_picture_is_refused(given, problem):
    with pytest.raises(RequestError) as caught:
        read_pictures("image", given)
    assert problem in caught.value.problem
    assert caught.value.allowed


def test_a_picture_that_would_fill_the_memory_is_refused_before_it_is_decoded():
    # 100 megapixels, and 400: Pillow itself warns of the first, and refuses the second.
    for side in (10_000, 20_000):
        bomb = claim_size(encode(IMAGE), side)
        with pytest.raises(ResourceError) as caught:  # warnings are errors in tests
            read_picture("image", bomb)
        assert f"{pictures_in.LARGEST_PICTURE:,} pixels" in caught.value.allowed
    with pytest.raises(ResourceError):
        read_picture("image", np.broadcast_to(np.uint8(0), (9_000, 9_000, 3)))


def claim_size(png, side):
    """Change the size that a PNG file says it has."""
    header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
def test_damaged_files_are_refused_as_such(form):
    whole, random = encode(IMAGE, form), np.random.default_rng(1)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole[: random.integers(1, len(whole) + 1)])
        for place in random.integers(0, len(damaged), 3):
            damaged[place] = random.integers(0, 256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read_picture("image", bytes(damaged))
        except DiffusionError:
            refused += 1
    assert refused > 20


def test_stretch_crop_and_pad():
    wide = Image.fromarray(np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[None], 12, axis=0))
    wide = wide.convert("RGB")  # 24 x 12, brighter to the right
    stretched, cropped, padded = (
        pixels(resize(wide, Size(12, 12), mode))[..., 0].astype(int)
        for mode in ("stretch", "crop", "pad")
    )
    assert stretched.shape == cropped.shape == padded.shape == (12, 12)
    np.testing.assert_array_equal(cropped, pixels(wide)[:, 6:18, 0])
    assert stretched[0, 0] < 15
    assert stretched[0, -1] > 215
    np.testing.assert_array_equal(padded[:3], np.repeat(padded[3:4], 3, axis=0))
    np.testing.assert_array_equal(padded[3], stretched[0])
    assert resize(wide, Size(24, 12), "crop") is wide
    tall = pixels(resize(wide, Size(5, 31), "pad"))
    assert tall.shape == (31, 5, 3)


def test_colours_are_numbers_from_minus_1_to_1():
    black, white = Image.new("RGB", (3, 2)), Image.new("RGB", (3, 2), (255, 255, 0))
    numbers = normalize([black, white])
    assert (numbers.dtype, numbers.shape) == (np.float32, (2, 3, 2, 3))
    assert (numbers[0] == -1).all()
    assert (numbers[1, :2] == 1).all()
    assert (numbers[1, 2] == -1).all()


def test_a_digest_is_of_size_and_pixels():
    other = PIXELS.copy()
    other[2, 2, 2] ^= 1
    pictures = [IMAGE, Image.fromarray(other), Image.fromarray(PIXELS.reshape(7, 5, 3))]
    assert len({digest_picture(each) for each in pictures}) == 3
    assert digest_picture(read_picture("image", encode(IMAGE))) == digest_picture(IMAGE)
