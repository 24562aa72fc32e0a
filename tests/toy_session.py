"""A session without an engine: what it computes is a function of numpy arrays."""

import threading

import numpy as np

from fastdeploy_diffusion.runtime.program import Program, Signature, TensorSpec
from fastdeploy_diffusion.runtime.session import OperatorTime, Session

SIGNATURE = Signature(
    (TensorSpec("sample", (2, 3), "float32"), TensorSpec("ids", (2,), "int64")),
    (TensorSpec("output", (2, 3), "float32"),),
)

# Of a denoiser, whose rows are conditioned; ids are shared by the rows of a batch.
DENOISER = Signature(
    (
        TensorSpec("sample", (None, 3), "float32"),
        TensorSpec("text", (None, 2), "float32"),
        TensorSpec("timestep", (None,), "float32"),
        TensorSpec("ids", (4,), "int64"),
    ),
    (TensorSpec("prediction", (None, 3), "float32"),),
)


def denoise(sample, text, timestep, ids):
    """What a toy denoiser computes: every input has its say in every row."""
    told = timestep + text.sum(axis=1) + ids.sum()
    return {"prediction": sample * told[:, None].astype(np.float32)}


class ToySession(Session):
    """Runs ``compute`` on its feeds, and says when it is entered and how often it was closed.

    Attributes:
        runs: The feeds of each run.
        compiled: The sizes that it was compiled for.
        closed: How often the engine's own part was freed.
        entered: Set while a run is going on.
        may_leave: A run that has begun waits for it.
        overlaps: How often a run, or the end, began while another run was going on.
    """

    def __init__(self, compute=lambda sample, ids: {"output": 2 * sample}, signature=SIGNATURE):
        super().__init__("toy", Program("part", None, *signature))
        self._compute = compute
        self.runs = []
        self.compiled = []
        self.closed = 0
        self.overlaps = 0
        self.entered = threading.Event()
        self.may_leave = threading.Event()
        self.may_leave.set()

    def _run(self, feeds):
        self._enter()
        self.runs.append(dict(feeds))
        try:
            assert self.may_leave.wait(20)
            return self._compute(**feeds)
        finally:
            self.entered.clear()

    def _compile(self, sizes):
        self._enter()
        try:
            assert self.may_leave.wait(20)
            self.compiled.append(dict(sizes))
        finally:
            self.entered.clear()

    def _profile(self, feeds):
        self._enter()
        self.entered.clear()
        return [OperatorTime("all", "Toy", self._compute(**feeds)["output"].sum())]

    def _close(self):
        self._enter()
        self.entered.clear()
        self.closed += 1

    def _enter(self):
        self.overlaps += self.entered.is_set()
        self.entered.set()


def draw(seed=0):
    """Inputs of the signature."""
    random = np.random.default_rng(seed)
    return {
        "sample": random.standard_normal((2, 3)).astype("float32"),
        "ids": random.integers(0, 9, 2),
    }


def draw_conditioning(seed=0):
    """The conditioning of one row of a toy denoiser."""
    random = np.random.default_rng(seed)
    return {"text": random.standard_normal((1, 2)).astype("float32"), "ids": np.arange(4)}
