"""The measurements of one case, and the quality of its pictures."""

from typing import Any

import numpy as np
from pydantic import Field

from fastdeploy_diffusion.benchmark.case import Case, Frozen

STAGES = ("text_encoder", "prologue", "step", "vae_decoder", "post_processing")


class Samples(Frozen):
    """Raw figures of one case, in seconds and bytes; ``None`` or empty if not measured.

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
    """Number of captions that were drawn right."""

    right: int
    captions: int


class Quality(Frozen):
    """Difference from the picture of the Paddle float32 layers for the same seed.

    Args:
        psnr: In dB, of the worst picture; ``None`` if all are identical.
        ssim: Of the worst picture.
        relative_errors: Of each component, where it was proven; a peer proves none.
    """

    psnr: float | None
    ssim: float
    relative_errors: dict[str, float | None]
    judgement: Judgement | None = None


class Row(Frozen):
    """A case that was measured, and how good its pictures are: without that there is no row.

    Args:
        settings: What the process says of itself: versions, engines, passes, keys of builds.
        missing: Why it ended before all was measured; empty if it did not.
    """

    case: Case
    samples: Samples
    quality: Quality
    settings: dict[str, Any]
    missing: str = ""
