"""The names that files of adapters give to the layers of our networks, made from our own.

A name with ``_`` for ``.`` cannot be read backwards (``to_out_0``, ``ff_net_0_proj``), so nothing
here takes a file's names apart: of every layer all its names are listed, and looked up. Kinds of
names: kohya's sd-scripts (``lora_unet_…``, of diffusers' and of the original names), LyCORIS
(``lycoris_…``), PEFT and diffusers of today (``unet.….lora_A.weight``), diffusers' old attention
processors (``….processor.to_q_lora.down.weight``), and XLabs' for Flux; as ComfyUI's
``comfy/lora.py`` and diffusers' ``lora_conversion_utils.py`` know them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.families.family import Family
from fastdeploy_diffusion.families.keys.reversed_rules import ReversedRule, reverse_rules
from fastdeploy_diffusion.families.networks.network_kind import NetworkKind

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Place:
    """A layer of ours, and its rows in a file's layer, which may be several of ours in one.

    Attributes:
        component: Of the checkpoint.
        layer: Its name there: that of its tensors without ``.weight`` or ``.bias``.
        slices: Which of ``parts`` equal slices of the file's rows it is, in their order.
        parts: How many there are.
    """

    component: str
    layer: str
    slices: tuple[int, ...] = (0,)
    parts: int = 1

    def take(self, whole: FloatArray) -> FloatArray:
        """Take its rows of a tensor of the file's layer."""
        if self.slices == tuple(range(self.parts)):
            return whole
        slices = np.split(whole, self.parts)
        return np.concatenate([slices[index] for index in self.slices])


Site: TypeAlias = tuple[Place, ...]
"""The layers of ours that make one layer of a file; all of its rows."""


def join(site: Site, read: Callable[[Place], FloatArray]) -> FloatArray:
    """Join tensors of our layers to that of the file's layer."""
    slices: dict[int, FloatArray] = {}
    for place in site:
        slices.update(zip(place.slices, np.split(read(place), len(place.slices)), strict=True))
    return np.concatenate([slices[index] for index in sorted(slices)])


# Beginnings of names, of a component of a family: with dots, before diffusers' names and before the
# original ones; and with underscores, before both.
_DOTTED: Mapping[str, tuple[str, ...]] = {
    "unet": ("unet.", "", "base_model.model.", "unet.base_model.model."),
    "transformer": ("transformer.", "", "base_model.model.", "transformer.base_model.model."),
    "text_encoder": ("text_encoder.", "text_encoder.base_model.model."),
    "text_encoder_2": ("text_encoder_2.", "text_encoder_2.base_model.model."),
}
_ORIGINAL = ("", "diffusion_model.", "model.diffusion_model.", "base_model.model.")
_JOINED: Mapping[str, tuple[str, ...]] = {
    "unet": ("lora_unet_", "lycoris_"),
    "transformer": ("lora_unet_", "lora_transformer_", "lycoris_"),
    "text_encoder": ("lora_te_", "lora_te1_"),
    "text_encoder_2": ("lora_te2_", "lora_te3_"),
}
# Our names of layers of an attention, and those in names of diffusers' old processors.
_PROCESSORS: Mapping[str, str] = {
    ".to_q": ".processor.to_q_lora",
    ".to_k": ".processor.to_k_lora",
    ".to_v": ".processor.to_v_lora",
    ".to_out.0": ".processor.to_out_lora",
    ".q_proj": ".to_q_lora",
    ".k_proj": ".to_k_lora",
    ".v_proj": ".to_v_lora",
    ".out_proj": ".to_out_lora",
}
# The original names of Flux's layers, and XLabs'.
_XLABS: Mapping[str, str] = {
    ".img_attn.qkv": ".processor.qkv_lora1",
    ".txt_attn.qkv": ".processor.qkv_lora2",
    ".img_attn.proj": ".processor.proj_lora1",
    ".txt_attn.proj": ".processor.proj_lora2",
    ".linear2": ".processor.proj_lora",
}
_XLABS_SINGLE = "single_transformer_blocks."

