"""Text-to-image diffusion on PaddlePaddle: built, measured and proven for the machine at hand.

Importing this package imports no runtime; each public name is imported when it is first used.
"""

# As in typing, whose import takes longer than all of this one: Ctrl-C could come in it before the
# command line listens.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from fastdeploy_diffusion.config import DiffusionConfig
    from fastdeploy_diffusion.errors import DiffusionError
    from fastdeploy_diffusion.pipelines.flux import FluxPipeline
    from fastdeploy_diffusion.pipelines.sd import SDPipeline
    from fastdeploy_diffusion.pipelines.sdxl import SDXLPipeline
    from fastdeploy_diffusion.predictors.result import GenerationResult, StepEvent
    from fastdeploy_diffusion.requests.request import GenerationRequest

__version__ = "0.1.0"

__all__ = [
    "DiffusionConfig",
    "DiffusionError",
    "FluxPipeline",
    "GenerationRequest",
    "GenerationResult",
    "SDPipeline",
    "SDXLPipeline",
    "StepEvent",
    "__version__",
]

_HOMES = {
    "DiffusionConfig": "config",
    "DiffusionError": "errors",
    "FluxPipeline": "pipelines.flux",
    "GenerationRequest": "requests.request",
    "GenerationResult": "predictors.result",
    "SDPipeline": "pipelines.sd",
    "SDXLPipeline": "pipelines.sdxl",
    "StepEvent": "predictors.result",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
