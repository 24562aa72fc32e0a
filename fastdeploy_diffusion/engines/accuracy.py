"""The proof of a session: its outputs against those of the Paddle layer in float32."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from fastdeploy_diffusion.criteria import Accuracy, Criterion
from fastdeploy_diffusion.errors import AccuracyError, EngineError
from fastdeploy_diffusion.runtime.program import Program, TensorSpec
from fastdeploy_diffusion.runtime.session import Session
from fastdeploy_diffusion.size_range import is_batch
from fastdeploy_diffusion.suggest import did_you_mean

Generator = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
"""Draws an input of a shape; the result is cast to the input's type."""

Expectation = Callable[[Mapping[str, np.ndarray], str], Mapping[str, np.ndarray]]
"""Gives the layer's outputs for inputs, all by name, rounded to a type if one is named."""


def integers(low: int, high: int) -> Generator:
    """Make a generator of whole numbers from ``low`` to ``high`` - 1: token ids, timesteps."""
    return lambda random, shape: random.integers(low, high, shape)


def verify(
    program: Program,
    session: Session,
    expect: Expectation,
    *,
    seed: int,
    criterion: Criterion,
    generators: Mapping[str, Generator] = MappingProxyType({}),
    shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> Accuracy:
    """Compare a session with the layer on seeded inputs.

    Of several rows of a batch, the layer runs the last one only: rows do not depend on each other,
    and a session that mixes them up shows it there.

    Args:
        session: The same program, loaded by any engine, with nothing bound.
        expect: Runs the layer, in float32 or rounded to the criterion's type.
        seed: Of the first input; the criterion's others follow.
        criterion: See `Precision`.
        generators: By input name. Floats are standard normal and truth values fair
            coins without one; whole numbers need one, for only the caller knows their range.
        shapes: By input name, the shape of inputs that have free dimensions.

    Returns:
        That of the worst output, which is within the tolerance.

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
    given, exact, rounded = [], [], []
    for each in range(seed, seed + criterion.inputs):
        feeds = draw_feeds(program.name, program.inputs, each, generators, shapes)
        row = take_last_rows(program.inputs, feeds)
        given.append(take_last_rows(program.outputs, session.run(**feeds)))
        exact.append(expect(row, ""))
        if criterion.rounds_to:
            rounded.append(expect(row, criterion.rounds_to))
    found = {
        spec.name: criterion.judge(
            *([outputs[spec.name] for outputs in rows] for rows in (given, exact, rounded))
        )
        for spec in program.outputs
    }
    worst = max(found, key=lambda name: (bool(found[name].problem), found[name].accuracy.share))
    accuracy, problem = found[worst]
    if problem:
        raise AccuracyError(
            f"{program.name}: output {worst!r} of the {session.engine} engine differs from the "
            f"Paddle layer {problem} (seed {seed})",
            relative_error=accuracy.relative_error,
            rounding_error=accuracy.rounding_error,
            allowed=str(criterion),
            fix="use a higher precision or another engine, and report this",
        )
    return accuracy


def take_last_rows(
    specs: Sequence[TensorSpec], arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Cut a batch to its last row, which the layer runs."""
    return {spec.name: _take_last(spec, arrays[spec.name]) for spec in specs}


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
