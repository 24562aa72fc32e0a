"""Requests with image prompts: what runs when, what is refused, and what a picture says of it."""

import json
import shutil

import numpy as np
import pytest
from component_programs import SD1
from PIL import Image
from safetensors.numpy import load_file, save_file
from tiny_controlnet import write_tiny_controlnet
from tiny_ip_adapter import (
    configure_ip_adapter,
    draw_ip_adapter,
    write_tiny_image_encoder,
    write_tiny_ip_adapter,
)

from fastdeploy_diffusion import (
    DiffusionConfig,
    FluxPipeline,
    GenerationRequest,
    SDPipeline,
    SDXLPipeline,
)
from fastdeploy_diffusion.errors import (
    CheckpointError,
    ConfigError,
    RequestError,
    ResourceError,
    UnsupportedModelError,
)
from fastdeploy_diffusion.families.networks.unet import UNet2DConditionConfig
from fastdeploy_diffusion.images import METADATA_KEY
from fastdeploy_diffusion.runtime.session import Session

REQUEST = {"seed": 5, "num_inference_steps": 3, "output_type": "np"}


def draw_picture(seed=0, width=45, height=33):
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


PICTURE, OTHER = draw_picture(), draw_picture(1)


@pytest.fixture(scope="module")
def adapters(tiny_sd1, tmp_path_factory):
    """The files of a base and a plus, with a vision tower beside them."""
    folder = tmp_path_factory.mktemp("adapters")
    write_tiny_image_encoder(folder / "image_encoder")
    return [
        write_tiny_ip_adapter(folder / f"{kind}.safetensors", tiny_sd1, kind, seed=seed)
        for seed, kind in enumerate(("base", "plus"))
    ]


def open_pipeline(model, adapters, engine="openvino", **options):
    choice = {"engine": engine, "cpu_fallback": False, "cache": False, **options}
    return SDPipeline(DiffusionConfig(model_path=model, ip_adapters=adapters, **choice))


def psnr(ours, reference):
    return -10 * np.log10(np.mean((ours - reference) ** 2) + 1e-20)


@pytest.fixture
def runs(monkeypatch):
    """The inputs of the towers and adapters that ran, in order; proofs are not among them."""
    found, run = [], Session.run

    def record(self, **feeds):
        if type(self).__name__ == "RecoveringSession":
            found.extend({"pixel_values", "image_embeds", "hidden_states"} & feeds.keys())
        return run(self, **feeds)

    monkeypatch.setattr(Session, "run", record)
    return found


def test_engines_with_their_passes_draw_what_the_layers_draw(tiny_sd1, adapters, tmp_path):
    pictures = {"ip_adapter_image": [PICTURE, [OTHER, PICTURE]]}
    with open_pipeline(tiny_sd1, adapters, "paddle-eager", passes=[]) as layers:
        wanted = layers.text_to_image("a cat", **pictures, **REQUEST)
        others = layers.text_to_image("a cat", ip_adapter_image=[OTHER, OTHER], **REQUEST)
    assert psnr(others, wanted) < 40
    for engine in ("openvino", "onnxruntime"):
        passes = ["hoist-invariants", "merge-qkv", "merge-kv", "fuse-attention"]
        kept = {"cache": True, "cache_dir": tmp_path / engine}
        for is_kept in (False, True):
            with open_pipeline(tiny_sd1, adapters, engine, passes=passes, **kept) as pipeline:
                assert psnr(pipeline.text_to_image("a cat", **pictures, **REQUEST), wanted) >= 50
                reports = {each.name: each for each in pipeline.report.components}
            assert {each.cached for each in reports.values()} == {is_kept}
        assert reports["denoiser"].passes["hoist-invariants"] > 0
        names = ["image_encoder_0", "ip_adapter_0", "ip_adapter_1"]
        assert [each for each in reports if each.startswith("i")] == names
        for name in (*names, "denoiser"):
            assert reports[name].relative_error <= reports[name].tolerance


