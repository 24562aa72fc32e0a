"""The attention kernel, in each instruction set of this CPU, in turns with OpenVINO's and torch's.

``python benchmarks/attention.py`` times attention alone, in the shapes of Stable Diffusion, SDXL
and Flux at their published sizes, prints all samples as JSON, and says how far each result is from
float64. ``pip install openvino torch`` first, or leave them out with ``--peers ""``. Needs a C++
compiler.
"""

import argparse
import ctypes
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastdeploy_diffusion.machine import count_usable_cores
from fastdeploy_diffusion.native.compile import ATTENTION, compile_library, find_compiler

ISAS = {1: "portable", 2: "avx2", 4: "avx512", 8: "avx512_bf16", 16: "amx_bf16"}
PRECISIONS = {"fp32": (4, 2, 1), "bf16": (16, 8, 4, 2)}  # which of them are worth timing
THREADS = Path(__file__).with_name("attention_threads.cpp")
Attend = Callable[[], np.ndarray]  # (heads, queries, size), bf16 as uint16


class Shape(NamedTuple):
    """One attention; two images, or a picture with and without guidance, count as heads."""

    heads: int
    queries: int
    keys: int
    size: int


SHAPES = {
    "sd 16 heads of 40, 4096": Shape(16, 4096, 4096, 40),
    "sd 16 of 80, 1024": Shape(16, 1024, 1024, 80),
    "sd 16 of 160, 256": Shape(16, 256, 256, 160),
    "sd cross 16 of 40, 4096 x 77": Shape(16, 4096, 77, 40),
    "sdxl 20 of 64, 4096": Shape(20, 4096, 4096, 64),
    "sdxl 40 of 64, 1024": Shape(40, 1024, 1024, 64),
    "flux 24 of 128, 1536": Shape(24, 1536, 1536, 128),
    "flux 24 of 128, 4608": Shape(24, 4608, 4608, 128),
    "vae 1 of 512, 4096": Shape(1, 4096, 4096, 512),
    "clip 12 of 64, 77": Shape(12, 77, 77, 64),
}


class KernelShape(ctypes.Structure):
    """fdd_attention_shape of attention.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "heads", "queries", "keys")),
        *((name, ctypes.c_int64) for name in ("head_size", "value_size")),
        *((name, ctypes.c_int64 * 3) for name in "qkvo"),
        ("bias", ctypes.c_void_p),
        ("bias_stride", ctypes.c_int64 * 4),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("in_type", "out_type", "products")),
    )


def round_to_bf16(values: np.ndarray) -> np.ndarray:
    """Round to the nearest bf16, as its 16 bits."""
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def widen(values: np.ndarray) -> np.ndarray:
    """Read bf16 as float32; float32 stays as it is."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def open_kernels(
    folder: Path, threads: int, precision: str, only: set[str]
) -> Iterator[tuple[str, Callable[[Shape, list[np.ndarray]], Attend]]]:
    """Ours, a contender for each instruction set."""
    library = ctypes.CDLL(str(compile_library("attention", [ATTENTION], folder)))
    pool_library = ctypes.CDLL(str(compile_library("threads", [THREADS], folder)))
    pool_library.open_pool.restype = ctypes.c_void_p
    pool = ctypes.c_void_p(pool_library.open_pool(threads))
    run_in_pool = ctypes.cast(pool_library.run_in_pool, ctypes.c_void_p)

    def prepare(shape: Shape, arrays: list[np.ndarray], isa: int) -> Attend:
        out = np.empty((shape.heads, shape.queries, shape.size), arrays[0].dtype)
        head = [shape.size * tokens for tokens in (shape.queries, shape.keys)]
        type_of = int(out.dtype == np.uint16)
        call = KernelShape(
            *(1, shape.heads, shape.queries, shape.keys, shape.size, shape.size),
            **{
                name: (ctypes.c_int64 * 3)(0, head[name in "kv"], shape.size)
                for name in ("q", "k", "v", "o")
            },
            scale=shape.size**-0.5,
            in_type=type_of,
            out_type=type_of,
            products=type_of,
        )
        pointers = [ctypes.c_void_p(each.ctypes.data) for each in (*arrays, out)]

        def attend() -> np.ndarray:
            if status := library.fdd_attention(
                ctypes.byref(call), *pointers, run_in_pool, pool, isa
            ):
                raise RuntimeError(f"the kernel refuses {shape} with status {status}")
            return out

        return attend

    for isa in PRECISIONS[precision]:
        if library.fdd_attention_isas() & isa and (not only or ISAS[isa] in only):
            yield f"ours {ISAS[isa]}", lambda shape, arrays, isa=isa: prepare(shape, arrays, isa)


