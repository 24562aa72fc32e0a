"""Peaks of an engine on this machine, measured on networks of one operator."""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fastdeploy_diffusion.engines.placement import Placement
from fastdeploy_diffusion.export.operation_counts import count_operations
from fastdeploy_diffusion.quantization import Quantization, Range
from fastdeploy_diffusion.runtime.program import Program, TensorSpec

_RUNS = 5
_COPIED_BYTES = 2**27  # of each array: far more than a processor's caches
_PRODUCT, _CONVOLUTION = (1024, 1024), (2, 320, 64, 64)
_RANGE = Range(-4, 4)  # in int8, where the numbers do not matter
_REPEATS = 4  # so that what a run costs besides weighs little


def measure_peaks(placement: Placement) -> dict[str, float | None]:
    """Measure matrix products and convolutions on an engine, and copies on the CPU.

    Returns:
        The fields of a `Peaks`, each the best of a few runs; no ``bandwidth`` where the engine's
        memory is not the CPU's.

    Raises:
        EngineError: The engine cannot build or run them.
    """
    from fastdeploy_diffusion.benchmark.roofline.yardsticks import Convolutions, MatrixProducts

    is_cpu = placement.spec.device.kind == "cpu"
    return {
        "matrix_product": _measure(placement, MatrixProducts(_PRODUCT[0], _REPEATS), _PRODUCT),
        "convolution": _measure(placement, Convolutions(_CONVOLUTION[1], _REPEATS), _CONVOLUTION),
        "bandwidth": measure_copy(placement.spec.cpu_threads) if is_cpu else None,
    }


def measure_copy(threads: int) -> float:
    """Copy a large array, a share in each thread; give bytes/s, read and written."""
    source, target = (np.ones(_COPIED_BYTES // 4, np.float32) for _ in range(2))
    shares = list(
        zip(np.array_split(target, threads), np.array_split(source, threads), strict=True)
    )
    with ThreadPoolExecutor(threads) as pool:
        seconds = _time(lambda: list(pool.map(lambda share: np.copyto(*share), shares)))
    return 2 * source.nbytes / seconds


def _measure(placement: Placement, layer: Any, shape: tuple[int, ...]) -> float:
    layers = (name.removesuffix(".weight") for name, _ in layer.named_parameters())
    program = Program(
        "yardstick",
        layer.eval(),
        (TensorSpec("x", shape, "float32"),),
        (TensorSpec("y", shape, "float32"),),
        quantization=Quantization(dict.fromkeys(layers, _RANGE)),
    )
    counts = count_operations(program, {"x": shape})
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    with tempfile.TemporaryDirectory(prefix="fastdeploy-diffusion-") as folder:
        placement.engine.build(program, placement.spec, Path(folder) / "build")
        with placement.engine.load(program, placement.spec, Path(folder) / "build") as session:
            return counts.flops / _time(lambda: session.run(x=x))


def _time(task: Callable[[], object]) -> float:
    task()
    seconds = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
