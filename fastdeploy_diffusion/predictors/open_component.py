"""Opens the components of a pipeline, as the families' records describe them.

This is the one door from running a pipeline to building it. Paddle is imported behind it when a
component is built, tried, tuned or streamed; kept builds load without Paddle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fastdeploy_diffusion.checkpoints import Checkpoint, TensorSource
from fastdeploy_diffusion.checkpoints.bundle_folder import BundledWeights
from fastdeploy_diffusion.checkpoints.tiny_vae import TinyVAECheckpoint
from fastdeploy_diffusion.config import DiffusionConfig, EngineChoice
from fastdeploy_diffusion.engines.accuracy import Generator
from fastdeploy_diffusion.engines.placement import AUTO
from fastdeploy_diffusion.families.networks.activations import CountActivations
from fastdeploy_diffusion.families.networks.autoencoder_tiny import AUTOENCODER_TINY
from fastdeploy_diffusion.families.networks.network_config import NetworkConfig
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.predictors.build_cache import open_cache, recall_checked_files
from fastdeploy_diffusion.predictors.bundled_component import BundledComponent
from fastdeploy_diffusion.predictors.component import Component
from fastdeploy_diffusion.predictors.network import Network

if TYPE_CHECKING:
    from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor

# By role; text encoders have the checkpoint's names.
_NAMES = {"denoiser": "denoiser", "vae": "vae_decoder"}


def open_component(
    checkpoint: Checkpoint,
    config: DiffusionConfig,
    part: str,
    network_config: NetworkConfig,
    *,
    name: str | None = None,
    count_activations: CountActivations | None = None,
    is_calibrated: bool = True,
    generators: Mapping[str, Generator] = MappingProxyType({}),
    rows: int = 1,
    is_streamed: bool = False,
    tiny: TinyVAECheckpoint | None = None,
    **form: Any,
) -> Component:
    """Open a component of a checkpoint.

    Args:
        part: The component's name in the checkpoint.
        network_config: Read from the checkpoint.
        name: For errors and reports; that of its role by default.
        count_activations: As for `Network`; the config's by default.
        is_calibrated: As of `Component`; one that is not is in floating point.
        generators: As for `BuiltComponent`.
        rows: Likewise.
        is_streamed: Whether it runs block by block, with the weights of one in memory.
        tiny: A tiny autoencoder, in place of the checkpoint's component.
        **form: Further arguments of its `Network`.

    Raises:
        CheckpointError: It is not in the bundle.
        EngineUnavailableError: The engine asked for cannot run here.
    """
    kind = AUTOENCODER_TINY if tiny else checkpoint.family.networks[part]
    name = name or _NAMES.get(kind.role, part)
    source = tiny.tensors if tiny else checkpoint.tensors(part)
    if isinstance(source, BundledWeights):
        source = source.of(name)
    choice = config.component(kind.role)
    if not is_calibrated and kind.role in config.list_quantized():
        choice = replace(choice, precision=AUTO, pinned_by=None, portable_int8=False)
    return open_network(
        name,
        kind.layer,
        network_config,
        source,
        config,
        choice,
        is_calibrated=is_calibrated,
        generators=generators,
        rows=rows,
        is_streamed=is_streamed,
        role=kind.role,
        count_activations=count_activations or network_config.count_activations,
        **form,
    )


def open_network(
    name: str,
    layer: str,
    network_config: NetworkConfig,
    source: TensorSource,
    config: DiffusionConfig,
    choice: EngineChoice,
    *,
    is_calibrated: bool = True,
    generators: Mapping[str, Generator] = MappingProxyType({}),
    rows: int = 1,
    is_streamed: bool = False,
    **form: Any,
) -> Component:
    """Open a network with weights; arguments and errors are those of `open_component`.

    Args:
        layer: Path of its class.
        source: Its weights.
        choice: Of the engine.
    """
    network = Network(layer, network_config, source, **form)
    if isinstance(source, BundledWeights):
        checked = recall_checked_files(source.folder, open_cache(config))
        bundled = BundledComponent(name, network, source, config.threads, checked)
        bundled.is_calibrated = is_calibrated
        return bundled
    # These import Paddle when they build; nothing else that runs a pipeline does.
    from fastdeploy_diffusion.compiler.build import ComponentBuild
    from fastdeploy_diffusion.compiler.built_component import BuiltComponent
    from fastdeploy_diffusion.compiler.streamed_build import StreamedBuild, require_streaming

    component = BuiltComponent(
        name,
        choice,
        cpu_fallback=config.cpu_fallback,
        passes=config.passes,
        cache=open_cache(config),
        network=network,
        generators=generators,
        rows=rows,
        build_class=StreamedBuild if is_streamed else ComponentBuild,
    )
    component.is_calibrated = is_calibrated
    if is_streamed:
        report = component.report
        require_streaming(report.name, report.engine, report.device)
    return component


def quantize_components(
    pipeline: DiffusionPredictor[Any], show: Callable[[str, int, int], None]
) -> None:
    """Choose the layers of a pipeline's components in int8, if there are any that are built here.

    Raises:
        DiffusionError: As `quantize_pipeline`.
    """
    built = [each for each in pipeline.list_calibrated() if not isinstance(each, BundledComponent)]
    if any(PRECISIONS[each.placement.spec.precision].is_quantized for each in built):
        from fastdeploy_diffusion.compiler.int8_choice import quantize_pipeline

        quantize_pipeline(pipeline, show)
