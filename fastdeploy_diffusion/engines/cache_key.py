"""What a build depends on: the ingredients of its key."""

import functools
import hashlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec, Engine
from fastdeploy_diffusion.engines.cache import CacheKey
from fastdeploy_diffusion.errors import CacheError
from fastdeploy_diffusion.machine import find_version, read_cpu_flags
from fastdeploy_diffusion.program import TensorSpec

# What of this package decides nothing of a build. All other code does, or might: also what is new.
_ASIDE = frozenset(
    {
        *("benchmark", "cli", "config", "configs", "schedulers", "tokenizers"),
        *("images.py", "noise.py"),
    }
)


def make_cache_key(
    engine: Engine,
    spec: BuildSpec,
    component: str,
    signature: Mapping[str, tuple[TensorSpec, ...]],
    network: Mapping[str, Any],
) -> CacheKey:
    """Collect the ingredients of a build.

    Args:
        engine: What builds.
        spec: What for. Its number of threads is left out: it is chosen when a build is loaded.
        component: Name of the component.
        signature: Specs of the inputs and of the outputs.
        network: What identifies the network: its config and the digest of its weights.

    Raises:
        CacheError: The device cannot be identified.
    """
    return CacheKey(
        {
            "component": component,
            "signature": {
                kind: [each.describe() for each in specs] for kind, specs in signature.items()
            },
            "network": dict(network),
            "code": _digest_code(),
            "engine": engine.name,
            "packages": {name: find_version(name) for name in engine.packages},
            "device": _identify(spec.device, spec.target),
            "precision": spec.precision,
            "options": dict(spec.options),
        }
    )


def make_plan_key(
    engines: Sequence[Engine], device: Device, component: str, network: Mapping[str, Any]
) -> CacheKey:
    """Collect what a plan of a component depends on.

    Args:
        engines: What the plan chooses among.
        device: Where the component runs.
        component: Name of the component.
        network: What identifies the network.

    Raises:
        CacheError: The device cannot be identified.
    """
    packages = sorted({name for engine in engines for name in engine.packages})
    return CacheKey(
        {
            "component": component,
            "signature": {"inputs": [], "outputs": []},
            "network": dict(network),
            "code": _digest_code(),
            "engine": "plan",
            "engines": [engine.name for engine in engines],
            "packages": {name: find_version(name) for name in packages},
            "device": _identify(device, None),
            "precision": "",
        }
    )


def list_code(package: Path) -> list[Path]:
    """List the files that may decide what is built, beside the versions of other packages.

    Args:
        package: The folder of this package.
    """
    files = package.rglob("*.py")
    return sorted(file for file in files if file.relative_to(package).parts[0] not in _ASIDE)


@functools.cache
def _digest_code() -> str:
    package = Path(__file__).parents[1]
    content = hashlib.sha256()
    for path in list_code(package):
        content.update(f"{path.relative_to(package).as_posix()}\n".encode())
        content.update(path.read_bytes())
    return content.hexdigest()


@functools.cache
def _identify(device: Device, target: str | None) -> dict[str, str]:
    """Architecture and, for a GPU, driver: a build for one need not run on another."""
    found = {"kind": device.kind, "machine": platform.machine(), "system": platform.system()}
    if target is not None:
        # Built for every GPU of an architecture, here or elsewhere, and under any driver.
        return {**found, "target": target}
    if device.kind == "cpu":
        return {**found, "instructions": " ".join(sorted(read_cpu_flags())) or platform.processor()}
    if device.kind == "gpu":
        query = "--query-gpu=name,compute_cap,driver_version"
        command = ["nvidia-smi", query, "--format=csv,noheader", f"--id={device.index}"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise CacheError(
                f"nvidia-smi does not tell what {device} is ({error}), so that a build kept for it "
                "might be used on another",
                fix="install nvidia-smi, or turn the cache off",
            ) from error
        return {**found, "gpu": answer.stdout.strip()}
    return {**found, "index": str(device.index)}
