import numpy as np
from PIL import Image, ImageDraw

from fastdeploy_diffusion.benchmark.shapes_judge import COLOURS
from fastdeploy_diffusion.benchmark.shapes_score import CAPTIONS, choose_captions, judge_pictures


def draw_easy_shapes():
    """Circles, rings and squares as the captions say; squares for everything else."""
    pictures = []
    for verdict in choose_captions().values():
        image = Image.new("RGB", (128, 128), COLOURS[verdict.background])
        radius = 40 if verdict.size == "large" else 20
        box = [64 - radius, 64 - radius, 64 + radius, 64 + radius]
        pen = ImageDraw.Draw(image)
        if verdict.shape == "circle":
            pen.ellipse(box, fill=COLOURS[verdict.colour])
        elif verdict.shape == "ring":
            pen.ellipse(box, outline=COLOURS[verdict.colour], width=radius // 2)
        else:
            pen.rectangle(box, fill=COLOURS[verdict.colour])
        pictures.append(np.asarray(image))
    return np.stack(pictures)


def test_captions_are_always_the_same_and_name_what_they_show():
    captions = choose_captions()
    assert captions == choose_captions()
    assert len(captions) == CAPTIONS
    for caption, verdict in captions.items():
        assert caption == (
            f"a {verdict.size} {verdict.colour} {verdict.shape} on a {verdict.background} "
            "background"
        )
        assert verdict.colour != verdict.background


def test_right_pictures_count_and_wrong_ones_do_not():
    easy = [each.shape in ("circle", "ring", "square") for each in choose_captions().values()]
    found = judge_pictures(draw_easy_shapes())
    assert (found.right, found.captions) == (sum(easy), CAPTIONS)
    assert 0 < sum(easy) < CAPTIONS
    assert judge_pictures(draw_easy_shapes()[::-1]).right < sum(easy)