def test_half_precision_of_adapters_and_staged_memory(tiny_sd1, adapters):
    settings = {"ip_adapter_image": [PICTURE, OTHER], **REQUEST}
    with open_pipeline(tiny_sd1, adapters, "paddle-eager") as layers:
        wanted = layers.text_to_image("a cat", **settings)
    half = [{"path": each, "precision": "bf16"} for each in adapters]
    with open_pipeline(tiny_sd1, half, memory="staged", cpu_fallback=True) as pipeline:
        given = pipeline.text_to_image("a cat", **settings)
        found = {each.name: each.precision for each in pipeline.report.components}
    # Where the processor has no such instructions, they fall back to float32.
    assert {each for name, each in found.items() if name.startswith("i")} <= {"bf16", "fp32"}
    assert found["denoiser"] == "fp32"
    assert psnr(given, wanted) >= 30


def test_towers_and_adapters_run_once_a_request(tiny_sd1, adapters, runs):
    with open_pipeline(tiny_sd1, adapters, "paddle-eager") as pipeline:
        settings = {**REQUEST, "ip_adapter_image": [PICTURE, [OTHER, PICTURE]]}
        first = pipeline.generate("a cat", num_images_per_prompt=2, **settings)
        # Two pictures, and one of zeros for the second adapter's negative side.
        assert runs == ["pixel_values"] * 3 + ["image_embeds"] * 2 + ["hidden_states"] * 3
        runs.clear()
        again = pipeline.generate("a cat", **{**settings, "seed": [5, 6]}, num_images_per_prompt=2)
        np.testing.assert_array_equal(again.images, first.images)
        assert runs == ["image_embeds"] * 2 + ["hidden_states"] * 3
        found = [each.embeddings[-1] for each in (first, again)]
        assert [(each.component, each.texts, each.kept) for each in found] == [
            ("image_encoder_0", 3, 0),
            ("image_encoder_0", 3, 3),
        ]
        runs.clear()
        settings["ip_adapter_image"] = [PICTURE, draw_picture(7)]
        pipeline.text_to_image("a cat", guidance_scale=1.0, **settings)
        assert runs == ["pixel_values", "image_embeds", "hidden_states"]


def test_kept_pictures_need_no_tower_from_disk_either(tiny_sd1, adapters, tmp_path, runs):
    options = {"cache": True, "cache_dir": tmp_path, "embedding_cache": {"disk_mib": 10}}
    pictures = []
    for _ in range(2):
        runs.clear()
        with open_pipeline(tiny_sd1, adapters[1:], **options, memory="staged") as pipeline:
            pictures.append(pipeline.text_to_image("a cat", ip_adapter_image=PICTURE, **REQUEST))
    assert runs == ["hidden_states"] * 2
    np.testing.assert_array_equal(*pictures)
    off = {"embedding_cache": {"memory_mib": 0}}
    with open_pipeline(tiny_sd1, adapters[1:], "paddle-eager", **off) as pipeline:
        for _ in range(2):
            runs.clear()
            pipeline.text_to_image("a cat", ip_adapter_image=PICTURE, **REQUEST)
            assert runs.count("pixel_values") == 2


