"""The captions and edges that trained models are judged by, and when a picture is right."""

import numpy as np
from PIL import Image

from fastdeploy_diffusion.benchmark.shapes_judge import Verdict, fill_holes
from shapes.world import Placement, Scene, all_scenes, cover, draw_edges, place_object

PROMPTS = 200
MAPS = 100
LEAST_OVERLAP, CLOSE_OVERLAP = 0.5, 0.75


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


def choose_placed_scenes() -> list[tuple[Scene, str, Placement]]:
    """Choose scenes as `choose_scenes`, without a size, and a place for the object of each."""
    random = np.random.default_rng(20261130)
    scenes = [scene for scene in all_scenes() if not scene.size]
    chosen = []
    for held_out in (True, False):
        half = [scene for scene in scenes if scene.is_held_out is held_out]
        for index, row in enumerate(random.permutation(len(half))[: MAPS // 2]):
            chosen.append((half[row], ("en", "zh")[index % 2], place_object(random)))
    return chosen


def draw_map(shape: str, place: Placement) -> Image.Image:
    """Draw the edges of an object as a control picture, white on black."""
    return Image.fromarray((255 * draw_edges(shape, place)).round().astype(np.uint8))


def measure_overlap(shape: str, place: Placement, found: np.ndarray) -> float:
    """The share of the pixels in either object that are in both, from 0 to 1; holes count.

    Args:
        found: The pixels of the object in a picture, (128, 128) bool.
    """
    wanted = fill_holes(cover(shape, place))
    return float((wanted & found).sum() / (wanted | found).sum())