ENDINGS: Mapping[str, str] = {
    **{
        ending: part
        for part, endings in {
            "up": (".lora_up", "_lora.up", ".lora.up", ".lora_linear_layer.up", ".up"),
            "down": (".lora_down", "_lora.down", ".lora.down", ".lora_linear_layer.down", ".down"),
            "mid": (".lora_mid",),
        }.items()
        for ending in (f"{each}.weight" for each in endings)
    },
    **{
        f".lora_{letter}{infix}.weight": part
        for letter, part in (("A", "down"), ("B", "up"))
        for infix in ("", ".default")
    },
    **{
        f".lora_magnitude_vector{ending}": "magnitude"
        for ending in ("", ".weight", ".default", ".default.weight")
    },
    **{
        f".{part}": part
        for part in (
            *("alpha", "dora_scale", "diff", "diff_b", "w_norm", "b_norm"),
            *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
            *("lokr_w1", "lokr_w1_a", "lokr_w1_b"),
            *("lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
        )
    },
}
"""The ends of tensors' names in files, and which part of a change they are (`kinds`)."""
_LONGEST_FIRST = sorted(ENDINGS, key=len, reverse=True)


def list_spellings(family: Family, layers: Mapping[str, Sequence[str]]) -> dict[str, Site]:
    """List the names that files may give to layers, without endings.

    Args:
        layers: Names of layers, by component.
    """
    found: dict[str, Site] = {}
    for component, names in layers.items():
        originals = _group_originals(family, component, names)
        for name in names:
            for spelling in _spell(family.networks[component], component, name):
                found.setdefault(spelling, (Place(component, name),))
        for name, site in originals.items():
            for spelling in _spell_original(component, name):
                found.setdefault(spelling, site)
        for name, site in _list_single_attentions(component, names):
            found.setdefault(name, site)
    return found


def find_site(key: str, spellings: Mapping[str, Site]) -> tuple[str, str] | None:
    """Split a tensor's name into that of a layer, which is among spellings, and a part."""
    for ending in _LONGEST_FIRST:
        if key.endswith(ending) and (name := key[: -len(ending)]) in spellings:
            return name, ENDINGS[ending]
    return None


def _spell(kind: NetworkKind, component: str, layer: str) -> Iterator[str]:
    """Spell a layer's own name, which is diffusers' or transformers'."""
    # Newer transformers have no tower around the text encoder's layers; files mostly have one.
    names = (layer, f"text_model.{layer}") if kind.role == "text_encoder" else (layer,)
    for name in names:
        for prefix in _DOTTED[component]:
            yield prefix + name
            for own, old in _PROCESSORS.items():
                if name.endswith(own):
                    yield prefix + name.removesuffix(own) + old
        for prefix in _JOINED[component]:
            yield prefix + name.replace(".", "_")


def _spell_original(component: str, name: str) -> Iterator[str]:
    """Spell a layer by the name that the model's first code has for it."""
    for prefix in _ORIGINAL:
        yield prefix + name
    for prefix in _JOINED[component]:
        yield prefix + name.replace(".", "_")
    for own, xlabs in _XLABS.items():
        if name.endswith(own):
            for prefix in ("", "diffusion_model."):
                yield prefix + name.removesuffix(own) + xlabs


def _list_single_attentions(component: str, names: Sequence[str]) -> Iterator[tuple[str, Site]]:
    """List XLabs' names of Flux's blocks of one stream: queries, keys, values, without the rest."""
    ending = ".attn.to_q"
    for name in names:
        if name.startswith(_XLABS_SINGLE) and name.endswith(ending):
            block = name.removesuffix(ending)
            site = tuple(
                Place(component, f"{block}.attn.to_{letter}", (index,), 3)
                for index, letter in enumerate("qkv")
            )
            number = block.removeprefix(_XLABS_SINGLE)
            for prefix in ("", "diffusion_model."):
                yield f"{prefix}single_blocks.{number}.processor.qkv_lora", site


def _group_originals(
    family: Family, component: str, names: Sequence[str]
) -> dict[str, tuple[Place, ...]]:
    """Group our layers by the layers that they are in the model's first code."""
    if family.networks[component].role != "denoiser":
        return {}  # files name the layers of text encoders as transformers does
    rules = reverse_rules(family.layouts[0].rules[component])
    grouped: dict[str, tuple[Place, ...]] = {}
    for name in names:
        for stored, rule in _find_originals(rules, name):
            place = Place(component, name, rule.slices, rule.parts)
            grouped[stored] = (*grouped.get(stored, ()), place)
    return grouped


def _find_originals(
    rules: Sequence[ReversedRule], layer: str
) -> Iterator[tuple[str, ReversedRule]]:
    for rule in rules:
        if stored := rule.apply(f"{layer}.weight"):
            for each in stored:
                yield each.rpartition(".")[0], rule
            return
