"""Paddle Inference with CINN, Paddle's compiler, which makes one kernel of many operators."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import Availability, BuildSpec
from fastdeploy_diffusion.engines.paddle import PaddleEngine
from fastdeploy_diffusion.engines.paddle_devices import probe_paddle
from fastdeploy_diffusion.precision import FLOATS
from fastdeploy_diffusion.runtime.cache import CINN_KERNELS


class CINNEngine(PaddleEngine):
    """Compiles the builds of ``paddle`` on load; not run yet, for want of a wheel with CINN.

    CINN compiles for the one architecture that its Paddle is built for, which is NVIDIA's GPUs.
    """

    name: ClassVar[str] = "cinn"
    precisions: ClassVar[Mapping[str, tuple[str, ...]]] = {"gpu": FLOATS}

    def _probe_run(self, device: Device) -> Availability:
        return probe_paddle(device, needs_cinn=True)

    def _configure(self, config: Any, spec: BuildSpec) -> None:
        from fastdeploy_diffusion.paddle_runtime import paddle

        super()._configure(config, spec)
        capability = paddle.device.cuda.get_device_capability(spec.device.index)
        keep_kernels(spec.notes, f"sm{capability[0]}{capability[1]}")
        config.enable_cinn()


def keep_kernels(notes: Path | None, gpu: str) -> None:
    """Keep the kernels that CINN compiles for the next start.

    The names that it gives to kernels hold neither its version nor the GPU, so the folder's does.
    It links each with ``g++``; without, it would fail.

    Args:
        notes: Parent of the folder of kernels; ``None`` to keep none.
    """
    from fastdeploy_diffusion.paddle_runtime import paddle

    folder = None
    if notes is not None and shutil.which("g++"):
        folder = _make_folder(notes / CINN_KERNELS / f"{paddle.__version__}-{gpu}")
    # Flags of the whole process: each load sets them for itself.
    paddle.set_flags({"FLAGS_enable_cinn_kernel_cache": folder is not None})
    if folder is not None:
        paddle.set_flags({"FLAGS_cinn_kernel_cache_save_path": str(folder)})


def _make_folder(folder: Path) -> Path | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
