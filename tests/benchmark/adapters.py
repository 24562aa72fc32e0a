"""Adapters of a few lines, as peers bring them: real processes that draw almost nothing."""

from pathlib import Path

PAINTER = """
import os, signal, sys, time
import numpy as np

print("runtimes print what they like")

class Painter:
    keeps_builds = False

    def __init__(self, task):
        self.task, self.drawn = task, 0
        {load}

    def describe(self):
        return {{"version": "1.0", "threads": self.task["threads"]}}

    def draw(self, prompts, seeds, steps):
        self.drawn += 1
        {draw}
        time.sleep(0.002 * steps)
        shape = (len(prompts), self.task["height"], self.task["width"], 3)
        pictures = np.random.default_rng(seeds[0]).integers(0, 256, shape, np.uint8)
        return pictures, {{"text_encoder": 0.001, "step": [0.002] * steps, "vae_decoder": 0.001}}
"""


def write_adapter(folder: Path, *, load: str = "pass", draw: str = "pass") -> Path:
    """Write an adapter that does something more when it loads, or when it draws."""
    file = folder / "adapter.py"
    file.write_text(PAINTER.format(load=load, draw=draw))
    return file
