"""The proof of a session: its outputs against those of the Paddle layer in float32."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from fastdeploy_diffusion.errors import AccuracyError, EngineError
from fastdeploy_diffusion.runtime.program import Program, TensorSpec
from fastdeploy_diffusion.runtime.session import Session
from fastdeploy_diffusion.size_range import is_batch
from fastdeploy_diffusion.suggest import did_you_mean

Generator = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
"""Draws an input of a shape; the result is cast to the input's type."""

Expectation = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""Gives the layer's outputs for inputs, all by name."""


@dataclass(frozen=True)
class AccuracyReport:
    """How far a session is from its layer.

    Args:
        relative_error: max |session - layer| / max |layer|, the worst of the outputs.
    """

    component: str
    relative_error: float
    tolerance: float


def integers(low: int, high: int) -> Generator:
    """Make a generator of whole numbers from ``low`` to ``high`` - 1: token ids, timesteps."""
    return lambda random, shape: random.integers(low, high, shape)


def verify(
    program: Program,
    session: Session,
    expect: Expectation,
    *,
    seed: int,
    tolerance: float,
    generators: Mapping[str, Generator] = MappingProxyType({}),
    shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> AccuracyReport:
    """Compare a session with the layer on seeded inputs.

    Of several rows of a batch, the layer runs the last one only: rows do not depend on each other,
    and a session that mixes them up shows it there.

    Args:
        session: The same program, loaded by any engine, with nothing bound.
        tolerance: Largest relative error allowed; see `Precision`.
        generators: By input name. Floats are standard normal and truth values fair
            coins without one; whole numbers need one, for only the caller knows their range.
        shapes: By input name, the shape of inputs that have free dimensions.

    Returns:
        The error found, which is within the tolerance.

    Raises:
        AccuracyError: It is beyond the tolerance, or not a number.
        EngineError: An input cannot be drawn, or the session fails.
    """
    for name in (*generators, *shapes):
        if name not in session.inputs:
            raise EngineError(
                f"{program.name}: unknown input {name!r}",
                allowed=", ".join(session.inputs),
                fix=did_you_mean(name, session.inputs),
            )
    feeds = draw_feeds(program.name, program.inputs, seed, generators, shapes)
    given = session.run(**feeds)
    wanted = expect(take_last_rows(program.inputs, feeds))
    errors = {
        spec.name: _relative_error(_take_last(spec, given[spec.name]), wanted[spec.name])
        for spec in program.outputs
    }
    # NaN is larger than everything here: a comparison that fails must not pass.
    worst = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
    report = AccuracyReport(program.name, errors[worst], tolerance)
    if not report.relative_error <= tolerance:
        raise AccuracyError(
            f"{program.name}: output {worst!r} of the {session.engine} engine differs from the "
            f"Paddle layer by {report.relative_error:.2e} of its largest value (seed {seed})",
            relative_error=report.relative_error,
            allowed=f"{tolerance:.0e}",
            fix="use a higher precision or another engine, and report this",
        )
    return report


def take_last_rows(
    inputs: Sequence[TensorSpec], feeds: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Cut a batch to its last row, which the layer runs."""
    return {spec.name: _take_last(spec, feeds[spec.name]) for spec in inputs}


def draw_feeds(
    component: str,
    inputs: Sequence[TensorSpec],
    seed: int,
    generators: Mapping[str, Generator],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, np.ndarray]:
    """Draw inputs, always the same ones for a seed.

    Raises:
        EngineError: An input cannot be drawn.
    """
    random = np.random.default_rng(seed)
    return {
        spec.name: _draw(component, spec, random, generators.get(spec.name), shapes)
        for spec in inputs
    }


def _draw(
    component: str,
    spec: TensorSpec,
    random: np.random.Generator,
    generator: Generator | None,
    shapes: Mapping[str, tuple[int, ...]],
) -> np.ndarray:
    shape = shapes.get(spec.name) or tuple(size for size in spec.shape if isinstance(size, int))
    if len(shape) != len(spec.shape):
        raise EngineError(
            f"{component}: input {spec.name!r} has free dimensions, and no shape was given",
            allowed=str(spec),
            fix=f"shapes={{{spec.name!r}: (…)}}",
        )
    kind = np.dtype(spec.dtype).kind
    if generator is not None:
        drawn = generator(random, shape)
    elif kind == "f":
        drawn = random.standard_normal(shape)
    elif kind == "b":
        drawn = random.integers(0, 2, shape)
    else:
        raise EngineError(
            f"{component}: no generator gives the {spec.dtype} values of input {spec.name!r}",
            fix=f"generators={{{spec.name!r}: integers(low, high)}}",
        )
    return np.asarray(drawn, dtype=spec.dtype)


def _take_last(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    """Cut an array to the last row of its batch; whole without a batch."""
    for axis, size in enumerate(spec.shape):
        if is_batch(size):
            return array.take([-1], axis)
    return array


def _relative_error(given: np.ndarray, wanted: np.ndarray) -> float:
    difference = np.abs(given.astype(np.float64) - wanted.astype(np.float64)).max()
    largest = np.abs(wanted.astype(np.float64)).max()
    # Against all zeros, any difference counts in full.
    return float(difference / largest if largest else difference)
