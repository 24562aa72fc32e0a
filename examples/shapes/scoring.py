"""The captions that a trained model is judged by, and when a picture of one is right."""

import numpy as np

from fastdeploy_diffusion.benchmark.shapes_judge import Verdict
from shapes.world import Scene, all_scenes

PROMPTS = 200


def choose_scenes() -> list[tuple[Scene, str]]:
    """Choose scenes with a language each: half held out of training, both halves in both languages.

    Always the same ones.
    """
    random = np.random.default_rng(20261121)
    scenes = all_scenes()
    chosen = []
    for held_out in (True, False):
        half = [scene for scene in scenes if scene.is_held_out is held_out]
        for index, place in enumerate(random.permutation(len(half))[: PROMPTS // 2]):
            chosen.append((half[place], ("en", "zh")[index % 2]))
    return chosen


def is_right(scene: Scene, verdict: Verdict) -> bool:
    """Background, colour and shape as the caption says; the size where it says one."""
    wanted = (scene.background, scene.colour, scene.shape)
    seen = (verdict.background, verdict.colour, verdict.shape)
    return seen == wanted and scene.size in ("", verdict.size)
