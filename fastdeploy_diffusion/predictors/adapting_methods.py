"""The methods of a pipeline that load adapters: LoRA and its kin."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastdeploy_diffusion.adapters.adaptation import Adaptation, adapt
from fastdeploy_diffusion.adapters.adapter_file import Adapter, open_adapter
from fastdeploy_diffusion.adapters.strengths import Strength, check_strength
from fastdeploy_diffusion.checkpoints import Checkpoint, TensorSource
from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.errors import AdapterError
from fastdeploy_diffusion.precision import INT8
from fastdeploy_diffusion.predictors.component import Component
from fastdeploy_diffusion.shown import show
from fastdeploy_diffusion.suggest import did_you_mean


@dataclass(frozen=True)
class AdapterReport:
    """A loaded adapter.

    Args:
        digest: Of its file; sha256 as hexadecimal digits.
        strength: ``None`` while it is off.
        layers: Names of the layers that it changes, with their components before them.
        base_model: What it was trained on, in the file's words; empty if it does not say.
        trigger_words: Words that prompts should have in them, as the file says.
        unused: Tensors of the file that were left out.
    """

    name: str
    path: str
    digest: str
    strength: Strength | None
    layers: tuple[str, ...]
    base_model: str
    trigger_words: tuple[str, ...]
    unused: tuple[str, ...]


@dataclass(frozen=True)
class _Loaded:
    adapter: Adapter
    strength: Strength | None

    @property
    def layers(self) -> tuple[str, ...]:
        places = {each for change in self.adapter.changes for each in change.site}
        return tuple(sorted(f"{each.component}.{each.layer}" for each in places))


class AdaptingMethods:
    """Methods that change the weights of loaded engines: nothing is exported or built for them."""

    _adapters: dict[str, _Loaded]
    _checkpoint: Checkpoint
    _components: tuple[Component, ...]
    _config: DiffusionConfig

    def load_lora(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        strength: Strength = 1.0,
        *,
        strict: bool = True,
    ) -> AdapterReport:
        """Load a LoRA, LoCon, LoHa, LoKr, DoRA or full difference, beside those that are loaded.

        Requests that begin from now on draw with it; those that run should end before.

        Args:
            path: Its file, or a folder as diffusers and PEFT write it.
            name: For ``set_adapters``; the file's without suffix, if left out.
            strength: A number, mostly 0 to 1; or numbers by parts of the model:
                ``{"unet": 0.8, "unet.mid_block": 0.5, "text_encoder": 0}``.
            strict: Whether tensors that have no use are an error, and not a warning.

        Returns:
            What it is.

        Raises:
            AdapterError: It is missing, for another model, or an engine cannot take its weights.
            CheckpointError: The file is damaged, or of another format.
        """
        path = Path(path).expanduser()
        name = path.stem if name is None else name
        if not isinstance(name, str) or not name or name in self._adapters:
            raise AdapterError(
                f"the adapter {show(name)} of {path} is loaded already"
                if name in self._adapters
                else f"the name of an adapter is {show(name)}",
                allowed="a name for each",
                fix="give it another name, or unload_lora the first",
            )
        if self._checkpoint.is_built:
            self._components[0].check_adaptation()
        sources = self._list_sources()
        adapter = open_adapter(path, self._checkpoint.family, sources, strict=strict)
        loaded = _Loaded(adapter, None)
        checked = check_strength(strength, loaded.layers)
        self._bind_adapters({**self._adapters, name: replace(loaded, strength=checked)})
        return self._report_adapter(name)

    def set_adapters(self, strengths: Mapping[str, Strength]) -> None:
        """Set the strengths of loaded adapters; those that are not named are off.

        Args:
            strengths: By name, as for ``load_lora``.

        Raises:
            AdapterError: There is no adapter of a name, or a strength is not allowed.
        """
        if not isinstance(strengths, Mapping):
            raise AdapterError(
                f"set_adapters is given {show(strengths)}",
                allowed='strengths by name: {"a": 0.8, "b": -0.3}',
            )
        self._require_adapters(strengths)
        self._bind_adapters(
            {
                name: replace(
                    each,
                    strength=check_strength(strengths[name], each.layers)
                    if name in strengths
                    else None,
                )
                for name, each in self._adapters.items()
            }
        )

    @contextmanager
    def adapters(self, strengths: Mapping[str, Strength]) -> Generator[None, None, None]:
        """Set the strengths as ``set_adapters`` until the block ends."""
        before = {name: each.strength for name, each in self._adapters.items()}
        self.set_adapters(strengths)
        try:
            yield
        finally:
            kept = {name: before.get(name) for name in self._adapters}
            self.set_adapters({name: each for name, each in kept.items() if each is not None})

    def unload_lora(self, name: str | None = None) -> None:
        """Unload an adapter, or all: without any, pictures are those from before, bit for bit.

        Raises:
            AdapterError: There is no adapter of the name.
        """
        self._require_adapters([] if name is None else [name])
        left = {} if name is None else dict(self._adapters)
        if name is not None:
            del left[name]
        self._bind_adapters(left)

    def list_adapters(self) -> tuple[AdapterReport, ...]:
        """List the loaded adapters, those that are off among them."""
        return tuple(self._report_adapter(name) for name in self._adapters)

    def _load_configured_adapters(self) -> None:
        for each in self._config.adapters:
            self.load_lora(each.path, each.name, each.strength, strict=each.strict)

    def _describe_adapters(self) -> dict[str, Any]:
        """Describe the adapters that are on, for a picture's metadata."""
        active = [
            {"name": name, "digest": each.adapter.digest, "strength": each.strength}
            for name, each in self._adapters.items()
            if each.strength is not None
        ]
        return {"adapters": active} if active else {}

    def _report_adapter(self, name: str) -> AdapterReport:
        loaded = self._adapters[name]
        adapter = loaded.adapter
        return AdapterReport(
            name,
            str(adapter.path),
            adapter.digest,
            loaded.strength,
            loaded.layers,
            adapter.metadata.base_model,
            adapter.metadata.trigger_words,
            adapter.unused,
        )

    def _require_adapters(self, names: Any) -> None:
        for name in names:
            if name not in self._adapters:
                raise AdapterError(
                    f"there is no adapter {show(name)}",
                    allowed=", ".join(self._adapters) or "none: nothing is loaded",
                    fix=did_you_mean(name, self._adapters) or "load_lora it first",
                )

    def _list_sources(self) -> dict[str, TensorSource]:
        """List the weights that adapters may change, by the checkpoint's components."""
        networks = self._checkpoint.family.networks
        return {
            name: self._checkpoint.tensors(name)
            for name, kind in networks.items()
            if kind.role != "vae"
        }

    def _bind_adapters(self, adapters: dict[str, _Loaded]) -> None:
        """Bind the weights of all components anew that change; all are checked before any is."""
        active = [
            (each.adapter, each.strength) for each in adapters.values() if each.strength is not None
        ]
        changed: list[tuple[Component, Adaptation | None]] = []
        for part, source in self._list_sources().items():
            adaptation = adapt(part, source, active)
            for component in self._components:
                if component.network.source is not source:
                    continue
                if adaptation is not None:
                    component.check_adaptation()
                present = component.adaptation
                if (present and present.digest) != (adaptation and adaptation.digest):
                    changed.append((component, adaptation))
        if active:
            self._refuse_int8()
        for component, adaptation in changed:
            component.adapt(adaptation)
        self._adapters = adapters

    def _refuse_int8(self) -> None:
        for each in self._components:
            if each.placement.spec.precision == INT8:
                raise AdapterError(
                    f"the {each.name} is in int8, for which layers and ranges are chosen with the "
                    "checkpoint's own weights: with an adapter, the quality would not be known",
                    allowed="adapters in floating point, or in int8-weights",
                    fix="choose precision='bf16' or 'int8-weights', or merge the adapter into a "
                    "checkpoint",
                )
