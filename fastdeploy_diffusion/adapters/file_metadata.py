"""What an adapter's file says of itself: its base model, its words, and PEFT's alpha."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from fastdeploy_diffusion.checkpoints.weight_file import WeightFile
from fastdeploy_diffusion.json_object import read_json_object

_BASE_MODELS = ("modelspec.architecture", "ss_base_model_version", "ss_sd_model_name")
_WORDS = "modelspec.trigger_phrase"
_TAGS = "ss_tag_frequency"
_MOST_WORDS = 5
_PEFT = "lora_adapter_metadata"  # diffusers' key, for the configurations of all components
_PEFT_FILE, _PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class AdapterMetadata:
    """What a file says.

    Attributes:
        base_model: What it was trained on, in the file's words; empty if it does not say.
        trigger_words: Words that prompts should have in them.
        configs: PEFT's configurations, by component; that of ``""`` is for all.
    """

    base_model: str = ""
    trigger_words: tuple[str, ...] = ()
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def find_alpha(self, component: str, layer: str) -> tuple[float | None, bool]:
        """Find PEFT's alpha of a layer, and whether it counts over the root of the rank."""
        config = self.configs.get(component, self.configs.get("", {}))
        patterns = config.get("alpha_pattern")
        alpha = config.get("lora_alpha")
        for pattern, own in (patterns if isinstance(patterns, Mapping) else {}).items():
            # PEFT reads them as regular expressions, and writes names.
            if any(
                name == pattern or name.endswith(f".{pattern}")
                for name in (layer, f"text_model.{layer}")
            ):
                alpha = own
        if isinstance(alpha, bool) or not isinstance(alpha, int | float):
            return None, False
        return float(alpha), config.get("use_rslora") is True


def read_metadata(file: WeightFile) -> AdapterMetadata:
    """Read what a file says of itself; what is damaged there counts as not said."""
    if file.path.suffix.lower() != ".safetensors":
        return AdapterMetadata()
    with safe_open(file.path, framework="numpy") as opened:
        said: dict[str, str] = opened.metadata() or {}
    base = next((said[key] for key in _BASE_MODELS if said.get(key)), "")
    return AdapterMetadata(base, _read_words(said), _read_configs(file.path, said))


def _read_words(said: Mapping[str, str]) -> tuple[str, ...]:
    if phrase := said.get(_WORDS):
        return tuple(each.strip() for each in phrase.split(",") if each.strip())
    counts: dict[str, int] = {}
    for tags in _parse(said.get(_TAGS)).values():
        for tag, count in (tags if isinstance(tags, Mapping) else {}).items():
            if isinstance(count, int):
                counts[str(tag).strip()] = counts.get(str(tag).strip(), 0) + count
    return tuple(sorted(counts, key=lambda tag: -counts[tag])[:_MOST_WORDS])


def _read_configs(path: Path, said: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    configs: dict[str, dict[str, Any]] = {}
    for key, value in _parse(said.get(_PEFT)).items():
        component, _, option = key.partition(".")
        configs.setdefault(component, {})[option] = value
    beside = path.with_name(_PEFT_CONFIG)
    if not configs and path.name == _PEFT_FILE and beside.is_file():
        configs[""] = read_json_object(beside)
    return configs


def _parse(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
