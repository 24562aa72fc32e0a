"""A peer of a few lines, as others bring them: a real process that draws almost nothing."""

import sys
from pathlib import Path

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.benchmark.case import Case, Model, Work
from fastdeploy_diffusion.benchmark.peers import Peer
from fastdeploy_diffusion.benchmark.plan import BenchmarkPlan

WORK = Work(
    prompt="a star", seed=3, width=24, height=16, batch=2, steps=2, guidance_scale=4, threads=1
)

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


def make_case(painter="painted", precision="fp32"):
    return Case(painter=painter, engine=painter, device="cpu", precision=precision, work=WORK)


def make_plan(adapter, cases=(), runs=3, time_limit=60):
    return BenchmarkPlan(
        config=DiffusionConfig(model_path="nowhere"),
        model=Model(name="nowhere", digest="0"),
        family="sd1",
        cases=tuple(cases),
        missing=(),
        peers=(Peer("painted", adapter, sys.executable),),
        runs=runs,
        ablation=False,
        time_limit=time_limit,
        is_shapes=False,
    )
