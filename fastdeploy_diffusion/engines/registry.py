"""The engines by name; a name's module is imported when the engine is created, not before."""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from fastdeploy_diffusion.engines.base import Engine
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.suggest import did_you_mean

_CREATORS: Mapping[str, str] = MappingProxyType(
    {
        "cinn": "fastdeploy_diffusion.engines.cinn:CINNEngine",
        "onnxruntime": "fastdeploy_diffusion.engines.onnxruntime:ONNXRuntimeEngine",
        "openvino": "fastdeploy_diffusion.engines.openvino:OpenVINOEngine",
        "paddle": "fastdeploy_diffusion.engines.paddle:PaddleEngine",
        "paddle-eager": "fastdeploy_diffusion.engines.paddle_eager:PaddleEagerEngine",
        "tensorrt": "fastdeploy_diffusion.engines.tensorrt:TensorRTEngine",
    }
)

_SYNONYMS = {
    "eager": "paddle-eager",
    "paddle-inference": "paddle",
    "paddlepaddle": "paddle",
    "trt": "tensorrt",
    "ort": "onnxruntime",
    "onnx": "onnxruntime",
}


def engine_names() -> tuple[str, ...]:
    """Name the engines that this version has."""
    return tuple(_CREATORS)


def create_engine(name: str) -> Engine:
    """Make an engine; its runtime is not imported yet.

    Args:
        name: One of `engine_names`.

    Raises:
        ConfigError: There is no such engine.
    """
    if name not in _CREATORS:
        raise ConfigError(
            f"unknown engine {name!r}",
            allowed=", ".join(_CREATORS),
            fix=did_you_mean(name, _CREATORS, _SYNONYMS),
        )
    module, _, engine_class = _CREATORS[name].partition(":")
    engine: Engine = getattr(import_module(module), engine_class)()
    return engine
