"""Environment of a result: the machine, its GPUs, the packages, the source."""

import subprocess
from pathlib import Path
from typing import Any

from fastdeploy_diffusion import __version__
from fastdeploy_diffusion.engines.registry import package_names
from fastdeploy_diffusion.machine import describe_machine, find_version

_SECONDS = 20


def describe_benchmark_machine() -> dict[str, Any]:
    """Describe this machine, with its NVIDIA GPUs and their driver.

    What changes from minute to minute is left out, so that machines can be compared.
    """
    machine = describe_machine()
    if machine["memory"]:
        machine["memory"] = {"total": machine["memory"]["total"]}
    return {**machine, "gpus": _list_gpus()}


def list_packages() -> dict[str, str]:
    """Find the versions of this library and of what it may run on."""
    names = ("numpy", "onnx", *package_names())
    found = {name: found for name in names if (found := find_version(name))}
    return {"fastdeploy-diffusion": __version__, **found}


def read_git_revision() -> str | None:
    """Name the commit of this library's source, with ``+changes`` if files differ from it."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    revision = _ask("git", "-C", str(root), "rev-parse", "HEAD")
    if revision is None:
        return None
    changes = _ask("git", "-C", str(root), "status", "--porcelain")
    return f"{revision}+changes" if changes else revision


def read_device_memory(pid: int) -> int | None:
    """Bytes that a process has on NVIDIA GPUs; ``None`` if unknown."""
    answer = _ask("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader")
    used = []
    for line in (answer or "").splitlines():
        process, _, memory = line.partition(",")
        amount = memory.split()
        if process.strip() == str(pid) and amount and amount[0].isdecimal():
            used.append(int(amount[0]) * 2**20)
    return sum(used) if used else None


def _list_gpus() -> list[dict[str, str]]:
    query = ("name", "driver_version", "compute_cap", "memory.total")
    answer = _ask("nvidia-smi", f"--query-gpu={','.join(query)}", "--format=csv,noheader")
    return [
        dict(zip(query, (each.strip() for each in line.split(",")), strict=False))
        for line in (answer or "").splitlines()
    ]


def _ask(*command: str) -> str | None:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
