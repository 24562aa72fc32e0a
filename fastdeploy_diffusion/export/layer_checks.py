"""Checks that every export makes of a layer."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.out_of_memory import tells_of_memory
from fastdeploy_diffusion.paddle_runtime import eager_mode
from fastdeploy_diffusion.runtime.program import Program


def require_eval_mode(program: Program) -> None:
    """Refuse a layer with a part in training mode.

    Raises:
        EngineError: Such a sublayer, which is named.
    """
    layer: Any = program.layer
    training = [
        name or type(layer).__name__
        for name, part in layer.named_sublayers(include_self=True)
        if part.training
    ]
    if training:
        raise EngineError(
            f"{program.name}: the layer is in training mode ({', '.join(training[:3])}"
            f"{', …' if len(training) > 3 else ''})",
            allowed="a layer in eval mode",
            fix="layer.eval()",
        )


@contextmanager
def explain_tracing(program: Program) -> Iterator[None]:
    """Turn tracing failures of the body into errors; other exports and eager runs wait.

    Raises:
        EngineError: The body fails.
        Exception: Memory ran out; as the runtime raises it.
    """
    with eager_mode(), warnings.catch_warnings():
        # Tracing warns of Paddle's own code (a Tensor without a place …), which users cannot
        # change.
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:
            if tells_of_memory(error):
                raise  # another forward would not help
            raise EngineError(
                f"{program.name}: Paddle cannot trace {type(program.layer).__name__}: "
                f"{type(error).__name__}: {error}",
                allowed="a forward(self, …) without *args, of which every input is used and every "
                "output is a tensor",
            ) from error
