"""What one sub-predictor runs on, as options resolve it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class EngineChoice:
    """The choice of an engine for one sub-predictor: the pipeline's, with its own section applied.

    A target is for sub-predictors on a GPU; the others have none. The options of each engine that
    has any are those that were given, by its name. ``pinned_by`` names the option of the
    sub-predictor's own section that gives the precision: then there is no fallback to a safer one.
    """

    engine: str
    device: str
    precision: str
    threads: int | None
    target: str | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pinned_by: str | None = None
    portable_int8: bool = False
