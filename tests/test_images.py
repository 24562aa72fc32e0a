import errno
import json
import os
import threading

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fastdeploy_diffusion.errors import EngineError, RequestError, ResourceError
from fastdeploy_diffusion.images import (
    METADATA_KEY,
    denormalize,
    read_metadata,
    read_settings,
    save_image,
    to_pil,
    write_metadata,
)

SETTINGS = {
    "prompt": 'Ein Käfer 🐞 "auf" 一片叶子,\nSteps: 3 \\ <b>',
    "negative_prompt": "размыто, low quality",
    "height": 24,
    "width": 16,
    "num_inference_steps": 20,
    "guidance_scale": 7.5,
    "guidance_rescale": 0.7,
    "clip_skip": 1,
    "seed": 2**64 - 1,
    "eta": 0.25,
}
RUN = {"engine": "paddle", "device": "cpu", "fallback": None, "files": ["a", "b"]}


@pytest.fixture
def image():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8)
    return Image.fromarray(pixels)


def text_to_image(**settings):
    """The signature that read_settings must fit."""
    assert set(settings) <= set(SETTINGS)
    return settings


def decoded_images():
    generator = np.random.default_rng(1)
    return generator.uniform(-1.3, 1.3, (2, 3, 9, 7)).astype(np.float32)


def test_denormalize_equals_diffusers():
    decoded = decoded_images()
    ours = denormalize(decoded)
    theirs = VaeImageProcessor.pt_to_numpy(VaeImageProcessor.denormalize(torch.from_numpy(decoded)))
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == np.float32
    assert (ours.min(), ours.max()) == (0.0, 1.0)


def test_to_pil_equals_diffusers_and_rounds_to_even():
    halves = np.arange(255, dtype=np.float32) / np.float32(255) + np.float32(0.5 / 255)
    array = np.concatenate([denormalize(decoded_images()).reshape(-1), halves])
    array = np.resize(array, (3, 5, 11, 3)).astype(np.float32)
    ours, theirs = to_pil(array), VaeImageProcessor.numpy_to_pil(array)
    assert [image.size for image in ours] == [(11, 5)] * 3
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(other))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_never_become_a_picture(value):
    decoded = np.zeros((3, 3, 4, 4), np.float32)
    decoded[1, 2, 3, 0] = value
    with pytest.raises(EngineError, match="NaN or Inf in image 1 of 3"):
        denormalize(decoded)
    with pytest.raises(EngineError, match="NaN or Inf in image 1 of 3"):
        to_pil(decoded.transpose(0, 2, 3, 1))


def test_both_ends_of_the_range_are_colours():
    ends = np.array([0.0, 1.0, 0.5], np.float32).reshape(1, 1, 1, 3)
    assert to_pil(ends)[0].getpixel((0, 0)) == (0, 255, 128)
    assert to_pil(ends[:0]) == []
    for beyond in (np.nextafter(np.float32(1), np.float32(2)), np.float32(-1e-9)):
        with pytest.raises(EngineError, match="denormalize"):
            to_pil(np.full((1, 1, 1, 3), beyond, np.float32))


def test_wrong_shapes_and_ranges_are_named():
    with pytest.raises(EngineError, match=r"\(1, 4, 8, 8\)"):
        denormalize(np.zeros((1, 4, 8, 8), np.float32))
    with pytest.raises(EngineError, match=r"\(8, 8, 3\)"):
        to_pil(np.zeros((8, 8, 3), np.float32))
    with pytest.raises(EngineError, match=r"from -0\.25 to 1"):
        to_pil(np.array([-0.25, 1.0, 0.5], np.float32).reshape(1, 1, 1, 3))


def test_saved_png_gives_back_pixels_and_settings(tmp_path, image):
    write_metadata(image, SETTINGS, RUN)
    save_image(image, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), np.asarray(image))
        assert {key: saved.info[key] for key in image.info} == image.info
    settings = read_settings(tmp_path / "a.png")
    assert settings == SETTINGS
    assert [type(value) for value in settings.values()] == [type(v) for v in SETTINGS.values()]
    assert text_to_image(**settings) == SETTINGS
    assert read_metadata(str(tmp_path / "a.png")) == {
        "version": 1,
        "settings": SETTINGS,
        "run": RUN,
    }


