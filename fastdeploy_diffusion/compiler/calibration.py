"""Calibration by the model itself: what its networks are given while it draws some prompts.

No data set is needed: the inputs of the denoiser over all timesteps, and those of the VAE at the
end, are those of real use. They are kept in the cache, a file for each prompt, so that a recording
that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fastdeploy_diffusion.compiler.tokenizer_folders import digest_tokenizers
from fastdeploy_diffusion.disk_room import describe_shortage
from fastdeploy_diffusion.errors import CacheError, ConfigError
from fastdeploy_diffusion.requests.request import GenerationRequest
from fastdeploy_diffusion.runtime.cache import CALIBRATIONS, MAKE_ROOM
from fastdeploy_diffusion.runtime.file_lock import hold_file
from fastdeploy_diffusion.runtime.session import Arrays
from fastdeploy_diffusion.whole_file import write_whole

if TYPE_CHECKING:
    from fastdeploy_diffusion.predictors.component import Interceptor
    from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor
    from fastdeploy_diffusion.runtime.session import Session

CALLS = 8
"""Calls of the denoiser that are kept of each prompt."""
SEED = 20261129
_GOLDEN = 0.6180339887498949  # spreads the shifts of any number of prompts evenly
_DENOISER = "denoiser"
_CALLS_KEY = "calls"
_FORMAT = 1  # raised when something else is recorded

Show = Callable[[str, int, int], None]
"""Called with a task, and how many of its parts are done, of how many."""
Call = tuple[str, Arrays, Arrays]
"""The component, its inputs, and its outputs where they are kept."""


@dataclass(frozen=True)
class Calibration:
    """Recorded inputs of a model's components.

    Args:
        digest: Identifies what they depend on: prompts, settings, weights.
    """

    folder: Path
    digest: str

    def feeds(self, component: str) -> Iterator[dict[str, np.ndarray]]:
        """Read the inputs of a component's calls, by name, in the order of the recording.

        Raises:
            CacheError: A file was removed or damaged since.
        """
        for inputs, _ in self._list(component):
            yield dict(inputs)

    def outputs(self, component: str) -> Iterator[dict[str, np.ndarray]]:
        """Read the outputs of a component's calls, if they were kept; raises as `feeds`."""
        for _, outputs in self._list(component):
            yield dict(outputs)

    def count(self, component: str) -> int:
        """Count the calls of a component; raises as `feeds`."""
        named = (each for path in self._files for each in _read_names(path))
        return sum(name == component for name, *_ in named)

    @property
    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    def _list(self, component: str) -> Iterator[tuple[Arrays, Arrays]]:
        for path in self._files:
            for name, inputs, outputs in _read(path):
                if name == component:
                    yield inputs, outputs


def record_calibration(
    pipeline: DiffusionPredictor[Any],
    prompts: Sequence[str],
    size: tuple[int, int],
    root: Path,
    show: Show,
    *,
    steps: int | None = None,
    keeps_outputs: bool = False,
) -> Calibration:
    """Draw prompts, and keep what each component is given; what is kept already is not drawn again.

    Args:
        pipeline: Draws in float32 or half precision, with its own scheduler and guidance.
        size: Width and height of the pictures, in pixels.
        root: Folder of the cache.
        show: Called before each prompt.
        steps: Of each picture; the model's own number by default.
        keeps_outputs: Whether what the components return is recorded as well.

    Raises:
        ConfigError: The model takes one step, whose inputs say nothing of others.
        CacheError: The folder cannot be written, or is full; finished prompts are kept.
        DiffusionError: As the pipeline's ``generate``.
    """
    settings = _describe(pipeline, size, steps)
    digest = _identify(pipeline, prompts, settings, root, keeps_outputs)
    task = "drawing in float32" if keeps_outputs else "recording calibration"
    folder = root / CALIBRATIONS / digest
    with _explain(root), ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(hold_file(folder / "lock"))
        for index, prompt in enumerate(prompts):
            path = folder / f"{index:04}.safetensors"
            show(task, index, len(prompts))
            if not _is_whole(path):
                calls = _draw(pipeline, prompt, index, settings, keeps_outputs)
                write_whole(path, _pack(calls))
    show(task, len(prompts), len(prompts))
    return Calibration(folder, digest)


def tell(show: Show, task: str, calls: Calibration, component: str) -> Iterator[Arrays]:
    """Read the inputs of a component's calls, and show the task before each."""
    total = calls.count(component)
    for done, feeds in enumerate(calls.feeds(component)):
        show(task, done, total)
        yield feeds


@contextmanager
def intercept_runs(
    pipeline: DiffusionPredictor[Any], interceptors: Mapping[str, Interceptor]
) -> Iterator[None]:
    """Intercept the runs of some components, by name, until the block ends."""
    components = {name: pipeline.component(name) for name in interceptors}
    for name, component in components.items():
        component.intercept = interceptors[name]
    try:
        yield
    finally:
        for component in components.values():
            component.intercept = None


@contextmanager
def replace_sessions(
    pipeline: DiffusionPredictor[Any], sessions: Mapping[str, Session]
) -> Iterator[None]:
    """Run sessions in place of some components, by name, until the block ends.

    The components themselves are not loaded for it.
    """
    components = {name: pipeline.component(name) for name in sessions}
    for name, component in components.items():
        component.replacement = sessions[name]
    try:
        yield
    finally:
        for component in components.values():
            component.replacement = None


