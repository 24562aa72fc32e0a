"""TensorRT's timing cache: kernel times, kept so that a later build need not measure again."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.runtime.cache import TENSORRT_TIMINGS
from fastdeploy_diffusion.whole_file import write_whole


class TimingCache:
    """A file of kernel times, of one version of TensorRT on one kind of GPU.

    It changes how long a build takes and, within the noise of such measurements, which kernels it
    chooses; so it is no part of a build's key, and an unreadable or unwritable file is ignored.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def attach(self, config: Any) -> None:
        """Load the timing cache into a builder's configuration."""
        try:
            known = self.path.read_bytes()
        except OSError:
            known = b""
        # Refused where it is of another version or GPU: then the builder begins anew.
        if not config.set_timing_cache(config.create_timing_cache(known), False):
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def keep(self, config: Any) -> None:
        """Write the timing cache after a build; of several processes the last one wins."""
        found = memoryview(config.get_timing_cache().serialize())
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, found)


def find_timings(trt: Any, notes: Path | None, gpu: str) -> TimingCache | None:
    """Find the timing cache of a GPU; ``None`` for TensorRT-RTX, which times no kernels.

    Args:
        notes: Its folder; ``None`` to keep none.
    """
    if notes is None or trt.__name__ == "tensorrt_rtx":
        return None
    return TimingCache(notes / TENSORRT_TIMINGS / f"{trt.__version__}-{gpu}")
