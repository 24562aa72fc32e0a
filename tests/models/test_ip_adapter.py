"""IP-Adapters and UNets with them against diffusers, which reads the same tensors."""

from dataclasses import replace

import numpy as np
import paddle
import pytest
import torch
from component_programs import SD1, SD2, SDXL
from diffusers import UNet2DConditionModel as Reference
from drawn_parameters import draw_reference_parameters
from reference_weights import LARGEST_ERROR, copy_weights, relative_error
from tiny_ip_adapter import TOWER, configure_ip_adapter, draw_ip_adapter

from fastdeploy_diffusion.checkpoints.layer_weights import build_skeleton, set_parameters
from fastdeploy_diffusion.families.networks.adapted_unet import AdaptedUNetConfig
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.families.published.sd import SD_1_5, SDXL_BASE
from fastdeploy_diffusion.models.ip_adapter import IPAdapter
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.passes.base import apply_passes
from fastdeploy_diffusion.passes.layer.hoist_invariants import HoistInvariants
from fastdeploy_diffusion.passes.layer.merge_projections import MergeKV, MergeQKV
from fastdeploy_diffusion.passes.registry import choose_passes

# A block that reads text at another place in each way, so that the order of the middle shows.
UNETS = {"sd1": SD1, "sd2": SD2, "sdxl": SDXL}
KINDS = {"base": ["base"], "plus": ["plus"], "both": ["plus", "base"]}
SCALES = [0.7, 1.3]
PICTURES = 2


def configure(options):
    shared = {"in_channels": 4, "out_channels": 4, "sample_size": 8, "norm_num_groups": 4}
    return {**shared, **options}


def split_names(weights):
    """The two dictionaries that diffusers makes of a file."""
    found = {"image_proj": {}, "ip_adapter": {}}
    for name, values in weights.items():
        kind, _, rest = name.partition(".")
        found[kind][rest] = torch.tensor(values)
    return found


def draw_features(kind, rows):
    random = np.random.default_rng(3)
    shape = (TOWER["projection_dim"],) if kind == "base" else (17, TOWER["hidden_size"])
    return random.standard_normal((rows, PICTURES, *shape)).astype(np.float32)


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("options", UNETS.values(), ids=UNETS.keys())
def test_parity(options, kinds):
    rows, raw = 2, configure(options)
    reference = Reference(**raw).eval()
    draw_reference_parameters(reference, 1)
    own = UNet2DConditionConfig.from_dict(raw)
    config = AdaptedUNetConfig.of(own, len(kinds))
    unet = UNet2DConditionModel(config)
    copy_weights(unet, reference)
    random = np.random.default_rng(4)
    feeds = {
        "sample": random.standard_normal((rows, 4, 9, 13)),
        "timestep": np.array([7, 800]),
        "encoder_hidden_states": random.standard_normal((rows, 7, own.context_dims[0])),
    }
    added = {}
    if own.addition_embed_type:
        added["text_embeds"] = random.standard_normal((rows, own.text_embeds_dim))
        added["time_ids"] = random.integers(0, 999, (rows, 6))
    feeds, added = (
        {name: each.astype(np.float32) for name, each in arrays.items()}
        for arrays in (feeds, added)
    )
    images, weights = [], []
    for index, (kind, scale) in enumerate(zip(kinds, SCALES, strict=False)):
        sizes = configure_ip_adapter(own, kind)
        weights.append(draw_ip_adapter(sizes, index))
        adapter = build_skeleton(lambda sizes=sizes: IPAdapter(sizes))
        set_parameters(adapter, weights[-1].__getitem__)
        features = draw_features(kind, rows)
        with paddle.no_grad():
            made = adapter(paddle.to_tensor(features.reshape(-1, *features.shape[2:])))
        # The tokens of several pictures stand one after another.
        keys, values = (each.reshape([rows, -1, each.shape[-1]]) for each in made)
        images += [keys, values * scale]
    reference._load_ip_adapter_weights(list(map(split_names, weights)), low_cpu_mem_usage=False)
    for processor in reference.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = SCALES[: len(kinds)]

    with paddle.no_grad():
        tensors = [paddle.to_tensor(each) for each in (*feeds.values(), *added.values())]
        given = unet(*tensors, *images)
    with torch.no_grad():
        added = {name: torch.tensor(each) for name, each in added.items()}
        added["image_embeds"] = [torch.tensor(draw_features(kind, rows)) for kind in kinds]
        tensors = {name: torch.tensor(each) for name, each in feeds.items()}
        wanted = reference(**tensors, added_cond_kwargs=added).sample
        added["image_embeds"] = [0 * each for each in added["image_embeds"]]
        others = reference(**tensors, added_cond_kwargs=added).sample
    assert relative_error(given, wanted) <= LARGEST_ERROR
    assert (wanted - others).abs().max() > 0.01  # so that pictures matter


@pytest.mark.parametrize("options", UNETS.values(), ids=UNETS.keys())
def test_cross_attentions_have_diffusers_order(options):
    raw = configure(options)
    names = [name.removesuffix(".processor") for name in Reference(**raw).attn_processors]
    crossing = [name for name in names if name.endswith("attn2")]
    listed = UNet2DConditionConfig.from_dict(raw).list_cross_attentions()
    assert [path for path, _ in listed] == crossing


@pytest.mark.parametrize("adapters", [1, 2])
@pytest.mark.parametrize(("configs", "attentions"), [(SD_1_5, 16), (SDXL_BASE, 70)])
def test_unets_have_the_promised_counts(configs, attentions, adapters):
    own = UNet2DConditionConfig.from_dict(dict(configs["unet"]))
    config = AdaptedUNetConfig.of(own, adapters)
    assert replace(config, ip_adapters=0).census() == {
        **own.census(),
        **dict.fromkeys(config.census().keys() - own.census().keys(), 0),
    }
    network = build_skeleton(lambda: UNet2DConditionModel(config))
    promised = {"fuse-attention": (2 + adapters) * attentions, "merge-kv": attentions}
    passes = choose_passes(list(promised))
    assert {each.name: each.expect(network) for each in passes} == promised
    results, _ = apply_passes([MergeQKV(), MergeKV(), HoistInvariants()], network, strict=True)
    assert [result.count for result in results][:2] == [attentions, attentions]


def test_resamplers_have_the_promised_counts():
    own = UNet2DConditionConfig.from_dict(configure(SD1))
    network = build_skeleton(lambda: IPAdapter(configure_ip_adapter(own, "plus")))
    promised = {"fuse-attention": 4, "fuse-gelu": 4}
    passes = choose_passes(list(promised))
    assert {each.name: each.expect(network) for each in passes} == promised