def prepare_openvino(shape: Shape, arrays: list[np.ndarray], threads: int) -> Attend:
    """OpenVINO's ScaledDotProductAttention, in and out in the precision that it computes in."""
    import openvino as ov
    from openvino import opset13

    kind = ov.Type.bf16 if arrays[0].dtype == np.uint16 else ov.Type.f32
    shapes = [(1, *each.shape) for each in arrays]
    inputs = [opset13.parameter(each, kind) for each in shapes]
    output = opset13.scaled_dot_product_attention(*inputs)
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if kind == ov.Type.bf16 else "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = ov.Core().compile_model(ov.Model([output], inputs), "CPU", options)
    request = compiled.create_infer_request()
    for index, (array, given) in enumerate(zip(arrays, shapes, strict=True)):
        request.set_input_tensor(index, ov.Tensor(array, given, kind))

    def attend() -> np.ndarray:
        request.infer()
        tensor = request.get_output_tensor(0)
        return tensor.data.view(arrays[0].dtype).reshape(arrays[0].shape)

    return attend


def prepare_torch(shape: Shape, arrays: list[np.ndarray], threads: int) -> Attend:
    """The flash kernel of torch."""
    import torch

    torch.set_num_threads(threads)
    kind = torch.bfloat16 if arrays[0].dtype == np.uint16 else torch.float32
    tensors = [torch.from_numpy(each.view(_signed(each))).view(kind)[None] for each in arrays]

    def attend() -> np.ndarray:
        with torch.no_grad():
            out = torch.nn.functional.scaled_dot_product_attention(*tensors)
        integers = out[0].view(torch.int16 if kind == torch.bfloat16 else torch.int32)
        return integers.numpy().view(arrays[0].dtype)

    return attend


def _signed(array: np.ndarray) -> type:
    return np.int16 if array.dtype == np.uint16 else np.float32


def measure_error(result: np.ndarray, arrays: list[np.ndarray]) -> float:
    """Root mean square of the difference to float64 over some rows, as a share of theirs."""
    q, k, v = (widen(each).astype(np.float64) for each in arrays)
    rows = slice(None, None, max(q.shape[1] // 7, 1))
    wanted, given = [], []
    for head in {0, len(q) - 1}:
        scores = q[head, rows] @ k[head].T * q.shape[2] ** -0.5
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        wanted.append(weights / weights.sum(axis=1, keepdims=True) @ v[head])
        given.append(widen(result[head, rows]))
    difference = np.subtract(given, wanted)
    return float(np.sqrt(np.square(difference).mean() / np.square(wanted).mean()))


def time_in_turns(contenders: dict[str, Attend], turns: int) -> dict[str, list[float]]:
    """Milliseconds of each, turn by turn, after one run that is not timed."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for attend in contenders.values():
        attend()
    for _ in range(turns):
        for name, attend in contenders.items():
            started = time.perf_counter()
            attend()
            taken[name].append((time.perf_counter() - started) * 1e3)
    return taken


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--shapes", default="", help="only those whose names contain this")
    parser.add_argument("--isas", default="", help=f"of {', '.join(ISAS.values())}; default: all")
    parser.add_argument("--peers", default="openvino,torch")
    parser.add_argument("--threads", type=int, default=count_usable_cores())
    parser.add_argument("--turns", type=int, default=8)
    return parser.parse_args()


def main() -> None:
    """Time every shape, and print a table."""
    options = parse_options()
    peers = {"openvino": prepare_openvino, "torch": prepare_torch}
    wanted = {name: peers[name] for name in filter(None, options.peers.split(","))}
    only = set(filter(None, options.isas.split(",")))
    results = []
    with tempfile.TemporaryDirectory() as folder:
        kernels = dict(open_kernels(Path(folder), options.threads, options.precision, only))
        for name, shape in SHAPES.items():
            if options.shapes not in name:
                continue
            rng = np.random.default_rng(len(results))
            tokens = (shape.queries, shape.keys, shape.keys)
            arrays = [rng.standard_normal((shape.heads, n, shape.size), np.float32) for n in tokens]
            if options.precision == "bf16":
                arrays = [round_to_bf16(each) for each in arrays]
            contenders = {each: prepare(shape, arrays) for each, prepare in kernels.items()}
            contenders |= {
                each: prepare(shape, arrays, options.threads) for each, prepare in wanted.items()
            }
            errors = {each: measure_error(run(), arrays) for each, run in contenders.items()}
            taken = time_in_turns(contenders, options.turns)
            products = 4 * shape.heads * shape.queries * shape.keys * shape.size
            print(f"{name}: {products / 1e9:.1f} GFLOP", file=sys.stderr)
            for each, samples in taken.items():
                results.append(
                    {
                        "shape": name,
                        **shape._asdict(),
                        "contender": each,
                        "milliseconds": samples,
                        "relative_rms_error": errors[each],
                    }
                )
                median, best = statistics.median(samples), min(samples)
                print(
                    f"  {each:20} {median:8.2f} ms, best {best:8.2f}, error {errors[each]:.1e}",
                    file=sys.stderr,
                )
    facts = {"precision": options.precision, "threads": options.threads}
    print(json.dumps({**facts, "compiler": find_compiler().version, "results": results}, indent=1))


if __name__ == "__main__":
    main()
