"""Score of a model in the box: right captions, by a judge that looks at pixels only."""

import numpy as np
from PIL import Image

from fastdeploy_diffusion.benchmark.row import Judgement
from fastdeploy_diffusion.benchmark.shapes_judge import COLOURS, Verdict, judge
from fastdeploy_diffusion.picture_quality import Pictures

STEPS, SIDE = 20, 128  # as the test of the models in the box; they were trained at this size
CAPTIONS = 8
_SHAPES = ("circle", "square", "triangle", "star", "ring")
_SIZES = ("small", "large")
_SEED = 20261121


def choose_captions() -> dict[str, Verdict]:
    """Captions, each with what a picture of it shows; always the same ones."""
    random = np.random.default_rng(_SEED)
    chosen: dict[str, Verdict] = {}
    while len(chosen) < CAPTIONS:
        background, colour = random.permutation(list(COLOURS))[:2]
        shape, size = random.choice(_SHAPES), random.choice(_SIZES)
        caption = f"a {size} {colour} {shape} on a {background} background"
        chosen[caption] = Verdict(str(background), str(colour), str(shape), str(size))
    return chosen


def judge_pictures(pictures: Pictures) -> Judgement:
    """Judge (B, H, W, 3) pictures of the chosen captions."""
    wanted = list(choose_captions().values())
    seen = [judge(Image.fromarray(each)) for each in pictures]
    right = sum(one == other for one, other in zip(seen, wanted, strict=True))
    return Judgement(right=right, captions=len(wanted))
