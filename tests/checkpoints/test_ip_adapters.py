import numpy as np
import pytest
from component_programs import SD1
from safetensors.numpy import save_file
from tiny_ip_adapter import configure_ip_adapter, draw_ip_adapter

from fastdeploy_diffusion.checkpoints import build_skeleton, check_weights, open_checkpoint
from fastdeploy_diffusion.checkpoints.ip_adapter import open_ip_adapter
from fastdeploy_diffusion.errors import CheckpointError, UnsupportedModelError
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.models.ip_adapter import IPAdapter

UNET = UNet2DConditionConfig.from_dict({"norm_num_groups": 4, **SD1})


def write(path, weights):
    save_file(weights, path)
    return path


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_the_sizes_are_those_of_the_tensors(kind, tmp_path):
    config = configure_ip_adapter(UNET, kind)
    found = open_ip_adapter(write(tmp_path / "a.safetensors", draw_ip_adapter(config)))
    assert found.config == config
    assert found.config.kind == kind
    check_weights(build_skeleton(lambda: IPAdapter(found.config)), found.source)


def test_a_file_of_torch_holds_its_parts_as_dictionaries(tmp_path):
    torch = pytest.importorskip("torch")
    config, parts = configure_ip_adapter(UNET, "plus"), {"image_proj": {}, "ip_adapter": {}}
    weights = draw_ip_adapter(config)
    for name, values in weights.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = torch.from_numpy(values)
    torch.save(parts, tmp_path / "ip-adapter.bin")
    found = open_ip_adapter(tmp_path / "ip-adapter.bin")
    assert found.config == config
    for name, values in weights.items():
        np.testing.assert_array_equal(found.source.read(name), values)


def test_tensors_have_the_published_names():
    plus = draw_ip_adapter(configure_ip_adapter(UNET, "plus"))
    assert {name.removeprefix("image_proj.") for name in plus if "layers.1" in name} == {
        *(
            f"layers.1.0.{name}.{kind}"
            for name in ("norm1", "norm2")
            for kind in ("weight", "bias")
        ),
        *(f"layers.1.0.{name}.weight" for name in ("to_q", "to_kv", "to_out")),
        *("layers.1.1.0.weight", "layers.1.1.0.bias", "layers.1.1.1.weight", "layers.1.1.3.weight"),
    }
    base = draw_ip_adapter(configure_ip_adapter(UNET, "base"))
    assert {name for name in base if name.startswith("image_proj")} == {
        f"image_proj.{name}.{kind}" for name in ("proj", "norm") for kind in ("weight", "bias")
    }
    numbers = {name.split(".")[1] for name in base if name.startswith("ip_adapter")}
    assert numbers == {str(2 * index + 1) for index in range(len(UNET.list_cross_attentions()))}


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ({"image_proj.perceiver_resampler.proj_in.weight": (2, 2)}, "FaceID"),
        ({"image_proj.proj.0.weight": (2, 2), "image_proj.norm.weight": (2,)}, "FaceID"),
        ({"ip_adapter.0.to_k_lora.down.weight": (2, 2)}, "FaceID"),
        ({"image_proj.proj.0.weight": (2, 2), "image_proj.proj.3.weight": (2,)}, "full-face"),
        ({"double_blocks.0.processor.ip_adapter.weight": (2, 2)}, "of Flux"),
    ],
)
def test_other_kinds_are_named(added, message, tmp_path):
    weights = draw_ip_adapter(configure_ip_adapter(UNET, "base"))
    weights = {name: each for name, each in weights.items() if name.startswith("ip_adapter")}
    weights |= {name: np.zeros(shape, np.float32) for name, shape in added.items()}
    with pytest.raises(UnsupportedModelError, match=message):
        open_ip_adapter(write(tmp_path / "a.safetensors", weights))


def test_what_is_no_adapter_is_refused(tiny_sd1, tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        open_ip_adapter(tmp_path / "missing.safetensors")
    (tmp_path / "ip-adapter_sd15.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"not a readable file of torch\.save"):
        open_ip_adapter(tmp_path / "ip-adapter_sd15.bin")
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="not an IP-Adapter"):
        open_ip_adapter(tmp_path / "a.txt")
    weights = draw_ip_adapter(configure_ip_adapter(UNET, "base"))
    right = write(tmp_path / "right.safetensors", weights)
    with pytest.raises(CheckpointError, match="folder") as refused:
        open_ip_adapter(tmp_path)
    assert "right.safetensors" in refused.value.fix
    with pytest.raises(CheckpointError, match="looks like an IP-Adapter"):
        open_checkpoint(right)
    with pytest.raises(CheckpointError, match="no IP-Adapter's"):
        open_ip_adapter(tiny_sd1 / "unet" / "diffusion_pytorch_model.safetensors")
    write(tmp_path / "more.safetensors", {**weights, "other": np.zeros(3, np.float32)})
    with pytest.raises(CheckpointError, match="no IP-Adapter's: other"):
        open_ip_adapter(tmp_path / "more.safetensors")
    lacking = {name: each for name, each in weights.items() if ".3.to_k" not in name}
    with pytest.raises(CheckpointError, match="the attentions 1, 5"):
        open_ip_adapter(write(tmp_path / "lacking.safetensors", lacking))
    flat = {**weights, "ip_adapter.1.to_k_ip.weight": np.zeros(8, np.float32)}
    with pytest.raises(CheckpointError, match=r"has the shape \(8,\)"):
        open_ip_adapter(write(tmp_path / "flat.safetensors", flat))
    plus = draw_ip_adapter(configure_ip_adapter(UNET, "plus"))
    plus["image_proj.layers.0.0.to_q.weight"] = np.zeros((100, 20), np.float32)
    with pytest.raises(CheckpointError, match="queries of width 100"):
        open_ip_adapter(write(tmp_path / "heads.safetensors", plus))
    del plus["image_proj.latents"]
    with pytest.raises(CheckpointError, match=r"latents is missing"):
        open_ip_adapter(write(tmp_path / "latents.safetensors", plus))
