"""The reference engine: the Paddle layer itself, run operator by operator in float32."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import Availability, BuildSpec, Engine, Support
from fastdeploy_diffusion.engines.paddle_devices import probe_paddle
from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.session import Session


class PaddleEagerEngine(Engine):
    """Runs the layer as it is: what every other engine is measured against."""

    name: ClassVar[str] = "paddle-eager"
    keeps_builds: ClassVar[bool] = False
    held_features: ClassVar[float] = 2.5
    held_scores: ClassVar[float] = 2.0

    def _probe_run(self, device: Device) -> Availability:
        return probe_paddle(device)

    def supports(self, spec: BuildSpec) -> Support:
        """Tell what it supports: float32 on the CPU only, for a reference has one meaning."""
        if spec.device.kind != "cpu" or spec.precision != "fp32":
            asked = f"{spec.precision} on {spec.device.kind}"
            return Support(False, f"paddle-eager, the reference, runs fp32 on cpu, not {asked}")
        return Support(True)

    def _build(self, program: Program, spec: BuildSpec, out: Path) -> None:
        pass  # The layer is the artifact.

    def _load(self, program: Program, spec: BuildSpec, artifact: Path) -> Session:
        return _PaddleEagerSession(self.name, program, spec)


class _PaddleEagerSession(Session):
    def __init__(self, engine: str, program: Program, spec: BuildSpec) -> None:
        super().__init__(engine, program)
        self._program = program
        self._threads = spec.cpu_threads

    def _run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        from fastdeploy_diffusion.paddle_runtime import paddle

        # Paddle has one thread count for the process; every run sets its own.
        paddle.base.core.set_num_threads(self._threads)
        return run_layer(self._program, feeds)

    def _close(self) -> None:
        del self._program