def test_a_second_pass_sees_the_pictures_and_a_refiner_sees_none(
    tiny_sdxl, tiny_refiner, tmp_path, runs
):
    write_tiny_image_encoder(tmp_path / "image_encoder")
    adapter = write_tiny_ip_adapter(tmp_path / "plus.safetensors", tiny_sdxl, "plus")
    size = {"height": 16, "width": 16, "ip_adapter_image": PICTURE}
    options = {"engine": "paddle-eager", "refiner": str(tiny_refiner), "ip_adapters": [adapter]}
    with SDXLPipeline(DiffusionConfig(model_path=tiny_sdxl, **options)) as pipeline:
        pictures = [
            pipeline.text_to_image("a cat", **{**REQUEST, **size, **more})
            for more in ({}, {"ip_adapter_image": OTHER}, {"ip_adapter_scale": 0.0})
        ]
        assert len({each.tobytes() for each in pictures}) == 3
    options["refiner"] = None
    with SDXLPipeline(DiffusionConfig(model_path=tiny_sdxl, **options)) as pipeline:
        runs.clear()
        hires = {"hires_scale": 2.0, "hires_strength": 0.7}
        drawn = pipeline.text_to_image("a cat", **REQUEST, **size, **hires)
        assert drawn.shape == (1, 32, 32, 3)
        # Both passes read what the adapter makes; the tower saw the pictures once.
        assert runs == ["pixel_values"] * 2 + ["hidden_states"] * 4
        settings = {**REQUEST, **size, **hires, "ip_adapter_image": OTHER}
        assert psnr(pipeline.text_to_image("a cat", **settings), drawn) < 60


def test_requests_of_a_batch_get_what_they_get_alone(tiny_sd1, adapters):
    requests = [
        {"ip_adapter_image": PICTURE, "ip_adapter_scale": 0.5},
        {"ip_adapter_image": OTHER},
        {"ip_adapter_image": [[OTHER, PICTURE]]},  # which has more tokens
        {"ip_adapter_image": PICTURE, "guidance_scale": 1.0},
    ]
    with open_pipeline(tiny_sd1, adapters[1:]) as pipeline:
        alone = [pipeline.generate("a cat", **REQUEST, **each).images for each in requests]
        assert len({each.tobytes() for each in alone}) == len(requests)
        with pipeline.batch(8) as batch:
            together = [batch.submit("a cat", **REQUEST, **each) for each in requests]
        for wanted, each in zip(alone, together, strict=True):
            np.testing.assert_array_equal(each.result().images, wanted)


def test_a_picture_says_what_it_was_shown(tiny_sd1, adapters):
    with open_pipeline(tiny_sd1, adapters, "paddle-eager") as pipeline:
        settings = {"num_inference_steps": 1, "seed": 1, "ip_adapter_scale": [0.25, 0.5]}
        image = pipeline.text_to_image("a cat", ip_adapter_image=[PICTURE, OTHER], **settings)
        noted = json.loads(image.info[METADATA_KEY])
        base, plus = noted["run"]["image_prompt"]
        assert (base["model"], plus["model"]) == ("base.safetensors", "plus.safetensors")
        assert (base["scale"], plus["scale"]) == (0.25, 0.5)
        digests = [*base["image_sha256"], *plus["image_sha256"], base["model_digest"]]
        digests += [plus["model_digest"], base["image_encoder_digest"]]
        assert {len(each) for each in digests} == {64}
        assert len(set(digests)) == 5
        assert base["image_encoder_digest"] == plus["image_encoder_digest"]
        settings["ip_adapter_scale"] = 0.25
        image = pipeline.text_to_image("a cat", ip_adapter_image=[PICTURE, OTHER], **settings)
    assert json.loads(image.info[METADATA_KEY])["settings"]["ip_adapter_scale"] == 0.25


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "has 2 IP-Adapters, and there is no ip_adapter_image"),
        ({"ip_adapter_image": PICTURE}, "1 entries for 2 IP-Adapters"),
        ({"ip_adapter_image": [PICTURE] * 3}, "3 entries for 2 IP-Adapters"),
        ({"ip_adapter_image": [PICTURE, []]}, r"ip_adapter_image\[1\] is an empty list"),
        ({"ip_adapter_image": [PICTURE, "nowhere.png"]}, "no file that exists"),
        ({"ip_adapter_image": [PICTURE, 7]}, r"ip_adapter_image\[1\] is 7"),
        ({"ip_adapter_scale": 0.5}, "there is no"),
        ({"ip_adapter_image": [PICTURE, OTHER], "ip_adapter_scale": -1}, "scale is -1"),
        ({"ip_adapter_image": [PICTURE, OTHER], "ip_adapter_scale": 11}, "scale is 11"),
        ({"ip_adapter_image": [PICTURE, OTHER], "ip_adapter_scale": [1, np.nan]}, "scale is"),
        ({"ip_adapter_image": [PICTURE, OTHER], "ip_adapter_scale": [1]}, "1 numbers for 2"),
    ],
)
def test_requests_that_are_refused(tiny_sd1, adapters, settings, message):
    pipeline = open_pipeline(tiny_sd1, adapters, "paddle-eager")
    with pytest.raises(RequestError, match=message):
        pipeline.describe_request(GenerationRequest(prompt="a cat", **settings))


