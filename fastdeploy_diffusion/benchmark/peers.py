"""Other programs that draw with the same weights, each in its own Python."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.suggest import did_you_mean

ADAPTERS = Path(__file__).parents[2] / "benchmarks" / "peers"

PEER_PRECISIONS = tuple(dict.fromkeys((*PRECISIONS, "int8", "int8-hybrid")))
"""Precisions that a peer may be asked for; which of them it has, its adapter knows."""


@dataclass(frozen=True)
class Peer:
    """A program to compare with."""

    name: str
    adapter: Path
    python: str


def find_peers(names: Sequence[str], pythons: Sequence[str]) -> list[Peer]:
    """Find the adapters and interpreters of peers.

    Args:
        names: Of adapters in ``benchmarks/peers``.
        pythons: ``NAME=/path/python``; a peer without one runs in this interpreter.

    Raises:
        ConfigError: There is no such peer or interpreter.
    """
    chosen = _read_pythons(names, pythons)
    return [Peer(name, _find_adapter(name), chosen.get(name, sys.executable)) for name in names]


def _read_pythons(names: Sequence[str], pythons: Sequence[str]) -> dict[str, str]:
    chosen = {}
    for text in pythons:
        name, _, python = text.partition("=")
        if not python or name not in names:
            raise ConfigError(
                f"--peer-python {text}",
                allowed=f"NAME=/path/python, NAME being one of --peers: {', '.join(names)}",
                fix=did_you_mean(name, names),
            )
        found = shutil.which(python)
        if found is None:
            raise ConfigError(
                f"--peer-python {text}: {python} is no program",
                fix="give the python of the environment that the peer is installed in",
            )
        chosen[name] = found
    return chosen


def _find_adapter(name: str) -> Path:
    if not ADAPTERS.is_dir():
        raise ConfigError(
            f"--peers {name}: the adapters of peers are not part of the installed package",
            fix="clone the repository, and run `python benchmarks/run.py` there",
        )
    adapters = {file.stem.replace("_", "-"): file for file in sorted(ADAPTERS.glob("*.py"))}
    if name not in adapters:
        raise ConfigError(
            f"--peers {name}: there is no adapter for it",
            allowed=", ".join(adapters),
            fix=did_you_mean(name, adapters)
            or f"write benchmarks/peers/{name.replace('-', '_')}.py",
        )
    return adapters[name]