def choose_calls(total: int, prompt: int) -> list[int]:
    """Choose the calls of one prompt that are kept: evenly spread, other ones for each prompt."""
    if total <= CALLS:
        return list(range(total))
    shift = prompt * _GOLDEN % 1
    return [int((each + shift) * total / CALLS) for each in range(CALLS)]


def _describe(
    pipeline: DiffusionPredictor[Any], size: tuple[int, int], steps: int | None
) -> dict[str, Any]:
    width, height = size
    given: dict[str, Any] = {"width": width, "height": height, "num_inference_steps": steps}
    request = GenerationRequest(prompt="", **given, **pipeline.sample_inputs(0))
    settings = pipeline.describe_request(request)
    steps = settings["num_inference_steps"]
    if steps < 2:
        raise ConfigError(
            f"int8 cannot be calibrated with {steps} step: each of its networks is called once, "
            "which says nothing of other timesteps",
            allowed="defaults.num_inference_steps of 2 or more",
            fix="take precision int8-weights, bf16 or fp32",
        )
    return settings


def _identify(
    pipeline: DiffusionPredictor[Any],
    prompts: Sequence[str],
    settings: Mapping[str, Any],
    root: Path,
    keeps_outputs: bool,
) -> str:
    components = [*pipeline.list_calibrated(), *pipeline.list_added()]
    identity = {
        "prompts": list(prompts),
        "settings": {name: each for name, each in settings.items() if name != "seed"},
        "seed": SEED,
        "scheduler": [pipeline.report.scheduler, pipeline.checkpoint.config("scheduler")],
        "prediction_type": pipeline.config.prediction_type,
        "tokenizers": digest_tokenizers(pipeline),
        "components": {each.name: each.network.identify(root) for each in components},
        "precisions": [each.placement.spec.precision for each in components],
        "scales": list_scales(pipeline),
        "calls": CALLS,
        "outputs": keeps_outputs,
        "format": _FORMAT,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def list_scales(pipeline: DiffusionPredictor[Any]) -> list[float]:
    """List how much the added networks count by default, as they do in calibration."""
    config = pipeline.config
    controlnets = (each.scale for each in config.controlnets)
    return [*controlnets, *(each.scale for each in config.ip_adapters)]


def _draw(
    pipeline: DiffusionPredictor[Any],
    prompt: str,
    index: int,
    settings: Mapping[str, Any],
    keeps_outputs: bool,
) -> list[Call]:
    """Draw one prompt; returns the calls that are kept.

    Of the denoiser's, the others are not held meanwhile: what ControlNets bring to one of a large
    picture are dozens of megabytes.
    """
    given = {name: settings[name] for name in ("height", "width", "num_inference_steps")}
    given |= pipeline.sample_inputs(index)
    total = pipeline.count_calls(GenerationRequest(prompt=prompt, **given))
    chosen = choose_calls(total, index)
    names = [each.name for each in pipeline.list_calibrated()]
    calls: dict[str, list[Call]] = {name: [] for name in names}
    counts = dict.fromkeys(names, 0)

    def record(name: str) -> Interceptor:
        def intercept(arrays: Arrays, run: Callable[[], Arrays]) -> Arrays:
            outputs = run()
            if name != _DENOISER or counts[name] in chosen:
                calls[name].append((name, {**arrays}, {**outputs} if keeps_outputs else {}))
            counts[name] += 1
            return outputs

        return intercept

    with intercept_runs(pipeline, {name: record(name) for name in names}):
        pipeline.generate(prompt, seed=SEED + index, output_type="np", **given)
    kept: list[Call] = []
    for name, own in calls.items():
        kept += own if name == _DENOISER else [own[each] for each in choose_calls(len(own), index)]
    return kept


def _pack(calls: Sequence[Call]) -> bytes:
    """Pack calls as a safetensors file, in which equal arrays lie once."""
    tensors: dict[str, np.ndarray] = {}

    def add(array: np.ndarray) -> str:
        whole = np.ascontiguousarray(array)
        key = hashlib.sha256(f"{whole.dtype} {whole.shape}".encode() + whole.tobytes()).hexdigest()
        tensors[key] = whole
        return key

    named = [
        (name, *({each: add(array) for each, array in arrays.items()} for arrays in both))
        for name, *both in calls
    ]
    packed: bytes = save(tensors, metadata={_CALLS_KEY: json.dumps(named)})
    return packed


def _read(path: Path) -> list[Call]:
    with _open(path) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        calls: list[Call] = []
        for name, *both in json.loads(file.metadata()[_CALLS_KEY]):
            inputs, outputs = (
                {each: tensors[key] for each, key in names.items()} for names in both
            )
            calls.append((name, inputs, outputs))
        return calls


def _read_names(path: Path) -> list[Any]:
    """Read the calls of a file without their numbers."""
    with _open(path) as file:
        named: list[Any] = json.loads(file.metadata()[_CALLS_KEY])
        return named


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CacheError(
            f"the calibration in {path.parent} is damaged: {path.name}: {error}",
            fix="start again: what is damaged is recorded anew",
        ) from error


def _is_whole(path: Path) -> bool:
    try:
        return path.exists() and bool(_read(path))
    except CacheError:
        return False


@contextmanager
def _explain(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem = describe_shortage(error) or f"cannot be written ({error.strerror or error})"
        raise CacheError(
            f"the calibration is not finished: {root}: {problem}; what is recorded stays",
            fix=MAKE_ROOM,
        ) from error
