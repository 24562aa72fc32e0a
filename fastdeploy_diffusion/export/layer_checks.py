"""What every export asks of a layer."""

from typing import Any

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.program import Program


def require_eval_mode(program: Program) -> None:
    """Refuse a layer of which a part would behave as in training.

    Raises:
        EngineError: A sublayer is in training mode.
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
