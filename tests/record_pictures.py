"""The pictures that the models in the box are known to draw, in ``tests/recorded``.

``python tests/record_pictures.py`` draws them again, by the Paddle layers in float32 and without
passes: to be done when the weights in the box change, and not to please a test.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.pipelines.opening import open_pipeline

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from shapes.scoring import choose_scenes
from shapes.world import Scene

MODELS = ("shapes", "flux-shapes")
FOLDER = Path(__file__).parent / "recorded"
# Of the 200 captions that the models are judged by: 20, half held out, half in each language.
SEEDS = sorted([*range(0, 200, 20), *range(5, 200, 20)])
COLUMNS, SIZE = 5, 128
SETTINGS = {"num_inference_steps": 20}


def choose_captions() -> tuple[list[Scene], list[str]]:
    """Choose a scene for each seed; give them and their captions."""
    scenes = choose_scenes()
    chosen = [scenes[seed] for seed in SEEDS]
    return [scene for scene, _ in chosen], [scene.caption(language) for scene, language in chosen]


def read_pictures(model: str) -> list[Image.Image]:
    """Cut the sheet of a model into its pictures."""
    with Image.open(FOLDER / f"{model}.png") as sheet:
        return [sheet.crop(place) for place in _list_places()]


def record(model: str) -> None:
    """Draw the sheet of a model."""
    config = DiffusionConfig.from_preset(model, engine="paddle-eager", passes=[])
    pictures = open_pipeline(config).text_to_image(choose_captions()[1], seed=SEEDS, **SETTINGS)
    places = list(_list_places())
    sheet = Image.new("RGB", places[-1][2:])
    for picture, place in zip(pictures, places, strict=True):
        sheet.paste(picture, place)
    FOLDER.mkdir(exist_ok=True)
    sheet.save(FOLDER / f"{model}.png", optimize=True)


def _list_places() -> Iterator[tuple[int, int, int, int]]:
    for index in range(len(SEEDS)):
        row, column = divmod(index, COLUMNS)
        yield column * SIZE, row * SIZE, (column + 1) * SIZE, (row + 1) * SIZE


if __name__ == "__main__":
    for name in MODELS:
        record(name)
