"""The names in files, what files say of themselves, and files that cannot be used."""

import json

import numpy as np
import pytest
from adapter_files import draw, draw_change
from opened_adapters import list_sources, merge, open_written
from safetensors.numpy import save_file

from fastdeploy_diffusion.adapters.adapter_file import AdapterWarning, open_adapter
from fastdeploy_diffusion.adapters.strengths import check_strength
from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.errors import AdapterError, CheckpointError

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
JOINED = ATTENTION.replace(".", "_")
LAYERS = "text_model.encoder.layers.1"
# Our layer, and names of the two matrices of its change: of SD 1.x, as trainers have written them.
NAMES = [
    *(
        (f"unet.{ATTENTION}.to_q", f"{name}.{down}", f"{name}.{up}")
        for name, down, up in (
            (f"lora_unet_{JOINED}_to_q", "lora_down.weight", "lora_up.weight"),
            (
                "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q",
                "lora_down.weight",
                "lora_up.weight",
            ),
            (f"lycoris_{JOINED}_to_q", "lora_down.weight", "lora_up.weight"),
            (f"unet.{ATTENTION}.to_q", "lora_A.weight", "lora_B.weight"),
            (f"{ATTENTION}.to_q", "lora_A.weight", "lora_B.weight"),
            (
                f"base_model.model.{ATTENTION}.to_q",
                "lora_A.default.weight",
                "lora_B.default.weight",
            ),
            (f"unet.{ATTENTION}.to_q", "lora.down.weight", "lora.up.weight"),
            (f"unet.{ATTENTION}.processor.to_q_lora", "down.weight", "up.weight"),
            (f"{ATTENTION}.processor.to_q_lora", "down.weight", "up.weight"),
        )
    ),
    (
        f"unet.{ATTENTION}.to_out.0",
        f"unet.{ATTENTION}.processor.to_out_lora.down.weight",
        f"unet.{ATTENTION}.processor.to_out_lora.up.weight",
    ),
    *(
        (f"text_encoder.encoder.layers.1.{ours}", f"{name}.{down}.weight", f"{name}.{up}.weight")
        for ours, name, down, up in (
            (
                "self_attn.q_proj",
                f"lora_te_{LAYERS.replace('.', '_')}_self_attn_q_proj",
                "lora_down",
                "lora_up",
            ),
            ("self_attn.k_proj", f"text_encoder.{LAYERS}.self_attn.k_proj", "lora_A", "lora_B"),
            ("mlp.fc2", "text_encoder.encoder.layers.1.mlp.fc2", "lora_A", "lora_B"),
            (
                "mlp.fc1",
                f"text_encoder.{LAYERS}.mlp.fc1",
                "lora_linear_layer.down",
                "lora_linear_layer.up",
            ),
            ("self_attn.out_proj", f"text_encoder.{LAYERS}.self_attn.to_out_lora", "down", "up"),
        )
    ),
]


@pytest.fixture(scope="module")
def checkpoint(tiny_sd1):
    return open_checkpoint(tiny_sd1)


def draw_lora(checkpoint, layer, down, up):
    component, _, name = layer.partition(".")
    out, into = checkpoint.tensors(component).shape(f"{name}.weight")
    return {down: draw((3, into)), up: draw((out, 3))}


@pytest.mark.parametrize(("layer", "down", "up"), NAMES, ids=[each[1] for each in NAMES])
def test_a_layer_has_many_names(checkpoint, tmp_path, layer, down, up):
    tensors = draw_lora(checkpoint, layer, down, up)
    adapter = open_written(checkpoint, tensors, tmp_path / "a.safetensors")
    component, _, name = layer.partition(".")
    name += ".weight"
    merged, own = merge(checkpoint, component, [(adapter, 1.0)]), checkpoint.tensors(component)
    expected = own.read(name) + tensors[up] @ tensors[down]
    np.testing.assert_allclose(merged.read(name), expected, rtol=0, atol=1e-5)
    others = [each for each in own if each != name]
    assert all(merged.digest_tensor(each) == own.digest_tensor(each) for each in others)
    assert merged.digest_tensor(name) != own.digest_tensor(name)


def test_flux_swaps_the_halves_of_the_last_modulation(tiny_dev, tmp_path):
    checkpoint = open_checkpoint(tiny_dev)
    name, ours = "lora_unet_final_layer_adaLN_modulation_1", "norm_out.linear.weight"
    shape = checkpoint.tensors("transformer").shape(ours)
    tensors = {f"{name}.diff": draw(shape)}
    adapter = open_written(checkpoint, tensors, tmp_path / "a.safetensors")
    merged = merge(checkpoint, "transformer", [(adapter, 1.0)])
    shift, scale = np.split(tensors[f"{name}.diff"], 2)
    expected = checkpoint.tensors("transformer").read(ours) + np.concatenate([scale, shift])
    np.testing.assert_allclose(merged.read(ours), expected, rtol=0, atol=1e-6)


