"""The prompts that int8 is calibrated with, and those that it is judged by."""

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from fastdeploy_diffusion.errors import ConfigError

FEWEST, MOST = 5, 1000
_MAX_BYTES = 1 << 20
_HELD_OUT, _EVERY = 8, 5
_OPTION = "calibration_prompts"


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
        lines = _read(Path(path)).splitlines()
    prompts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not FEWEST <= len(prompts) <= MOST:
        raise ConfigError(
            f"{_OPTION}: {path} has {len(prompts):,} prompts",
            allowed=f"{FEWEST} to {MOST:,} different prompts, one a line",
            fix="32 to calibrate with and 8 to compare are enough: a file of 40 lines",
        )
    held_out = prompts[_EVERY - 1 :: _EVERY][:_HELD_OUT]
    return CalibrationPrompts(
        tuple(prompt for prompt in prompts if prompt not in held_out), tuple(held_out)
    )


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{_OPTION}: {path} cannot be read: {error.strerror or error}",
            allowed="a text file, one prompt a line",
            fix="leave the option out for the prompts of the package",
        ) from error
    if len(content) > _MAX_BYTES:
        raise ConfigError(
            f"{_OPTION}: {path} is too large",
            allowed=f"at most {_MAX_BYTES:,} bytes, and {MOST:,} prompts",
            fix="32 to calibrate with and 8 to compare are enough: a file of 40 lines",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{_OPTION}: {path}, line {line}, is not UTF-8",
            allowed="a text file in UTF-8, one prompt a line",
            fix=f"iconv -t utf-8 {path}",
        ) from error
