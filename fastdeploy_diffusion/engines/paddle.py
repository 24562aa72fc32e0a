"""Paddle Inference on the exported PIR program: the engine that needs nothing but Paddle."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import Availability, BuildSpec, Engine
from fastdeploy_diffusion.engines.paddle_devices import probe_paddle
from fastdeploy_diffusion.engines.paddle_thread import PaddleThread, give_back, take_thread
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.precision import FLOATS
from fastdeploy_diffusion.runtime.manifest import PROGRAM_FILE, WEIGHTS_FILE, check_manifest
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.session import Session

# oneDNN's convolutions are up to twice as fast as Paddle's own. Nothing else of oneDNN is used: its
# default passes, also without the three best known wrong ones, give wrong numbers (convolution,
# reshape, transpose, linear: error 100 %) or fail (transpose, reshape, linear, ReLU) on ordinary
# blocks, and gain at most 8 % over these two (a transformer block; nothing elsewhere). Naming what
# may run, not what may not, also keeps out the passes that a newer Paddle adds.
ONEDNN_PASSES = ("conv2d_bias_fuse_pass", "conv2d_transpose_bias_fuse_pass")

GPU_POOL_MB = 256
# It comes after the others, and goes on unless it is deleted.
LAYOUT_PASS = "transfer_layout_pass"


class PaddleEngine(Engine):
    """Paddle Inference. Its GPU and XPU sides follow its documentation: not run on one yet."""

    name: ClassVar[str] = "paddle"
    # Paddle's kernels of half precision are for GPUs only.
    precisions: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "cpu": ("fp32",),
        "gpu": FLOATS,
        "xpu": ("fp32",),
    }
    artifact_depends_on: ClassVar[frozenset[str]] = frozenset({"weights"})
    packages: ClassVar[tuple[str, ...]] = ("paddlepaddle", "paddlepaddle-gpu", "paddlepaddle-xpu")
    held_features: ClassVar[float] = 2.5
    held_scores: ClassVar[float] = 2.0

    def _probe_run(self, device: Device) -> Availability:
        return probe_paddle(device)

    def _build(self, program: Program, spec: BuildSpec, out: Path) -> None:
        from fastdeploy_diffusion.export.pir import export_program

        export_program(program, out)

    def _load(self, program: Program, spec: BuildSpec, artifact: Path) -> Session:
        from fastdeploy_diffusion.paddle_runtime import paddle

        check_manifest(program, artifact)
        config = paddle.inference.Config(str(artifact / PROGRAM_FILE), str(artifact / WEIGHTS_FILE))
        self._configure(config, spec)
        return _PaddleSession(self.name, program, lambda: paddle.inference.create_predictor(config))

    def _configure(self, config: Any, spec: BuildSpec) -> None:
        """Set up Paddle Inference's ``Config`` for a spec."""
        config.disable_glog_info()
        config.enable_new_executor()
        config.enable_new_ir()
        config.set_cpu_math_library_num_threads(spec.cpu_threads)
        {"cpu": _configure_cpu, "gpu": _configure_gpu, "xpu": _configure_xpu}[spec.device.kind](
            config, spec
        )


def _configure_cpu(config: Any, spec: BuildSpec) -> None:
    # oneDNN with Paddle's own choice of passes is on by default, and wrong.
    config.enable_mkldnn()
    config.enable_custom_passes(list(ONEDNN_PASSES), True)
    # With oneDNN's default passes it overwrites a tensor that is read later (concat([cos, sin])).
    # With these two no error was seen; it stays out because nothing says that there is none.
    config.delete_pass("inplace_pass")


def _configure_gpu(config: Any, spec: BuildSpec) -> None:
    from fastdeploy_diffusion.paddle_runtime import paddle

    precision = {
        "fp32": paddle.inference.PrecisionType.Float32,
        "fp16": paddle.inference.PrecisionType.Half,
        "bf16": paddle.inference.PrecisionType.Bfloat16,
    }[spec.precision]
    config.enable_use_gpu(GPU_POOL_MB, spec.device.index, precision)
    if (chosen := spec.options.get("gpu_passes")) is not None:
        choose_gpu_passes(config, chosen)


def choose_gpu_passes(config: Any, chosen: Sequence[str]) -> None:
    """Set the optional passes of a ``Config``, by Paddle's names, in order."""
    config.enable_custom_passes([name for name in chosen if name != LAYOUT_PASS], True)
    if LAYOUT_PASS not in chosen:
        config.delete_pass(LAYOUT_PASS)


def _configure_xpu(config: Any, spec: BuildSpec) -> None:
    from fastdeploy_diffusion.paddle_runtime import paddle

    config.enable_xpu()
    options = paddle.inference.XpuConfig()
    options.device_id = spec.device.index
    config.set_xpu_config(options)


class _PaddleSession(Session):
    """A Paddle predictor, which one thread makes, runs and frees."""

    def __init__(self, engine: str, program: Program, make_predictor: Callable[[], Any]) -> None:
        super().__init__(engine, program)
        self._thread = take_thread()
        self._held: list[Any] = []  # the predictor; nothing else may hold it
        # Also for sessions that are never closed.
        self._free = weakref.finalize(self, _free_later, self._thread, self._held)
        self._free.atexit = False
        found = self._thread.call(partial(_open, self._held, make_predictor))
        if found != set(self.inputs):
            raise EngineError(
                f"{program.name}: the exported program has the inputs {', '.join(sorted(found))}",
                allowed=", ".join(self.inputs),
                fix="build it again",
            )

    def _run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        outputs = self._thread.call(partial(_run, self._held, feeds))
        return dict(zip(self.outputs, outputs, strict=True))

    def _close(self) -> None:
        self._thread.call(self._held.clear)
        self._free()


def _open(held: list[Any], make_predictor: Callable[[], Any]) -> set[str]:
    """Make the predictor, and return the names of its inputs."""
    held.append(make_predictor())
    return set(held[0].get_input_names())


def _run(held: Sequence[Any], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Run the predictor; outputs come in the layer's order."""
    # Never in a variable of its own: that would outlive the session in the traceback of an error.
    for name, array in feeds.items():
        handle = held[0].get_input_handle(name)
        handle.reshape(list(array.shape))
        # Not ascontiguousarray: it would give a scalar a dimension.
        handle.copy_from_cpu(np.asarray(array, order="C"))
    held[0].run()
    # Handles copy; the list form of run() returns the runtime's own memory.
    return [held[0].get_output_handle(name).copy_to_cpu() for name in held[0].get_output_names()]


def _free_later(thread: PaddleThread, held: list[Any]) -> None:
    thread.begin(held.clear)
    give_back(thread)
