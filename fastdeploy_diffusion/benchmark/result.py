"""Results of a run, as ``result.json`` keeps them."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fastdeploy_diffusion.benchmark.case import Case, Frozen, Model
from fastdeploy_diffusion.benchmark.roofline.roofline import Roofline
from fastdeploy_diffusion.benchmark.row import Row, Samples
from fastdeploy_diffusion.errors import ConfigError

SCHEMA_VERSION = 1
RESULT_FILE = "result.json"
INTERRUPTED = "interrupted"  # by Ctrl-C: the reason of what is missing then


class Missing(Frozen):
    """A case that was not measured, and why.

    Args:
        samples: What was measured before that; kept, and not shown without its quality.
    """

    case: str
    reason: str
    samples: Samples | None = None


class Comparison(Frozen):
    """Two cases that took turns, so that a busy moment of the machine hit both.

    Args:
        missing: Why it ended before all turns were taken; empty if it did not.
    """

    ours: Case
    theirs: Case
    ours_seconds: tuple[float, ...]
    theirs_seconds: tuple[float, ...]
    missing: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        """Speed-up of ours over theirs, pair by pair."""
        pairs = zip(self.theirs_seconds, self.ours_seconds, strict=True)
        return tuple(theirs / ours for theirs, ours in pairs)


class Ablation(Frozen):
    """A component with a pass, and without: built both ways, proven, timed in turns.

    Args:
        passes: The pass, or ``"all"`` of them together.
        relative_error: With it, from the Paddle float32 layer.
        before: Seconds of one run without it, turn by turn.
        after: Seconds of one run with it, turn by turn.
    """

    case: Case
    component: str
    passes: str
    relative_error: float | None
    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Speed-up by the pass, turn by turn."""
        return tuple(old / new for old, new in zip(self.before, self.after, strict=True))


class BenchmarkResult(Frozen):
    """The results of one run.

    Args:
        started: When, in UTC, ISO 8601.
        machine: As `describe_machine`, with the GPUs and their driver.
        git_revision: Of this library's source; ``None`` where it is no checkout.
        config: The configuration that all own cases share, without paths.
        runs: How many requests were to be timed for each case.
        sweep: What was changed from case to case; ``None`` for nothing.
        rooflines: How far each component is from what the machine can do.
        missing: What was not measured, and why.
        notes: What a reader has to know.
    """

    schema_version: int = SCHEMA_VERSION
    started: str
    machine: dict[str, Any]
    packages: dict[str, str]
    python: str
    git_revision: str | None
    model: Model
    config: dict[str, Any]
    config_digest: str
    runs: int
    sweep: str | None = None
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...] = ()
    ablations: tuple[Ablation, ...] = ()
    rooflines: tuple[Roofline, ...] = ()
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return INTERRUPTED in (
            *(each.missing for each in self.rows),
            *(each.missing for each in self.comparisons),
            *(each.reason for each in self.missing),
        )


def read_result(path: Path) -> BenchmarkResult:
    """Read a ``result.json``, or the one in a report folder.

    Raises:
        ConfigError: There is none, or it is not a result of this version.
    """
    file = path / RESULT_FILE if path.is_dir() else path
    try:
        result = BenchmarkResult.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}",
            allowed=f"a {RESULT_FILE} that `bench` wrote, or its folder",
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"{file} is no result of a benchmark: {where}: {first['msg']}",
            allowed=f"a {RESULT_FILE} that `bench` wrote",
        ) from None
    if result.schema_version != SCHEMA_VERSION:
        raise ConfigError(
            f"{file} has the schema version {result.schema_version}",
            allowed=str(SCHEMA_VERSION),
            fix="measure again with this version",
        )
    return result