@pytest.mark.parametrize("name", ["a.webp", "a.jpg", "a.JPEG"])
def test_jpeg_and_webp_carry_the_same_metadata(tmp_path, image, name):
    write_metadata(image, SETTINGS, RUN)
    save_image(image, tmp_path / name)
    assert read_metadata(tmp_path / name) == {"version": 1, "settings": SETTINGS, "run": RUN}
    with Image.open(tmp_path / name) as saved:
        off = np.abs(np.asarray(saved).astype(int) - np.asarray(image))
        assert off.max() == 0 if name == "a.webp" else off.mean() < 16  # of noise in colours
        # As AUTOMATIC1111's web UI writes it.
        comment = saved.getexif().get_ifd(0x8769)[0x9286]
        assert comment == b"UNICODE\0" + image.info["parameters"].encode("utf-16-be")
        # From one format to another, with both texts.
        save_image(saved, tmp_path / "again.png")
    with Image.open(tmp_path / "again.png") as again:
        assert {key: again.info[key] for key in image.info} == image.info


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # by Pillow, which goes on
@pytest.mark.parametrize("name", ["a.webp", "a.jpg"])
def test_what_carries_no_metadata_of_ours(tmp_path, image, name):
    save_image(image, tmp_path / name)
    exif = Image.Exif()
    exif[0x010E] = "a cat on a mat"
    image.save(tmp_path / f"other-{name}", exif=exif)
    image.save(tmp_path / f"damaged-{name}", exif=b"Exif\0\0II*\0 and no more")
    for each in (name, f"other-{name}", f"damaged-{name}"):
        with pytest.raises(RequestError, match="has no metadata"):
            read_metadata(tmp_path / each)


def test_settings_that_jpeg_has_no_room_for(tmp_path, image):
    write_metadata(image, {"prompt": "cat " * 20_000})
    with pytest.raises(RequestError, match="a JPEG file cannot hold") as caught:
        save_image(image, tmp_path / "a.jpg")
    assert caught.value.fix == "save it as .png or .webp"
    assert list(tmp_path.iterdir()) == []
    save_image(image, tmp_path / "a.webp")
    assert read_settings(tmp_path / "a.webp") == {"prompt": "cat " * 20_000}


def test_plain_save_keeps_the_metadata_every_time(tmp_path, image):
    write_metadata(image, SETTINGS, RUN)
    for name in ("a.png", "b.png"):
        image.save(tmp_path / name)
        assert read_settings(tmp_path / name) == SETTINGS
    image.save(tmp_path / "c.jpg")  # other formats are not disturbed
    with pytest.raises(RequestError, match=r"c\.jpg has no metadata"):
        read_settings(tmp_path / "c.jpg")


def test_a_resized_copy_keeps_the_metadata_through_save_image(tmp_path, image):
    write_metadata(image, SETTINGS)
    small = image.resize((8, 12))
    assert read_settings(small) == SETTINGS
    save_image(small, tmp_path / "small.png")
    assert read_settings(tmp_path / "small.png") == SETTINGS


def test_writing_metadata_again_replaces_them_in_both_ways_to_save(tmp_path, image):
    write_metadata(image, {"prompt": "old"})
    write_metadata(image, {"prompt": "new", "eta": None})
    image.save(tmp_path / "plain.png")
    save_image(image, tmp_path / "ours.png")
    for name in ("plain.png", "ours.png"):
        assert read_settings(tmp_path / name) == {"prompt": "new"}


def test_parameters_read_as_other_tools_show_them(image):
    write_metadata(image, SETTINGS | {"prompt": "a cat", "negative_prompt": "dog", "seed": 5})
    assert image.info["parameters"] == (
        "a cat\nNegative prompt: dog\nSteps: 20, CFG scale: 7.5, CFG rescale: 0.7, Seed: 5, "
        "Size: 16x24, Eta: 0.25, Clip skip: 2"
    )