def test_blocks_have_strengths_of_their_own(checkpoint, tmp_path):
    first, second = f"{ATTENTION}.to_q", "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
    tensors = {}
    for layer in (first, second):
        name = f"lora_unet_{layer.replace('.', '_')}"
        tensors |= draw_lora(
            checkpoint, f"unet.{layer}", f"{name}.lora_down.weight", f"{name}.lora_up.weight"
        )
    adapter = open_written(checkpoint, tensors, tmp_path / "a.safetensors")
    own = checkpoint.tensors("unet")

    def measure(strength, layer):
        merged = merge(checkpoint, "unet", [(adapter, strength)])
        return merged.read(f"{layer}.weight") - own.read(f"{layer}.weight")

    strengths = {"unet": 0.5, "unet.mid_block": -1.0}
    for layer, factor in ((first, 0.5), (second, -1.0)):
        np.testing.assert_allclose(
            measure(strengths, layer), factor * measure(1.0, layer), rtol=0, atol=1e-5
        )
    layers = [f"unet.{first}", f"unet.{second}"]
    assert check_strength(strengths, layers) == strengths
    for wrong in ({"unet.up_blocks": 1.0}, {"unet": True}, float("nan"), "1", 1e9):
        with pytest.raises(AdapterError):
            check_strength(wrong, layers)


def test_a_file_says_what_it_is_for(checkpoint, tmp_path):
    tensors = draw_lora(checkpoint, *NAMES[0])
    metadata = {
        "ss_base_model_version": "sd_v1",
        "ss_tag_frequency": json.dumps({"a": {"ring": 2, "star": 7}, "b": {"ring": 1}}),
    }
    adapter = open_written(checkpoint, tensors, tmp_path / "a.safetensors", metadata=metadata)
    assert adapter.metadata.base_model == "sd_v1"
    assert adapter.metadata.trigger_words == ("star", "ring")


def test_tensors_without_use_are_listed(checkpoint, tmp_path):
    layer, down, up = NAMES[0]
    tensors = draw_lora(checkpoint, layer, down, up)
    stray = {
        "lora_unet_nowhere_to_q.lora_up.weight": draw((2, 2)),
        f"{layer}.oft_blocks": draw((2,)),
    }
    path = tmp_path / "a.safetensors"
    with pytest.raises(AdapterError, match="2 of 4 tensors") as raised:
        open_written(checkpoint, {**tensors, **stray}, path)
    assert all(name in str(raised.value) for name in stray)
    with pytest.warns(AdapterWarning, match="2 of 4 tensors"):
        adapter = open_written(checkpoint, {**tensors, **stray}, path, strict=False)
    assert adapter.unused == tuple(sorted(stray))
    with pytest.raises(AdapterError, match="1 of 1 tensors"):  # a half
        open_written(checkpoint, {down: tensors[down]}, path)


def test_wrong_files_are_refused(checkpoint, tmp_path, tiny_sdxl):
    path = tmp_path / "a.safetensors"

    def read(tensors, match, error=AdapterError):
        with pytest.raises(error, match=match):
            open_written(checkpoint, tensors, path)

    layer = "lora_unet_double_blocks_0_img_mlp_0"
    read({f"{layer}.lora_up.weight": draw((4, 2))}, "changes no layer of SD 1.x.*for Flux")
    wide = {NAMES[0][1]: draw((3, 5)), NAMES[0][2]: draw((16, 3))}
    read(wide, r"for a weight of shape \(16, 5\), and that of this model has \(16, 16\)")
    first, second = NAMES[0], NAMES[1]
    both = draw_lora(checkpoint, *first) | draw_lora(checkpoint, *second)
    read(both, "changes .* twice")
    name = NAMES[0][1].removesuffix(".lora_down.weight")
    change = {f"{name}.{part}": each for part, each in draw_change("lora", (16, 16)).items()}
    read({**change, f"{name}.dora_scale": draw((3, 1))}, "make no change")
    read({**change, f"{name}.alpha": np.array([np.nan], np.float32)}, "make no change")

    for missing in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(AdapterError, match=r"does not exist|is a folder"):
            open_adapter(missing, checkpoint.family, list_sources(checkpoint))
    path.write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="not a readable"):
        open_adapter(path, checkpoint.family, list_sources(checkpoint))


def test_folders_of_peft_say_alpha_beside_the_file(checkpoint, tmp_path):
    layer, down, up = NAMES[4]
    tensors = draw_lora(checkpoint, layer, down, up)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = {"lora_alpha": 6, "r": 3, "alpha_pattern": {}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    adapter = open_adapter(tmp_path, checkpoint.family, list_sources(checkpoint))
    name = f"{layer.partition('.')[2]}.weight"
    added = merge(checkpoint, "unet", [(adapter, 1.0)]).read(name)
    added = added - checkpoint.tensors("unet").read(name)
    np.testing.assert_allclose(added, 2 * tensors[up] @ tensors[down], rtol=0, atol=1e-5)
