"""Sessions that come and go, as when sizes of pictures alternate, leave nothing behind."""

import os
import re
import threading
from pathlib import Path

import pytest
from engine_programs import Case, ConvBlock, draw_feeds, float_spec
from runnable import spec_for

from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.paddle_runtime import paddle
from fastdeploy_diffusion.runtime.freed_memory import give_back_freed_memory

CHANNELS, BLOCKS = 128, 6
STATUS = Path("/proc/self/status")
pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells")


class Blocks(paddle.nn.Layer):
    """Convolutions with 7 MB of weights."""

    def __init__(self):
        super().__init__()
        self.blocks = paddle.nn.LayerList([ConvBlock(CHANNELS) for _ in range(BLOCKS)])

    def forward(self, sample, embedding):
        for block in self.blocks:
            sample = block(sample, embedding)
        return sample


@pytest.fixture(scope="module", params=["paddle", "onnxruntime"])
def alternate(request, tmp_path_factory):
    """Load, run and close a network, each time of another of two sizes."""
    engine, spec = create_engine(request.param), spec_for(request.param, threads=1)
    built = []
    for size in (8, 16):
        shape = (2, CHANNELS, size, size)
        case = Case(
            Blocks,
            (float_spec("sample", *shape), float_spec("embedding", 2, 8)),
            (float_spec("output", *shape),),
        )
        program, folder = case.program("blocks"), tmp_path_factory.mktemp("artifact")
        engine.build(program, spec, folder)
        built.append((program, folder, draw_feeds(case, 0)))

    def alternate(times):
        for index in range(times):
            program, folder, feeds = built[index % 2]
            with engine.load(program, spec, folder) as session:
                session.run(**feeds)

    return alternate


def read_memory():
    """Resident memory in MiB."""
    return int(re.search(r"VmRSS:\s+(\d+)", STATUS.read_text())[1]) / 1024


def test_memory_descriptors_and_threads_stay(alternate):
    alternate(10)
    memory, descriptors = read_memory(), len(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    alternate(50)
    assert read_memory() <= 1.05 * memory
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert threading.active_count() <= threads


def test_close_gives_memory_back_to_the_system(alternate):
    give_back_freed_memory()
    alternate(4)
    held = read_memory()
    give_back_freed_memory()
    assert held - read_memory() < 4  # a network takes more