@pytest.mark.parametrize(
    ("settings", "summary"),
    [
        ({}, "\n"),
        ({"prompt": "a cat"}, "a cat\n"),
        ({"prompt": "a\0b", "seed": 0}, "a\ufffdb\nSeed: 0"),
        ({"negative_prompt": "", "guidance_scale": 0.0}, "\nCFG scale: 0.0"),
        ({"negative_prompt": "dog"}, "\nNegative prompt: dog\n"),
        # diffusers counts layers that are skipped, and A1111 from the end, the last being 1.
        ({"clip_skip": 0}, "\nClip skip: 1"),
        ({"width": 16, "eta": 0.0}, "\nEta: 0.0"),
        ({"width": 16, "height": 24}, "\nSize: 16x24"),
        ({"prompt": "a", "eta": None, "width": None, "height": 8}, "a\n"),
    ],
)
def test_parameters_say_what_is_known(image, settings, summary):
    write_metadata(image, settings)
    assert image.info["parameters"] == summary
    assert read_settings(image) == {
        key: value for key, value in settings.items() if value is not None
    }


@pytest.mark.parametrize("key", sorted(SETTINGS))
def test_any_setting_may_stand_alone(image, key):
    write_metadata(image, {key: SETTINGS[key]})
    assert read_settings(image) == {key: SETTINGS[key]}


def test_metadata_holds_a_prompt_with_control_characters(tmp_path, image):
    write_metadata(image, {"prompt": "a\0b\x1b\x7f\u2028"})
    image.save(tmp_path / "a.png")
    assert read_settings(tmp_path / "a.png") == {"prompt": "a\0b\x1b\x7f\u2028"}


@pytest.mark.parametrize(
    ("settings", "run", "message"),
    [
        ({"promt": "a"}, None, "'promt'"),
        ({"height": 64.0}, None, "height = 64.0"),
        ({"seed": True}, None, "seed = True"),
        ({"guidance_scale": float("nan")}, None, "cannot be written"),
        ({"prompt": "\ud800"}, None, "cannot be written"),
        ({"prompt": "a"}, {"latents": np.zeros(2)}, "cannot be written"),
    ],
)
def test_metadata_that_cannot_be_written_are_refused_and_leave_no_trace(
    image, settings, run, message
):
    with pytest.raises(RequestError, match=message):
        write_metadata(image, settings, run)
    assert image.info == {}


def metadata_text(**changes):
    return json.dumps({"version": 1, "settings": {"prompt": "a"}, "run": {}} | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ("7", "damaged"),
        ("[" * 100_000, "damaged"),
        ('{"version": 1}', "damaged"),
        (metadata_text(settings=[]), "damaged"),
        (metadata_text(version="1"), "damaged"),
        (metadata_text(version=2), "version 2"),
        (metadata_text(version=0), "version 0"),
        (metadata_text(version=True), "damaged"),
        (metadata_text(run=[]), "damaged"),
        (metadata_text(run=None), "damaged"),
        (metadata_text(settings={"callback": "x"}), "unknown 'callback'"),
        (metadata_text(settings={"height": "64"}), "height = '64'"),
    ],
)
def test_damaged_metadata_are_named(tmp_path, image, text, message):
    info = PngInfo()
    info.add_text(METADATA_KEY, text)
    image.save(tmp_path / "x.png", pnginfo=info)
    with pytest.raises(RequestError, match=message):
        read_settings(tmp_path / "x.png")


def test_files_without_our_metadata_are_named(tmp_path, image):
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler a")
    image.save(tmp_path / "foreign.png", pnginfo=info)
    (tmp_path / "text.png").write_text("no picture")
    for name, message in [
        ("foreign.png", "has no metadata"),
        ("text.png", "cannot be read"),
        ("absent.png", "cannot be read"),
    ]:
        with pytest.raises(RequestError, match=rf"{name}.* {message}"):
            read_settings(tmp_path / name)
    with pytest.raises(RequestError, match="the image has no metadata"):
        read_settings(image)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.95])
