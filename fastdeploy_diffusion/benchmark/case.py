"""Cases: a piece of work, and the program that does it."""

from typing import Any

from pydantic import BaseModel, ConfigDict

OWN = "fastdeploy-diffusion"


class Frozen(BaseModel):
    """Base of everything that a result file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Work(Frozen):
    """A request, of a size in pixels; the same for all that are compared.

    Args:
        seed: Of the first picture; the next one's is one more.
        guidance_scale: Weight of the prompt; ``None`` for a model that takes none.
    """

    prompt: str
    seed: int
    width: int
    height: int
    batch: int
    steps: int
    guidance_scale: float | None
    threads: int

    def __str__(self) -> str:
        pictures = f", batch {self.batch}" if self.batch > 1 else ""
        steps = "1 step" if self.steps == 1 else f"{self.steps} steps"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.width} x {self.height}{pictures}, {steps}, {threads}"

    @property
    def seeds(self) -> list[int]:
        """Seeds of the pictures, one each."""
        return [self.seed + index for index in range(self.batch)]


class Case(Frozen):
    """One row: who draws, on what.

    Args:
        painter: ``fastdeploy-diffusion``, or the name of a peer.
        engine: What runs the networks; for a peer, its own name.
    """

    painter: str
    engine: str
    device: str
    precision: str
    work: Work

    @property
    def is_own(self) -> bool:
        """Whether this library draws."""
        return self.painter == OWN

    @property
    def is_calibrated(self) -> bool:
        """Whether a peer quantises for it, and needs recorded inputs."""
        return not self.is_own and self.precision.startswith("int8")

    @property
    def name(self) -> str:
        """A short name for tables: ``openvino fp32``."""
        where = "" if self.device == "cpu" else f" {self.device}"
        return f"{self.engine} {self.precision}{where}"

    def __str__(self) -> str:
        return f"{self.name}, {self.work}"


class Model(Frozen):
    """The checkpoint that everyone draws with; a result can be shown to others, so no path.

    Args:
        digest: The sha256 of all weights.
        random_weights: How its weights were drawn; ``None`` if they were trained.
    """

    name: str
    digest: str
    random_weights: str | None = None


class Task(Frozen):
    """The settings that a child process opens with.

    Args:
        config: A `DiffusionConfig`, for this library's own pipeline.
        model_path: The checkpoint, for peers.
        family: Of the checkpoint: ``"sd1"``, ``"sd2"``, ``"sdxl"`` or ``"flux"``.
        scheduler: Name of its class in diffusers; ``None`` for the checkpoint's own.
        guidance_scale: Weight of the prompt; ``None`` for a model that takes none.
        max_sequence_length: Tokens that T5 reads; ``None`` for as many as the model's own.
        cache_dir: Where a peer may keep what it makes of the checkpoint; for this case alone.
        calibration: Folder of recorded inputs (`compiler.calibration`), for a peer that quantises.
    """

    config: dict[str, Any]
    model_path: str
    family: str
    scheduler: str | None
    precision: str
    device: str
    width: int
    height: int
    guidance_scale: float | None
    max_sequence_length: int | None
    threads: int
    cache_dir: str
    calibration: str | None = None
