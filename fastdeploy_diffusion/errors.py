"""The errors of the library: what is wrong, what is allowed, what to do."""

from pathlib import Path
from typing import ClassVar


class DiffusionError(Exception):
    """Base of all errors of this library.

    Args:
        problem: The value that was given, and why it cannot be used.
        allowed: The values that are accepted.
        fix: What to do about it, ideally a command or an edit.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, *, allowed: str = "", fix: str = "") -> None:
        self.problem = problem
        self.allowed = allowed
        self.fix = fix
        super().__init__(problem, allowed, fix)

    @property
    def in_one_line(self) -> str:
        """Problem and fix on one line, for warnings."""
        allowed = self.allowed and f"allowed: {self.allowed}"
        return "; ".join(each for each in (self.problem, allowed, self.fix) if each)

    def __str__(self) -> str:
        lines = [self.problem]
        if self.allowed:
            lines.append(f"  allowed: {self.allowed}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class BadInputError(DiffusionError):
    """The caller's input cannot be used; the CLI ends with exit code 2."""

    exit_code: ClassVar[int] = 2


class ConfigError(BadInputError):
    """A configuration (keyword, YAML, preset, command line) is not valid."""


class RequestError(BadInputError):
    """A text-to-image request (prompt, size, steps, latents …) cannot be served."""


class UnknownAttributeError(BadInputError, AttributeError):
    """A pipeline has no such attribute; for a name of diffusers, the fix is what to write here."""


class CheckpointError(BadInputError):
    """A checkpoint is missing, damaged, unsafe or does not fit the model."""


class AdapterError(BadInputError):
    """A LoRA is missing, of another family, or cannot be bound to what is built."""


class UnsupportedModelError(BadInputError):
    """A model's config asks for a behaviour that is not implemented; the message names the key."""


class EngineError(DiffusionError):
    """An engine failed while building, loading or running a component."""


class EngineUnavailableError(EngineError):
    """The engine or device asked for cannot run on this machine."""


class NonFiniteError(EngineError):
    """An engine returned NaN or infinity."""


class AccuracyError(EngineError):
    """An engine's output differs from the Paddle layer by more than the tolerance.

    Args:
        relative_error: How far it is, as a share of the layer's output.
        rounding_error: That of the layer itself, rounded to the precision; ``None`` if the
            criterion does not ask for it.
    """

    def __init__(
        self,
        problem: str,
        *,
        relative_error: float,
        rounding_error: float | None = None,
        allowed: str = "",
        fix: str = "",
    ) -> None:
        super().__init__(problem, allowed=allowed, fix=fix)
        self.relative_error = relative_error
        self.rounding_error = rounding_error


class PassError(DiffusionError):
    """A pass cannot be loaded, or does not do to a network what it promises."""


class CacheError(DiffusionError):
    """The folder of kept builds cannot be read or written."""


class ResourceError(DiffusionError):
    """The machine has too little memory or disk space for what was asked for."""


class DiskFullError(ResourceError):
    """The disk of a folder is full.

    Args:
        shortage: The lacking resource, in words that "in a folder" may follow.
    """

    def __init__(self, what: str, folder: Path, shortage: str, *, fix: str = "") -> None:
        super().__init__(f"{what}: {shortage} in {folder}", fix=fix)
        self.folder = folder
        self.shortage = shortage


class CancelledError(DiffusionError):
    """The caller stopped the generation between two steps."""