def test_a_file_cut_short_is_named(tmp_path, image, keep):
    write_metadata(image, SETTINGS)
    save_image(image, tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(content[: int(keep * len(content))])
    with pytest.raises(RequestError, match="cannot be read"):
        read_settings(tmp_path / "x.png")


def test_save_image_does_not_overwrite_unless_told(tmp_path, image):
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    with pytest.raises(RequestError, match="exists already"):
        save_image(image, path)
    assert path.read_bytes() == b"precious"
    save_image(image, path, overwrite=True)
    with Image.open(path) as saved:
        np.testing.assert_array_equal(np.asarray(saved), np.asarray(image))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def refuse_links():
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_appears_while_the_image_is_encoded_is_not_overwritten(
    tmp_path, monkeypatch, has_links
):
    path = tmp_path / "a.png"
    if not has_links:
        monkeypatch.setattr(os, "link", lambda *_: refuse_links())

    class SlowImage(Image.Image):
        """Somebody else writes the file after the first look, and before the last."""

        def copy(self):
            path.write_bytes(b"precious")
            return super().copy()

    for overwrite in (False, True):
        slow = Image.new("RGB", (4, 4))
        slow.__class__ = SlowImage
        path.unlink(missing_ok=True)
        if overwrite:
            save_image(slow, path, overwrite=True)
            assert path.read_bytes() != b"precious"
        else:
            with pytest.raises(RequestError, match="exists already"):
                save_image(slow, path)
            assert path.read_bytes() == b"precious"
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_the_ending_may_be_in_capitals(tmp_path, image):
    save_image(image, tmp_path / "a.PNG")
    with Image.open(tmp_path / "a.PNG") as saved:
        assert saved.format == "PNG"


def test_only_our_texts_are_written(tmp_path, image):
    """What a picture was opened with may hold anything, also what names people or places."""
    write_metadata(image, {"prompt": "x"})
    image.info["Comment"] = "taken at home"
    save_image(image, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert sorted(saved.info) == [METADATA_KEY, "parameters"]


def test_save_image_leaves_nothing_behind_when_it_fails(tmp_path):
    (tmp_path / "a.png").write_bytes(b"precious")
    with pytest.raises(RequestError, match=r"a\.png cannot be written"):
        save_image(Image.new("F", (4, 4)), tmp_path / "a.png", overwrite=True)
    assert (tmp_path / "a.png").read_bytes() == b"precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "a.png"
    images = [Image.new("RGB", (256, 256), colour) for colour in ("red", "blue")]
    for picture in images:
        write_metadata(picture, {"prompt": "x"})
    save_image(images[0], path)

    def rewrite():
        for turn in range(40):
            save_image(images[turn % 2], path, overwrite=True)

    writer = threading.Thread(target=rewrite)
    writer.start()
    while writer.is_alive():
        assert read_settings(path) == {"prompt": "x"}
    writer.join()


def test_save_image_names_an_unusable_path(tmp_path, image):
    with pytest.raises(RequestError, match=r"x\.gif is no picture by its name") as caught:
        save_image(image, tmp_path / "x.gif")
    assert caught.value.allowed == ".png, .webp, .jpg, .jpeg"
    with pytest.raises(RequestError, match=r"no folder .*nowhere"):
        save_image(image, tmp_path / "nowhere" / "x.png")


def test_a_file_that_appears_at_the_last_moment_is_not_overwritten(tmp_path, monkeypatch):
    path, link = tmp_path / "a.png", os.link

    def appear_and_link(*files):
        path.write_bytes(b"precious")
        link(*files)

    monkeypatch.setattr(os, "link", appear_and_link)
    with pytest.raises(RequestError, match="exists already"):
        save_image(Image.new("RGB", (4, 4)), path)
    assert path.read_bytes() == b"precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, ResourceError),
        (errno.EDQUOT, ResourceError),
        (errno.EROFS, RequestError),
        (errno.EACCES, RequestError),
    ],
)
def test_a_full_disk_and_a_used_quota_are_a_lack_of_room(tmp_path, monkeypatch, number, kind):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(kind, match=os.strerror(number)):
        save_image(Image.new("RGB", (4, 4)), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
