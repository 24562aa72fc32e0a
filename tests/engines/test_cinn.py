"""CINN where it is not: what is said of it, and what its documented interface takes."""

import shutil

import pytest

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.cinn import keep_kernels
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.paddle_runtime import paddle

FLAGS = ("FLAGS_enable_cinn_kernel_cache", "FLAGS_cinn_kernel_cache_save_path")

without_cinn = pytest.mark.skipif(
    paddle.is_compiled_with_cinn(), reason="the installed Paddle has CINN"
)


@pytest.fixture
def compiler(monkeypatch):
    """Whether there is a g++, which CINN links kernels with; and Paddle's flags as they were."""
    before = paddle.get_flags(list(FLAGS))
    yield lambda there: monkeypatch.setattr(shutil, "which", {"g++": there}.get)
    paddle.set_flags(before)


def read_flags():
    return tuple(paddle.get_flags(list(FLAGS)).values())


@without_cinn
def test_a_paddle_without_cinn_is_told_and_what_installs_one():
    available = create_engine("cinn").probe_run(Device("gpu"))
    assert not available.ok
    assert available.reason == f"the installed Paddle {paddle.__version__} is built without CINN"
    assert "paddlepaddle-gpu -i https://www.paddlepaddle.org.cn/packages/stable/" in (
        available.install
    )


def test_precisions_are_those_of_paddle_on_gpus():
    engine = create_engine("cinn")
    assert all(engine.supports(BuildSpec(Device("gpu"), each)).ok for each in ("fp32", "bf16"))
    assert engine.supports(BuildSpec(Device("gpu"), "int8")).reason.startswith("cinn runs fp32")


@without_cinn
def test_cinn_is_asked_for_and_never_left_out_in_silence(monkeypatch, compiler):
    monkeypatch.setattr(paddle.device.cuda, "get_device_capability", lambda index: (8, 6))
    with pytest.raises(RuntimeError, match="not compiled with CINN"):
        create_engine("cinn")._configure(
            paddle.inference.Config(), BuildSpec(Device("gpu"), "fp16")
        )


def test_kernels_are_kept_beside_the_builds(compiler, tmp_path):
    compiler("/usr/bin/g++")
    keep_kernels(tmp_path, "sm86")
    folder = tmp_path / "cinn-kernels" / f"{paddle.__version__}-sm86"
    assert folder.is_dir()
    assert read_flags() == (True, str(folder))
    keep_kernels(None, "sm86")
    assert read_flags()[0] is False


def test_kernels_are_not_kept_where_that_would_fail(compiler, tmp_path):
    compiler("/usr/bin/g++")
    (tmp_path / "file").touch()
    paddle.set_flags({FLAGS[0]: True})
    keep_kernels(tmp_path / "file", "sm86")
    assert read_flags()[0] is False
    compiler(None)
    paddle.set_flags({FLAGS[0]: True})
    keep_kernels(tmp_path, "sm86")
    assert read_flags()[0] is False
