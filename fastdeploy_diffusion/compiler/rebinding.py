"""What kept builds get other weights than those that they were built with: those of adapters."""

from fastdeploy_diffusion.engines.base import Engine
from fastdeploy_diffusion.engines.registry import create_engine, engine_names
from fastdeploy_diffusion.errors import AdapterError
from fastdeploy_diffusion.runtime.cache import ArtifactCache


def require_rebinding(component: str, engine: Engine, cache: ArtifactCache | None) -> ArtifactCache:
    """Refuse an engine whose builds hold the weights, and builds that are not kept.

    Raises:
        AdapterError: Names the engines that bind other weights.
    """
    if not rebinds(engine):
        able = [name for name in engine_names() if rebinds(create_engine(name))]
        raise AdapterError(
            f"{component}: adapters change weights, and builds of {engine.name} hold theirs",
            allowed=f"{', '.join(able)}, which bind weights when a build is loaded",
            fix=f"choose one of these engines for it: engine={able[0]!r}",
        )
    if cache is None:
        raise AdapterError(
            f"{component}: adapters are bound to kept builds, and cache is false",
            fix="remove cache=False",
        )
    return cache


def rebinds(engine: Engine) -> bool:
    """Tell whether an engine binds other weights without building anything."""
    return engine.binds_weights and "weights" not in engine.artifact_depends_on
