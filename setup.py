"""Packaging: ``pip install .[cpu]`` for CPUs; GPU wheels of Paddle come from Paddle's index."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$',
    (HERE / "fastdeploy_diffusion" / "__init__.py").read_text(encoding="utf-8"),
    re.MULTILINE,
)[1]

# Paddle2ONNX makes the graph that passes rewrite and the engine compiles; it wants an old onnx.
ONNX_EXPORT = ["onnx>=1.17,<1.18", "paddle2onnx==2.1.0", "onnx-ir>=1.1", "onnxscript>=0.7.2"]

# What runs a build, and a bundle, which needs nothing that builds.
RUN = {
    "onnx": ["onnxruntime>=1.21", "ml_dtypes>=0.5"],  # NumPy has no bfloat16 of its own
    # 2025.0 finds Paddle's libraries of the same name, 2025.1 fails on GELU, and up to 2026.2 the
    # proof refuses bf16.
    "openvino": ["openvino>=2026.4"],
    "tensorrt": ["tensorrt>=10.13", "cuda-python>=12.8"],
    # The same API for RTX GPUs; the one that builds for a GPU which is elsewhere. The tests build
    # with it. For Macs, on which they run as well, there is none.
    "tensorrt-rtx": [
        f"{package}; sys_platform != 'darwin'"
        for package in ("tensorrt-rtx>=1.7", "cuda-python>=12.8")
    ],
}

EXTRAS = {
    "cpu": ["paddlepaddle>=3.3.1,<4"],
    **{f"run-{name}": packages for name, packages in RUN.items()},
    **{name: [*ONNX_EXPORT, *packages] for name, packages in RUN.items()},
    # Reads quantized GGUF files.
    "gguf": ["gguf>=0.19,<1"],
    # Finds edges for ControlNets; before, it is built for NumPy 1.
    "control": ["opencv-python-headless>=4.10.0.84"],
    # torch, diffusers and transformers are the reference that the tests compare with; linters are
    # pinned because another version formats differently.
    "dev": [
        "diffusers==0.42.1; python_version >= '3.11'",
        "diffusers==0.41.0; python_version < '3.11'",  # the last that Python 3.10 has
        "filelock>=3.12",
        "gguf>=0.19,<1",
        # Of LoRAs; without them, these tests are skipped.
        "lycoris-lora==4.1.3",
        "peft==0.21.2",
        "mypy==2.4.1",
        "pytest>=9,<10",
        "pytest-randomly>=3.16",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "ruff==0.17.5",
        # Of diffusers: LMS and beta noise levels, and DPM++ SDE.
        "scipy>=1.15",
        "torchsde==0.2.6",
        "torch==2.13.0",
        "transformers==5.23.0; python_version >= '3.11'",
        "transformers==5.20.2; python_version < '3.11'",
        "types-PyYAML",
    ],
}

setup(
    name="fastdeploy-diffusion",
    version=VERSION,
    description="Deployment framework for text-to-image diffusion models on PaddlePaddle",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["fastdeploy_diffusion", "fastdeploy_diffusion.*"]),
    package_data={
        "fastdeploy_diffusion": [
            "py.typed",
            "benchmark/report/style.css",
            "configs/*.yaml",
            "configs/*-prompts.txt",
            "configs/*shapes/*",
            "configs/*shapes/*/*",
            "configs/shapes-edges/*",
            "native/*.cpp",
            "native/*.h",
            "native/*.inc",
        ]
    },
    install_requires=[
        # Elsewhere, the system's own locks serve.
        "filelock>=3.12; sys_platform == 'win32'",
        "numpy>=2.2.6",  # before, no view of a checkpoint's memory can be given to OpenVINO
        "pillow>=11.3",
        "platformdirs>=4",
        "pydantic>=2.7",
        "pyyaml>=6",
        "rich>=13",
        "safetensors>=0.8",
        "tokenizers>=0.21",
        "typer>=0.20",
        "typing-extensions>=4.6",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["fastdeploy-diffusion=fastdeploy_diffusion.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