def test_several_pictures_for_one_adapter_are_a_list_in_a_list(tiny_sd1, adapters):
    pipeline = open_pipeline(tiny_sd1, adapters[:1], "paddle-eager")
    with pytest.raises(RequestError, match="2 entries for 1") as refused:
        pipeline.generate("a cat", ip_adapter_image=[PICTURE, OTHER])
    assert "[[" in refused.value.fix
    line = Image.new("RGB", (3_000_000, 1))
    with pytest.raises(ResourceError, match="3000000 x 1"):
        pipeline.generate("a cat", ip_adapter_image=line)


def test_pipelines_that_are_refused(tiny_sd1, tiny_dev, adapters):
    given = GenerationRequest(prompt="", ip_adapter_image=PICTURE)
    with pytest.raises(RequestError, match="there is no IP-Adapter that takes it"):
        SDPipeline(tiny_sd1).describe_request(given)
    with pytest.raises(RequestError, match="there is no IP-Adapter that takes it"):
        FluxPipeline(tiny_dev).describe_request(given)
    with pytest.raises(ConfigError, match="Flux does not have"):
        FluxPipeline(DiffusionConfig(model_path=tiny_dev, ip_adapters=adapters))
    with pytest.raises(ConfigError, match="precision of an IP-Adapter is 'int8'"):
        open_pipeline(tiny_sd1, [{"path": adapters[0], "precision": "int8"}])
    with pytest.raises(ConfigError, match=r"ip_adapters\.0\.path"):
        open_pipeline(tiny_sd1, [{"scale": 0.5}])
    with pytest.raises(ConfigError, match=r"ip_adapters\.0\.scale is 11"):
        open_pipeline(tiny_sd1, [{"path": adapters[0], "scale": 11}])


def test_adapters_that_do_not_fit_are_refused(tiny_sd1, tiny_sdxl, adapters, tmp_path):
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(adapters[0].read_bytes())
    with pytest.raises(CheckpointError, match="has no vision tower") as refused:
        open_pipeline(tiny_sd1, [alone])
    assert "image_encoder_path" in refused.value.allowed
    tower = adapters[0].parent / "image_encoder"
    open_pipeline(tiny_sd1, [{"path": alone, "image_encoder_path": tower}])
    whole = shutil.copytree(tiny_sd1, tmp_path / "whole")
    shutil.copytree(tower, whole / "image_encoder")
    (own,) = open_pipeline(whole, [alone])._image_prompts.adapters
    assert own.encoder.checkpoint.path == whole / "image_encoder"
    other = write_tiny_ip_adapter(tmp_path / "xl" / "a.safetensors", tiny_sdxl, "base")
    with pytest.raises(UnsupportedModelError, match="does not fit the UNet"):
        open_pipeline(tiny_sd1, [{"path": other, "image_encoder_path": tower}])
    weights = load_file(adapters[0])
    for kind in ("to_k_ip", "to_v_ip"):
        weights[f"ip_adapter.3.{kind}.weight"] = weights[f"ip_adapter.3.{kind}.weight"][:-1]
    save_file(weights, alone)
    with pytest.raises(UnsupportedModelError, match="keys for cross-attention 1 have a width of"):
        open_pipeline(tiny_sd1, [{"path": alone, "image_encoder_path": tower}])
    weights = load_file(adapters[0])
    weights["image_proj.norm.weight"] = weights["image_proj.norm.weight"][:-1]
    save_file(weights, alone)
    with pytest.raises(CheckpointError, match=r"image_proj\.norm\.weight"):
        open_pipeline(tiny_sd1, [{"path": alone, "image_encoder_path": tower}])
    narrow = write_tiny_image_encoder(tmp_path / "narrow", projection_dim=9)
    with pytest.raises(UnsupportedModelError, match=r"gives 9 \(projection_dim\)"):
        open_pipeline(tiny_sd1, [{"path": adapters[0], "image_encoder_path": narrow}])
    open_pipeline(tiny_sd1, [{"path": adapters[1], "image_encoder_path": narrow}])
    unet = UNet2DConditionConfig.from_dict({"norm_num_groups": 4, **SD1})
    save_file(draw_ip_adapter(configure_ip_adapter(unet, "plus", embed_dim=23)), alone)
    with pytest.raises(UnsupportedModelError, match="does not fit"):
        open_pipeline(tiny_sd1, [{"path": alone, "image_encoder_path": tower}])


