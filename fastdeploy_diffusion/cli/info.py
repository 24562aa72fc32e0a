"""The output of ``info``: the machine, its software, and which engines can run here."""

import platform
from pathlib import Path
from typing import Any

from fastdeploy_diffusion import __version__
from fastdeploy_diffusion.cli.model import preset_model
from fastdeploy_diffusion.cli.table import align
from fastdeploy_diffusion.config.layers import preset_names
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine, package_names
from fastdeploy_diffusion.machine import describe_machine, find_version
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.registry import ENGINES

DEVICES = (Device("cpu"), Device("gpu"), Device("xpu"))
# Packages besides those of the engines.
PACKAGES = (
    *("numpy", "pydantic", "pyyaml", "safetensors", "tokenizers", "pillow", "onnx", "cuda-python"),
)


def collect_info() -> dict[str, Any]:
    """Describe this machine as JSON values; None for unknown ones."""
    return {
        "version": __version__,
        "machine": describe_machine(),
        "python": platform.python_version(),
        "packages": {name: find_version(name) for name in (*PACKAGES, *package_names())},
        "engines": {name: _probe_engine(name) for name in ENGINES},
        "presets": {name: _describe_preset(name) for name in preset_names()},
    }


def format_info(info: dict[str, Any]) -> str:
    """Format the result of ``collect_info`` for people."""
    machine, memory = info["machine"], info["machine"]["memory"]
    rows = [
        ["system", machine["system"]],
        ["CPU", machine["cpu"] or "unknown"],
        ["instructions", " ".join(machine["cpu_flags"] or ["unknown"])],
        ["cores", f"{machine['usable_cores']} usable of {machine['cores']}"],
        [
            "memory",
            f"{memory['total'] / 2**30:.1f} GiB, {memory['available'] / 2**30:.1f} GiB available"
            if memory
            else "unknown",
        ],
        ["Python", info["python"]],
        *([name, found or "not installed"] for name, found in info["packages"].items()),
    ]
    engines = [row for name, found in info["engines"].items() for row in _lay_out(name, found)]
    devices = [device for found in info["engines"].values() for device in found.values()]
    fixes = [each["install"] for device in devices for each in (device, device["build"])]
    presets = [["", name, _explain_preset(found)] for name, found in info["presets"].items()]
    return "\n".join(
        [
            f"fastdeploy-diffusion {info['version']}",
            *align(rows),
            "\nengines",
            *align(engines),
            *(f"  to install: {fix}" for fix in dict.fromkeys(filter(None, fixes))),
            "\npresets",
            *align(presets),
        ]
    )


def _probe_engine(name: str) -> dict[str, Any]:
    """Probe an engine on each device: whether it runs and builds, and in which precisions."""
    engine = create_engine(name)
    found: dict[str, Any] = {}
    for device in DEVICES:
        run, build = engine.probe_run(device), engine.probe_build(device)
        specs = [BuildSpec(device, precision) for precision in PRECISIONS] if run.ok else []
        found[device.kind] = {
            "available": run.ok,
            "precisions": [spec.precision for spec in specs if engine.supports(spec).ok],
            "reason": run.reason,
            "install": run.install,
            "build": {"available": build.ok, "reason": build.reason, "install": build.install},
        }
    return found


def _lay_out(name: str, found: dict[str, Any]) -> list[list[str]]:
    rows = {device: _explain_availability(each) for device, each in found.items()}
    if len(set(rows.values())) == 1:
        rows = {"all": next(iter(rows.values()))}
    return [["", name, device, text] for device, text in rows.items()]


def _explain_availability(found: dict[str, Any]) -> str:
    if not found["available"]:
        return f"no: {found['reason']}"
    runs = f"yes: {', '.join(found['precisions'])}"
    return runs if found["build"]["available"] else f"{runs}; no build: {found['build']['reason']}"


def _describe_preset(name: str) -> dict[str, Any]:
    path = preset_model(name)
    return {"model_path": path, "installed": path is not None and Path(path).exists()}


def _explain_preset(preset: dict[str, Any]) -> str:
    if preset["model_path"] is None:
        return "settings only; give the model as model_path"
    return f"{preset['model_path']}{'' if preset['installed'] else ' (not there)'}"
