"""What becomes of a mutant: opened, drawn with, or refused by an error of the library."""

import random
import resource
import shutil
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mutants import Mutant, restore, spoil
from subjects import SUBJECTS

from fastdeploy_diffusion import DiffusionConfig, DiffusionError
from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.pipelines.opening import open_pipeline

SECONDS = 10
# What one mutant may add to the largest memory of the process: its model has a few MiB.
MEMORY = 512 * 2**20
_PROMPT = "a red circle, 猫 ﬁ Ａ\u0301 \U000f0000 <pad> </s>"


@dataclass(frozen=True)
class Attempt:
    """How a mutant ended.

    Attributes:
        seed: Makes the same mutant again.
        subject: The model.
        mutant: What was done to it.
        outcome: ``opened``, ``drawn``, the name of the error, ``hang`` or ``memory``.
        is_right: Whether that is allowed.
        seconds: Of the processor that it took.
        details: The message, or the traceback of an error that must not be.
    """

    seed: int
    subject: str
    mutant: Mutant
    outcome: str
    is_right: bool
    seconds: float
    details: str


class Attempts:
    """Makes mutants of models in a folder of its own, one at a time.

    Args:
        folder: Empty.
        subjects: Names of the models; all if left out.
    """

    def __init__(self, folder: Path, subjects: tuple[str, ...] = tuple(SUBJECTS)) -> None:
        self._subjects = subjects
        self._originals, self._copies = folder / "originals", folder / "copies"
        self._originals.mkdir()
        for name in subjects:
            SUBJECTS[name](self._originals / name)
            shutil.copytree(self._originals / name, self._copies / name)

    def run(self, seed: int) -> Attempt:
        """Make the mutant of a seed, try it, and mend the model again."""
        chance = random.Random(f"attempt {seed}")
        subject = chance.choice(self._subjects)
        copy = self._copies / subject
        mutant = spoil(copy, seed)
        started, before = time.process_time(), _peak_memory()
        try:
            outcome, is_right, details = _judge(subject, copy, mutant, chance)
        finally:
            restore(copy, self._originals / subject, mutant.file)
        if _peak_memory() - before > MEMORY:
            outcome, is_right = "memory", False
        seconds = time.process_time() - started
        return Attempt(seed, subject, mutant, outcome, is_right, seconds, details)


class HangError(BaseException):
    """The time is over; no ``except Exception`` may take it for something else."""


def _judge(
    subject: str, folder: Path, mutant: Mutant, chance: random.Random
) -> tuple[str, bool, str]:
    try:
        with _time_limit(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)  # numpy's, of numbers that are none
            return _try(subject, folder, mutant, chance), True, ""
    except DiffusionError as error:
        return type(error).__name__, True, str(error)[:1000]
    except HangError:
        return "hang", False, traceback.format_exc(limit=-8)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # panics of Rust are no Exception
        return type(error).__name__, False, traceback.format_exc(limit=-8)[-4000:]


def _try(subject: str, folder: Path, mutant: Mutant, chance: random.Random) -> str:
    if subject == "yaml":
        DiffusionConfig.from_yaml(folder / mutant.file, model_path="model")
        return "opened"
    if subject == "single file":
        open_checkpoint(folder / "model.safetensors")
        return "opened"
    pipeline = open_pipeline(
        DiffusionConfig(model_path=folder, engine="paddle-eager", cache=False, threads=1)
    )
    # Weights show what they are when they are read, and tokenizers when they read.
    is_drawn = chance.random() < (0.3 if "tokenizer" in mutant.file else 0.1)
    if not is_drawn:
        return "opened"
    pipeline.text_to_image(_PROMPT, height=64, width=64, num_inference_steps=2, seed=0)
    return "drawn"


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise HangError

    # Of the processor, so that a busy machine hangs nothing; what waits for ever uses none.
    limits = {
        signal.ITIMER_PROF: (signal.SIGPROF, SECONDS),
        signal.ITIMER_REAL: (signal.SIGALRM, 10 * SECONDS),
    }
    before = {number: signal.signal(number, stop) for number, _ in limits.values()}
    for timer, (_, seconds) in limits.items():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in limits:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
