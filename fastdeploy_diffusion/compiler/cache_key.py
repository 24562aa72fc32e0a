"""The keys of builds, proofs and plans: everything that they depend on."""

import functools
import platform
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from fastdeploy_diffusion.compiler.code_digest import digest_code
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec, Engine
from fastdeploy_diffusion.errors import CacheError
from fastdeploy_diffusion.machine import find_version, read_cpu_flags
from fastdeploy_diffusion.runtime.cache_entry import CacheKey
from fastdeploy_diffusion.runtime.program import TensorSpec

# The modules that check the numbers of a loaded build, and hold the criteria.
_PROVES = (
    "fastdeploy_diffusion.engines.accuracy",
    "fastdeploy_diffusion.precision",
    "fastdeploy_diffusion.criteria",
)


def make_graph_key(
    engine: Engine,
    spec: BuildSpec,
    component: str,
    signature: Mapping[str, tuple[TensorSpec, ...]],
    network: Mapping[str, Any],
    code: Sequence[str],
) -> CacheKey:
    """Collect what the artifact of a build depends on.

    Args:
        spec: The engine declares which fields of it an artifact depends on.
        network: Identifies the network: its config, the passes, and the digest of its weights as
            ``weights``, which not every artifact depends on.
        code: The modules that decide what the engine builds.

    Raises:
        CacheError: The device cannot be identified.
    """
    depends_on = engine.artifact_depends_on
    chosen: dict[str, Any] = {}
    if "kind" in depends_on:
        chosen["device"] = {"kind": spec.device.kind}
    if "device" in depends_on:
        chosen["device"] = identify_device(spec.device, spec.target)
    if "precision" in depends_on:
        chosen["precision"] = spec.precision
    if "options" in depends_on:
        chosen["options"] = dict(spec.options)
    return CacheKey(
        {
            "component": component,
            "signature": {
                kind: [each.describe() for each in specs] for kind, specs in signature.items()
            },
            "network": {
                name: each
                for name, each in network.items()
                if name != "weights" or name in depends_on
            },
            "code": digest_code([engine.builder or type(engine).__module__, *code]),
            "engine": engine.name,
            "dialect": engine.dialect.name if engine.dialect else "",
            "packages": {name: find_version(name) for name in engine.packages},
            **chosen,
        }
    )


def make_proof_key(engine: Engine, spec: BuildSpec, weights: str, code: Sequence[str]) -> CacheKey:
    """Collect what the numbers of an artifact depend on beside it.

    Args:
        spec: Its number of threads is left out: it is chosen at each start.
        weights: Their digest.
        code: The modules that run it beside the engine's, and those that check it.

    Raises:
        CacheError: The device cannot be identified.
    """
    return CacheKey(
        {
            "weights": weights,
            "code": digest_code([type(engine).__module__, *_PROVES, *code]),
            "packages": {name: find_version(name) for name in (*engine.packages, *engine.runtimes)},
            "device": identify_device(spec.device, spec.target),
            "precision": spec.precision,
            "options": dict(spec.options),
        }
    )


def make_plan_key(
    engines: Sequence[Engine],
    device: Device,
    component: str,
    network: Mapping[str, Any],
    code: Sequence[str],
    target: str | None = None,
) -> CacheKey:
    """Collect what a plan of a component depends on.

    Args:
        network: Identifies the network, with its weights.
        code: The modules whose change makes the plan stale.
        target: The GPU architecture that it is for, in place of the device.

    Raises:
        CacheError: The device cannot be identified.
    """
    packages = sorted({name for each in engines for name in (*each.packages, *each.runtimes)})
    return CacheKey(
        {
            "component": component,
            "signature": {"inputs": [], "outputs": []},
            "network": dict(network),
            "code": digest_code([*(type(each).__module__ for each in engines), *code]),
            "engine": "plan",
            "engines": [engine.name for engine in engines],
            "packages": {name: find_version(name) for name in packages},
            "device": identify_device(device, target),
            "precision": "",
        }
    )


@functools.cache
def identify_device(device: Device, target: str | None) -> dict[str, str]:
    """Identify a device by architecture and, for a GPU, driver: builds may not run on others."""
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
                f"nvidia-smi cannot identify {device} ({error}), so that a build kept for it "
                "might be used on another",
                fix="install nvidia-smi, or turn the cache off",
            ) from error
        return {**found, "gpu": answer.stdout.strip()}
    return {**found, "index": str(device.index)}
