import os
import re

import pytest

from fastdeploy_diffusion import __version__
from fastdeploy_diffusion.benchmark.environment import (
    describe_benchmark_machine,
    list_packages,
    read_device_memory,
    read_git_revision,
)

# What nvidia-smi prints for these queries, as its own help describes them.
NVIDIA_SMI = """#!/bin/sh
case "$1" in
  --query-compute-apps=pid,used_memory) printf '11, 512 MiB\\n77, 1024 MiB\\n77, 2 MiB\\n';;
  --query-gpu=*) echo 'NVIDIA A10, 550.54.15, 8.6, 23028 MiB';;
esac
"""


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_a_gpu_and_its_driver_are_named(nvidia_smi):
    assert describe_benchmark_machine()["gpus"] == [
        {
            "name": "NVIDIA A10",
            "driver_version": "550.54.15",
            "compute_cap": "8.6",
            "memory.total": "23028 MiB",
        }
    ]
    assert read_device_memory(77) == 1026 * 2**20
    assert read_device_memory(5) is None


def test_a_machine_without_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_benchmark_machine()["gpus"] == []
    assert read_device_memory(77) is None
    assert read_git_revision() is None


def test_what_changes_by_the_minute_is_left_out():
    assert describe_benchmark_machine() == describe_benchmark_machine()


def test_versions_and_revision():
    packages = list_packages()
    assert packages["fastdeploy-diffusion"] == __version__
    assert packages.keys() >= {"paddlepaddle", "openvino", "onnxruntime", "paddle2onnx", "onnx"}
    assert all(packages.values())  # packages that are not installed are left out
    revision = read_git_revision()
    assert revision is None or re.fullmatch(r"[0-9a-f]{40}(\+changes)?", revision)
