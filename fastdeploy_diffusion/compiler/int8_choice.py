"""The choice of layers for int8, searched once, and kept in the cache.

Pictures of other sizes take it as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from fastdeploy_diffusion.compiler.cache_key import make_plan_key
from fastdeploy_diffusion.compiler.calibration import Show, list_scales
from fastdeploy_diffusion.compiler.int8_effort import Effort, plan_effort
from fastdeploy_diffusion.compiler.int8_search import (
    Choice,
    Int8Search,
    find_target,
    list_quantized,
)
from fastdeploy_diffusion.compiler.int8_stand_in import find_unobserved, open_stand_in
from fastdeploy_diffusion.compiler.tokenizer_folders import digest_tokenizers
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.int8_report import Int8Report
from fastdeploy_diffusion.predictors.build_cache import open_cache
from fastdeploy_diffusion.quantization import Quantization
from fastdeploy_diffusion.requests.request import GenerationRequest
from fastdeploy_diffusion.runtime.cache_entry import CacheKey

if TYPE_CHECKING:
    from fastdeploy_diffusion.compiler.built_component import BuiltComponent
    from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor
    from fastdeploy_diffusion.runtime.cache import ArtifactCache
    from fastdeploy_diffusion.runtime.weight_store import WeightStore


def quantize_pipeline(pipeline: DiffusionPredictor[Any], show: Show) -> None:
    """Choose the layers of a pipeline that are in int8, or take the choice that is kept.

    A component that does not reach the target falls back to a safer precision, with a warning.
    Where an engine cannot be observed, the CPU stands in for the whole pipeline.

    Args:
        show: Called with each task, and how far it is.

    Raises:
        ConfigError: Nothing can be calibrated: builds are not kept, there is one step, or the
            prompts cannot be used.
        AccuracyError: The target is not reached, and the precision is pinned.
        DiffusionError: The pipeline cannot draw.
    """
    # What has its layers already is built as given.
    components = [each for each in list_quantized(pipeline) if each.quantization is None]
    if not components:
        return
    cache = open_cache(pipeline.config)
    if cache is None:
        raise ConfigError(
            "int8 is calibrated, which takes minutes and is kept in the cache, and cache is false",
            allowed="precision int8 with cache=True",
            fix="remove cache=False, or take precision bf16",
        )
    if pipeline.config.memory == "streamed":
        raise ConfigError(
            f"memory is 'streamed', and {components[0].name} is in int8",
            allowed="memory='resident' or 'staged': weights are not streamed in int8",
            fix="set memory to 'staged', or take precision bf16",
        )
    effort = plan_effort(pipeline)
    key = _make_key(pipeline, components, effort, cache)
    with cache.read(key) as entry:
        kept = entry and entry.record
    if not kept:
        with cache.lock(key) as slot:
            found = slot.find()  # another process may have searched while this one waited
            kept = found and found.record
            if not kept:
                with _keep_weights(cache, key) as weights:
                    choices = _search(pipeline, components, effort, cache, weights, show)
                described = {name: _describe(each) for name, each in choices.items()}
                slot.keep_record(described, components[0].network.model)
                return
    for name, described in kept.items():
        _install(pipeline.component(name), _parse(described))


def _search(
    pipeline: DiffusionPredictor[Any],
    components: Sequence[BuiltComponent],
    effort: Effort,
    cache: ArtifactCache,
    weights: WeightStore,
    show: Show,
) -> dict[str, Choice]:
    """Search the layers, on the CPU if need be, and let the pipeline run as was chosen."""
    if not find_unobserved(components):
        return Int8Search(pipeline, components, effort, cache, show, weights=weights).run()
    with open_stand_in(pipeline, components) as (stand_in, own):
        places = {each.name: each.placement for each in own}
        search = Int8Search(stand_in, own, effort, cache, show, weights=weights, symmetric=True)
        found = search.run()
    choices = {}
    for name, choice in found.items():
        measured_on = f"{places[name].engine.name} on {places[name].spec.device}"
        report = replace(choice.report, stand_in=measured_on)
        choices[name] = replace(choice, report=report)
        _install(pipeline.component(name), choices[name])
    return choices


@contextmanager
def _keep_weights(cache: ArtifactCache, key: CacheKey) -> Iterator[WeightStore]:
    """Keep the weights of trials, each once, until the block ends."""
    with cache.lock(CacheKey({"trials for": key.digest})) as slot:
        slot.stage()  # as long as it is there, nobody removes what was bound for it
        try:
            yield slot.open_store()
        finally:
            slot.discard()


def _make_key(
    pipeline: DiffusionPredictor[Any],
    components: Sequence[BuiltComponent],
    effort: Effort,
    cache: ArtifactCache,
) -> CacheKey:
    """Make the key of a choice; raises `CacheError`."""
    settings = pipeline.describe_request(GenerationRequest(prompt="", **pipeline.sample_inputs(0)))
    everything = [*pipeline.list_calibrated(), *pipeline.list_added()]
    engines = {each.placement.engine.name: each.placement.engine for each in components}
    identity = {
        "networks": {each.name: each.network.identify(cache.root) for each in everything},
        "placements": [
            [each.placement.engine.name, spec.precision, spec.weight_bits]
            for each in everything
            for spec in (each.placement.spec,)
        ],
        "scales": list_scales(pipeline),
        "passes": pipeline.config.passes,
        "tokenizers": digest_tokenizers(pipeline),
        "prompts": effort.prompts.digest,
        "steps": [effort.recorded_steps, effort.steps],
        "settings": {name: each for name, each in settings.items() if name != "seed"},
        "scheduler": [pipeline.report.scheduler, pipeline.checkpoint.config("scheduler")],
        "target": find_target(pipeline, settings["num_inference_steps"]),
    }
    specs = [each.placement.spec for each in components]
    # A choice for an architecture goes with the builds to a machine that has it.
    chosen = next((each for each in specs if each.target is not None), specs[0])
    return make_plan_key(
        list(engines.values()), chosen.device, "int8", identity, (__name__,), chosen.target
    )


def _install(component: Any, choice: Choice) -> None:
    """Let a component run as chosen; a refused one falls back, with a warning."""
    if choice.refusal:
        component.refuse_precision(choice.refusal)
    else:
        component.quantize(choice.quantization)
    component.note_int8(choice.report)


def _describe(choice: Choice) -> dict[str, Any]:
    return {
        "quantization": choice.quantization.describe(),
        "report": asdict(choice.report),
        "refusal": choice.refusal,
    }


def _parse(described: Mapping[str, Any]) -> Choice:
    return Choice(
        Quantization.parse(described["quantization"]),
        Int8Report.parse(described["report"]),
        described["refusal"],
    )
