"""Merged weights of files that PEFT and diffusers write, against what they merge themselves."""

import json

import numpy as np
import pytest
from opened_adapters import merge, open_written

from fastdeploy_diffusion.checkpoints import open_checkpoint

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
diffusers = pytest.importorskip("diffusers")

TARGETS = {
    "unet": ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "conv1", "conv_shortcut", "linear_1"],
    "transformer": ["to_q", "to_k", "to_v", "to_out.0", "proj_mlp", "linear", "add_k_proj"],
}


def load_torch(folder, component):
    name = json.loads((folder / component / "config.json").read_text())["_class_name"]
    model = getattr(diffusers, name).from_pretrained(folder / component, torch_dtype=torch.float32)
    return model.eval()


def write_peft(model, component, random, **options):
    """Add an adapter with random numbers; returns the tensors of its file, and the merged model."""
    model.requires_grad_(False)
    config = peft.LoraConfig(r=4, target_modules=TARGETS[component], **options)
    model.add_adapter(config)
    for name, each in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            values = 0.2 * random.standard_normal(tuple(each.shape))
            each.data = torch.tensor(values, dtype=torch.float32)
        if "lora_magnitude" in name:
            each.data = each.data * 1.3 + 0.1
    state = peft.get_peft_model_state_dict(model)
    tensors = {f"{component}.{name}": each.detach().numpy() for name, each in state.items()}
    model.fuse_lora()
    return tensors


def list_merged(model):
    """The weights of a model with a fused adapter, by the names from before it."""
    return {
        name.replace(".base_layer", ""): each.detach().numpy()
        for name, each in model.state_dict().items()
        if "lora_" not in name
    }


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("model", ["tiny_sd1", "tiny_sdxl", "tiny_dev"])
def test_a_file_of_peft_gives_the_weights_that_peft_merges(request, tmp_path, model, dora):
    folder = request.getfixturevalue(model)
    component = "transformer" if model == "tiny_dev" else "unet"
    checkpoint = open_checkpoint(folder)
    reference = load_torch(folder, component)
    options = {"lora_alpha": 6, "use_dora": dora}
    tensors = write_peft(reference, component, np.random.default_rng(3), **options)
    said = {f"{component}.lora_alpha": 6, f"{component}.r": 4}
    metadata = {"lora_adapter_metadata": json.dumps(said)}
    adapter = open_written(checkpoint, tensors, tmp_path / "a.safetensors", metadata=metadata)
    merged, own = merge(checkpoint, component, [(adapter, 1.0)]), checkpoint.tensors(component)
    expected = list_merged(reference)
    assert expected.keys() == set(merged.names)
    changed = 0
    for name, each in expected.items():
        atol = 1e-5 * max(np.abs(each).max(), 1)
        np.testing.assert_allclose(merged.read(name), each, rtol=0, atol=atol, err_msg=name)
        changed += not np.array_equal(merged.read(name), own.read(name))
    assert changed == len({name.split(".lora_")[0] for name in tensors})


def test_names_of_xlabs_are_those_that_diffusers_converts(tiny_dev, tmp_path):
    checkpoint = open_checkpoint(tiny_dev)
    random, width = np.random.default_rng(8), 32
    tensors = {}
    for name, rows in {
        "double_blocks.0.processor.qkv_lora1": 3,
        "double_blocks.0.processor.qkv_lora2": 3,
        "double_blocks.0.processor.proj_lora1": 1,
        "double_blocks.0.processor.proj_lora2": 1,
        "single_blocks.1.processor.qkv_lora": 3,
    }.items():
        up = random.standard_normal((rows * width, 2))
        tensors[f"{name}.up.weight"] = up.astype(np.float32)
        tensors[f"{name}.down.weight"] = random.standard_normal((2, width)).astype(np.float32)
    convert = diffusers.loaders.lora_conversion_utils._convert_xlabs_flux_lora_to_diffusers
    converted = convert({name: torch.tensor(each) for name, each in tensors.items()})
    adapter = open_written(checkpoint, tensors, tmp_path / "a.safetensors")
    merged = merge(checkpoint, "transformer", [(adapter, 0.5)])
    layers = {name.split(".lora_")[0] for name in converted}
    assert len(layers) == 11
    for layer in layers:
        up, down = (converted[f"{layer}.lora_{letter}.weight"].numpy() for letter in "BA")
        name = f"{layer.removeprefix('transformer.')}.weight"
        added = merged.read(name) - checkpoint.tensors("transformer").read(name)
        np.testing.assert_allclose(added, 0.5 * up @ down, rtol=0, atol=1e-5)
