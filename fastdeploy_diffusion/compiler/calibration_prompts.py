"""The prompts that int8 is calibrated with, and those that it is judged by."""

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.text_file import read_text_file

FEWEST, MOST = 5, 1000
_MAX_BYTES = 1 << 20
_HELD_OUT, _EVERY = 8, 5
_OPTION = "calibration_prompts"
_FIX = "32 to calibrate with and 8 to compare are enough: a file of 40 lines"


@dataclass(frozen=True)
class CalibrationPrompts:
    """Prompts of a file.

    Args:
        calibrating: Drawn to record what networks are given.
        held_out: Drawn to compare int8 with float32; none of ``calibrating``.
    """

    calibrating: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Identify the prompts: sha256 (hex)."""
        parts = ("\n".join(self.calibrating), "\n".join(self.held_out))
        return hashlib.sha256("\n\n".join(parts).encode()).hexdigest()


def read_prompts(path: str | None = None) -> CalibrationPrompts:
    """Read a file of one prompt a line; without one, the neutral prompts of the package.

    Empty lines and repeated prompts count once. Every fifth prompt is held out, eight at most.

    Raises:
        ConfigError: It cannot be read, is not UTF-8, or has too few or too many prompts.
    """
    if path is None:
        text = resources.files("fastdeploy_diffusion.configs").joinpath("calibration-prompts.txt")
        lines = text.read_text(encoding="utf-8").splitlines()
    else:
        allowed = f"a text file, one prompt a line, at most {MOST:,} prompts"
        lines = read_text_file(
            Path(path), _MAX_BYTES, ConfigError, owner=f"{_OPTION}: ", allowed=allowed, fix=_FIX
        ).splitlines()
    prompts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not FEWEST <= len(prompts) <= MOST:
        raise ConfigError(
            f"{_OPTION}: {path} has {len(prompts):,} prompts",
            allowed=f"{FEWEST} to {MOST:,} different prompts, one a line",
            fix=_FIX,
        )
    held_out = prompts[_EVERY - 1 :: _EVERY][:_HELD_OUT]
    return CalibrationPrompts(
        tuple(prompt for prompt in prompts if prompt not in held_out), tuple(held_out)
    )