def test_with_a_controlnet_and_over_a_picture(tiny_sd1, adapters, tmp_path):
    net = write_tiny_controlnet(tmp_path / "net", tiny_sd1)
    edges = draw_picture(2, 32, 32)
    settings = {**REQUEST, "control_image": edges, "ip_adapter_image": PICTURE}
    options = {"controlnets": [net], "passes": ["hoist-invariants"]}
    with open_pipeline(tiny_sd1, adapters[:1], "paddle-eager", controlnets=[net]) as layers:
        wanted = layers.text_to_image("a cat", **settings)
    with open_pipeline(tiny_sd1, adapters[:1], **options) as pipeline:
        assert psnr(pipeline.text_to_image("a cat", **settings), wanted) >= 50
        pipeline.image_to_image("a cat", edges, strength=0.5, **settings)
        names = [each.name for each in pipeline.report.components]
    assert names == [
        *("text_encoder", "image_encoder", "ip_adapter", "vae_encoder", "controlnet"),
        *("denoiser", "vae_decoder"),
    ]


def test_each_adapter_has_its_own_engine_tower_and_scale(tiny_sd1, adapters, tmp_path):
    tower = write_tiny_image_encoder(tmp_path / "tower", seed=7)
    (tmp_path / "c.yaml").write_text(
        f"model_path: {tiny_sd1}\nengine: paddle-eager\ncache: false\n"
        f"ip_adapters:\n  - path: {adapters[0]}\n    image_encoder_path: tower\n"
        f"    engine: openvino\n    scale: 0.5\n  - {adapters[1]}\n"
    )
    pipeline = SDPipeline(DiffusionConfig.from_yaml(tmp_path / "c.yaml"))
    engines = {each.name: each.engine for each in pipeline.report.components}
    for index, engine in enumerate(("openvino", "paddle-eager")):
        assert engines[f"image_encoder_{index}"] == engines[f"ip_adapter_{index}"] == engine
    first, second = pipeline._image_prompts.adapters
    assert first.encoder.checkpoint.path == tower
    assert second.encoder.checkpoint.path == adapters[1].parent / "image_encoder"
    request = GenerationRequest(prompt="", ip_adapter_image=[PICTURE, OTHER])
    assert pipeline._plan(request).image_prompt.scales == (0.5, 1.0)


def test_build_makes_what_a_request_needs(tiny_sd1, adapters, tmp_path):
    with open_pipeline(tiny_sd1, adapters, cache=True, cache_dir=tmp_path) as pipeline:
        pipeline.build(32, 32)
    with open_pipeline(tiny_sd1, adapters, cache=True, cache_dir=tmp_path) as pipeline:
        pictures = [PICTURE, OTHER]
        pipeline.text_to_image("a cat", height=32, width=32, ip_adapter_image=pictures, **REQUEST)
        assert all(each.cached for each in pipeline.report.components)
