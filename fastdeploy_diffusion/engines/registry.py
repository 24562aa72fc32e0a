"""The engines by name; a name's module is imported when the engine is created, not before."""

from fastdeploy_diffusion.engines.base import Engine
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.lazy import load
from fastdeploy_diffusion.registry import ENGINE_SYNONYMS, ENGINES
from fastdeploy_diffusion.suggest import did_you_mean


def engine_names() -> tuple[str, ...]:
    """Name the engines that this version has."""
    return tuple(ENGINES)


def package_names() -> tuple[str, ...]:
    """Name the packages that engines build and run with, once each."""
    engines = map(create_engine, ENGINES)
    return tuple(
        dict.fromkeys(name for each in engines for name in (*each.packages, *each.runtimes))
    )


def create_engine(name: str) -> Engine:
    """Make an engine; its runtime is not imported yet.

    Raises:
        ConfigError: There is no such engine.
    """
    if name not in ENGINES:
        raise ConfigError(
            f"unknown engine {name!r}",
            allowed=", ".join(ENGINES),
            fix=did_you_mean(name, ENGINES, ENGINE_SYNONYMS),
        )
    engine: Engine = load(ENGINES[name])()
    return engine
