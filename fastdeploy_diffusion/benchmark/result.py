"""What a run has found, as ``result.json`` keeps it."""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from fastdeploy_diffusion.benchmark.case import Case, Frozen, Model
from fastdeploy_diffusion.errors import ConfigError

SCHEMA_VERSION = 1
RESULT_FILE = "result.json"
INTERRUPTED = "interrupted"  # by Ctrl-C: the reason of what is missing then
STAGES = ("text_encoder", "prologue", "step", "vae_decoder", "post_processing")


class Samples(Frozen):
    """Raw figures of one case, in seconds and bytes; ``None`` or empty where nobody could measure.

    Args:
        import_seconds: Of the adapter and all that it imports.
        load_cold_seconds: With an empty cache of builds; ``None`` where no build is kept.
        load_warm_seconds: With the builds of the cold start.
        first_picture_seconds: The first request after loading.
        pictures: Of each later request, whole.
        stages: Of each stage in ``STAGES``, request after request; ``step`` has every step.
        peak_bytes: Most resident memory of the process, loading included.
        steady_bytes: Resident memory after the last request.
        device_bytes: Memory on the GPU after the last request.
        os_threads: Threads of the process.
        joules: Of each request, of the whole processor package, while only this case ran.
    """

    import_seconds: float | None = None
    load_cold_seconds: float | None = None
    load_warm_seconds: float | None = None
    first_picture_seconds: float | None = None
    pictures: tuple[float, ...] = ()
    stages: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    peak_bytes: int | None = None
    steady_bytes: int | None = None
    device_bytes: int | None = None
    os_threads: int | None = None
    joules: float | None = None

    def stage_per_picture(self, stage: str) -> tuple[float, ...]:
        """Seconds of a stage in each request; all its steps together."""
        seconds = self.stages.get(stage, ())
        if stage != "step" or not self.pictures:
            return seconds
        return tuple(np.reshape(seconds, (len(self.pictures), -1)).sum(axis=1).tolist())


class Judgement(Frozen):
    """How many pictures show what their captions say."""

    right: int
    captions: int


class Quality(Frozen):
    """How far what was drawn is from the Paddle float32 layers' picture of the same seed.

    Args:
        psnr: In dB, of the worst picture; ``None`` if all are identical.
        ssim: Of the worst picture.
        relative_errors: Of each component, where it was proven; a peer proves none.
        judgement: For the model in the box.
    """

    psnr: float | None
    ssim: float
    relative_errors: dict[str, float | None]
    judgement: Judgement | None = None


class Row(Frozen):
    """A case that was measured, and how good its pictures are: without that there is no row.

    Args:
        case: Who drew what.
        samples: What it took.
        quality: What it was worth.
        settings: What the process says of itself: versions, engines, passes, keys of builds.
        missing: Why it ended before all was measured; empty if it did not.
    """

    case: Case
    samples: Samples
    quality: Quality
    settings: dict[str, Any]
    missing: str = ""


class Missing(Frozen):
    """A case without a row.

    Args:
        case: What was to be measured, in words.
        reason: Why it was not.
        samples: What was measured before that; kept, and not shown without its quality.
    """

    case: str
    reason: str
    samples: Samples | None = None


class Comparison(Frozen):
    """Two cases that took turns, so that a busy moment of the machine hit both.

    Args:
        ours: This library's case.
        theirs: The peer's.
        ours_seconds: Of a picture, turn by turn.
        theirs_seconds: Of a picture, turn by turn.
        missing: Why it ended before all turns were taken; empty if it did not.
    """

    ours: Case
    theirs: Case
    ours_seconds: tuple[float, ...]
    theirs_seconds: tuple[float, ...]
    missing: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times as fast ours was, pair by pair."""
        pairs = zip(self.theirs_seconds, self.ours_seconds, strict=True)
        return tuple(theirs / ours for theirs, ours in pairs)


class Ablation(Frozen):
    """A component with a pass, and without: built both ways, proven, timed in turns.

    Args:
        case: On what it ran.
        component: The component.
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
        """How many times as fast it became, turn by turn."""
        return tuple(old / new for old, new in zip(self.before, self.after, strict=True))


class BenchmarkResult(Frozen):
    """One run.

    Args:
        schema_version: Of this file.
        started: When, in UTC, ISO 8601.
        machine: As `describe_machine`, with the GPUs and their driver.
        packages: Versions by name.
        python: Version.
        git_revision: Of this library's source; ``None`` where it is no checkout.
        model: What draws.
        config: The configuration that all own cases share.
        config_digest: Its digest.
        runs: How many requests were to be timed for each case.
        rows: What was measured.
        comparisons: What was measured in turns.
        ablations: What each pass does to each component.
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
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...] = ()
    ablations: tuple[Ablation, ...] = ()
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
