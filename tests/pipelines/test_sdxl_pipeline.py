"""SDXLPipeline: what it refuses, what it warns of, what it does once, what it writes beside."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from checkpoint_writers import write_sparse
from ldm_reference import single_file
from tiny_sdxl import shrink_sdxl

from fastdeploy_diffusion import DiffusionConfig, GenerationRequest, SDPipeline, SDXLPipeline
from fastdeploy_diffusion.benchmark.random_checkpoint import write_random_checkpoint
from fastdeploy_diffusion.errors import (
    CheckpointError,
    ConfigError,
    RequestError,
    UnsupportedModelError,
)
from fastdeploy_diffusion.families.published.sd import SDXL_BASE
from fastdeploy_diffusion.images import read_settings
from fastdeploy_diffusion.predictors.recovering_session import RecoveringSession

STAGES = ["text_encoder", "text_encoder_2", "denoiser", "vae_decoder"]
QUICK = {"seed": 5, "num_inference_steps": 2}
SIZES = {"negative_original_size": (24, 32), "negative_target_size": [512, 256]}
UNSAFE = "force_zeros_for_empty_prompt"


def open_sdxl(folder, **options):
    options = {"engine": "paddle-eager", **options}
    return SDXLPipeline(DiffusionConfig(model_path=folder, **options))


@pytest.fixture(scope="module")
def pipeline(tiny_sdxl):
    return open_sdxl(tiny_sdxl)


@pytest.fixture
def copied(tiny_sdxl, tmp_path):
    return shutil.copytree(tiny_sdxl, tmp_path / "model")


def plan(pipeline, **settings):
    """What a request would do, without doing it."""
    return pipeline._plan(pipeline.request_class(prompt="a dog", **settings))


def pixels(image):
    return np.asarray(image)


def psnr(given, wanted):
    assert given.shape == wanted.shape
    return -10 * np.log10(np.mean((given - wanted) ** 2) + 1e-20)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"original_size": 32}, r"original_size is 32\n  allowed: \(height, width\), two whole"),
        ({"original_size": (0, 32)}, r"original_size is \(0, 32\)"),
        ({"target_size": (32, 32, 3)}, r"target_size is \(32, 32, 3\)"),
        ({"target_size": (32.0, 32)}, r"target_size is \(32.0, 32\)"),
        ({"crops_coords_top_left": (-1, 0)}, r"allowed: \(top, left\), two whole .* from 0 to"),
        ({"crops_coords_top_left": (True, 0)}, "crops_coords_top_left is"),
        ({"original_size": "32"}, "original_size is '32'"),
        (
            {"negative_original_size": (32, 32)},
            "negative_original_size given without negative_target_size",
        ),
        (
            {"negative_crops_coords_top_left": (1, 1)},
            "given without negative_original_size and negative_target_size",
        ),
        ({"prompt_2": ["a", "b"]}, "prompt_2 has 2 texts for 1 prompts"),
        ({"prompt_2": 7}, "prompt_2 is 7"),
        ({"negative_prompt_2": "a"}, "give negative_prompt as well"),
        ({"clip_skip": 2}, "clip_skip is 2\n  allowed: 0 to 1, the layers of text_encoder"),
        ({"height": 33}, "height is 33"),
        ({"eta": 2.0}, "eta is 2.0"),
        ({"latents": np.zeros((1, 4, 8, 8), np.float32)}, "latents have the shape"),
    ],
)
def test_requests_that_are_refused(pipeline, settings, words):
    with pytest.raises(RequestError, match=words):
        plan(pipeline, **settings)


def test_sizes_without_a_negative_prompt_to_tell_them_are_a_warning(pipeline):
    with pytest.warns(UserWarning, match="negative_target_size have no effect with") as warned:
        pipeline.describe_request(
            pipeline.request_class(prompt="a dog", guidance_scale=1.0, **SIZES)
        )
    assert len(warned) == 1


def test_defaults_are_those_of_the_published_model(pipeline, tmp_path):
    found = plan(pipeline)
    assert (found.height, found.width) == (32, 32)
    assert (found.num_inference_steps, found.guidance_scale) == (50, 5.0)
    assert found.sizes == found.negative_sizes == (32, 32, 0, 0, 32, 32)
    assert found.has_zero_negative
    assert plan(pipeline, height=48).sizes == (48, 32, 0, 0, 48, 32)
    file = write_sparse(tmp_path / "sdxl.safetensors", single_file("sdxl"))
    with pytest.raises(CheckpointError, match="which carries no tokenizers") as caught:
        open_sdxl(file)
    assert "any diffusers folder of SDXL" in caught.value.fix
    opened = open_sdxl(file, tokenizer_path=pipeline.config.model_path)
    request = GenerationRequest(prompt="a dog", seed=1)
    asked = opened.describe_request(request)
    assert (asked["height"], asked["width"], asked["guidance_scale"]) == (1024, 1024, 5.0)
    preset = DiffusionConfig.from_preset(
        "sdxl", model_path=pipeline.config.model_path, engine="paddle-eager"
    )
    assert SDXLPipeline(preset).describe_request(request) == asked


def test_pictures_can_be_drawn_again_from_their_metadata(pipeline):
    pictures = pipeline.text_to_image(
        ["a dog", "a cat"],
        prompt_2="a large circle",
        negative_prompt=["", "ugly"],
        negative_prompt_2="blue",
        clip_skip=1,
        height=24,
        original_size=(np.int64(640), 480),
        crops_coords_top_left=(3, 1),
        **SIZES,
        **QUICK,
    )
    # In diffusers, pictures of a batch swap the sizes of their prompts and negative prompts.
    for picture in pictures:
        settings = read_settings(picture)
        assert settings["original_size"] == [640, 480]
        assert settings["prompt_2"] == "a large circle"
        again = pipeline.text_to_image(**settings)
        np.testing.assert_allclose(pixels(again), pixels(picture), atol=1)
    assert read_settings(pictures[0])["negative_prompt"] == ""
    plain = read_settings(pipeline.text_to_image("a dog", **QUICK))
    assert not {"negative_prompt", "prompt_2", "target_size"} & plain.keys()


def test_everything_that_it_is_told_matters(pipeline):
    def draw(**settings):
        return pipeline.text_to_image("a dog", **settings, **QUICK, output_type="np")

    plain = draw()
    for changes in (
        {"prompt_2": "a cat"},
        {"negative_prompt": ""},
        {"negative_prompt": "", "negative_prompt_2": "ugly"},
        {"original_size": (640, 480)},
        {"crops_coords_top_left": (8, 0)},
        {"target_size": (64, 64)},
        SIZES,
    ):
        assert psnr(draw(**changes), plain) < 60


def test_each_text_is_read_once_by_each_encoder(pipeline, monkeypatch):
    runs, run = Counter(), RecoveringSession.run
    names = [each.name for each in pipeline.report.components]

    def count(session, **feeds):
        runs.update(name for name in names if session in pipeline.component(name).pool.sessions)
        return run(session, **feeds)

    monkeypatch.setattr(RecoveringSession, "run", count)
    pipeline.close()
    request = pipeline.request_class(
        prompt=["a dog", "a cat"], prompt_2=["a cat", "a dog"], negative_prompt="a cat", **QUICK
    )
    for kept in (0, 2):
        result = pipeline.generate(request)
        counts = [(each.component, each.kept, each.texts) for each in result.embeddings]
        assert counts == [("text_encoder", kept, 2), ("text_encoder_2", kept, 2)]
    assert (runs["text_encoder"], runs["text_encoder_2"]) == (2, 2)
    # Zeros are nothing to read.
    runs.clear()
    pipeline.close()
    pipeline.text_to_image("a dog", **QUICK)
    assert (runs["text_encoder"], runs["text_encoder_2"]) == (1, 1)


def test_one_component_is_in_memory_at_a_time(tiny_sdxl, pipeline, watch):
    staged = open_sdxl(tiny_sdxl, memory="staged")
    given = staged.text_to_image("a dog", **QUICK)
    assert (watch.loaded, watch.most, watch.open) == (STAGES, 1, [])
    np.testing.assert_array_equal(pixels(given), pixels(pipeline.text_to_image("a dog", **QUICK)))


@pytest.mark.slow
def test_engines_agree_in_every_size_of_a_range(tiny_sdxl, pipeline):
    options = {"enable_dynamic_shape": True, "shapes": {"batch": (1, 2, 4)}}
    free = open_sdxl(tiny_sdxl, engine="paddle", **options)
    for size in ((32, 32), (24, 44)):
        settings = {**QUICK, "height": size[0], "width": size[1], "output_type": "np"}
        given = free.text_to_image(["a dog", "a cat"], **settings)
        wanted = pipeline.text_to_image(["a dog", "a cat"], **settings)
        assert psnr(given, wanted) >= 120  # 124 here
    assert [each.name for each in free.report.components] == STAGES
    for component in free.report.components:
        assert component.relative_error <= component.tolerance


@pytest.mark.slow
def test_a_vae_that_overflows_in_half_precision(tmp_path, pipeline):
    """As that of the published model does: another precision takes its place."""
    model = tmp_path / "model"
    write_random_checkpoint(model, shrink_sdxl(vae={"scaling_factor": 1e-6}))
    exact = {"engine": "paddle-eager", "precision": "fp32"}
    half = open_sdxl(
        model, engine="onnxruntime", precision="fp16", text_encoder=exact, denoiser=exact
    )
    with pytest.warns(UserWarning, match="vae_decoder: ") as warned:
        given = half.text_to_image("a dog", output_type="np", **QUICK)
    assert len(warned) == 1
    assert half.report.components[-1].precision in ("bf16", "fp32")
    wanted = open_sdxl(model).text_to_image("a dog", output_type="np", **QUICK)
    assert psnr(given, wanted) >= 50  # the decoder in bf16: 56 here


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory": "streamed"}, "memory is 'streamed', which SDXL does not have"),
        ({"defaults": {"max_sequence_length": 9}}, "which SDXL does not have"),
        ({"tokenizer_path": "."}, "tokenizer_path is ., which lacks tokenizer or tokenizer_2"),
    ],
)
def test_options_that_sdxl_does_not_have(tiny_sdxl, options, words):
    with pytest.raises((ConfigError, CheckpointError), match=words):
        open_sdxl(tiny_sdxl, **options)


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        (
            "text_encoder_2/config.json",
            {"hidden_size": 48},
            "text_encoder_2 together give 72 numbers a token, and unet wants 56",
        ),
        (
            "text_encoder_2/config.json",
            {"projection_dim": 24},
            "text_encoder_2 gives 24 numbers a text, and unet wants 28",
        ),
        ("text_encoder_2/config.json", {"hidden_act": "tanh"}, "text_encoder_2/config.json"),
        (
            "text_encoder_2/config.json",
            {"vocab_size": 30},
            "tokenizer of text_encoder_2 gives ids up to 656, and text_encoder_2 knows 30",
        ),
        (
            "tokenizer_2/tokenizer_config.json",
            {"model_max_length": 9},
            "tokenizer_2 gives 9 tokens a text, and tokenizer wants 20",
        ),
        (
            "unet/config.json",
            {"addition_embed_type": None},
            "text_encoder_2 gives 28 numbers a text, and unet wants none",
        ),
        ("unet/config.json", {"in_channels": 5}, "a depth model"),
        ("model_index.json", {UNSAFE: "yes"}, rf"model_index\.json: {UNSAFE} is 'yes'"),
        ("model_index.json", {"text_encoder_2": [None, None]}, "names no text_encoder_2"),
        (
            "model_index.json",
            {"text_encoder_2": ["transformers", "CLIPTextModel"]},
            "text_encoder_2 of class 'CLIPTextModel' is not implemented",
        ),
        (
            "model_index.json",
            {"requires_aesthetics_score": True},
            "requires_aesthetics_score is true",
        ),
    ],
)
def test_parts_that_do_not_fit_together(copied, file, changes, words):
    path = copied / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises((UnsupportedModelError, CheckpointError), match=words) as caught:
        open_sdxl(copied)
    assert str(copied) in str(caught.value)
    assert caught.value.fix or caught.value.allowed


def test_a_missing_text_encoder_2_is_named(copied):
    shutil.rmtree(copied / "text_encoder_2")
    with pytest.raises(CheckpointError, match=r"text_encoder_2/config\.json is missing"):
        open_sdxl(copied)


def test_an_index_that_says_nothing_of_zeros_means_them(copied):
    path = copied / "model_index.json"
    index = json.loads(path.read_text())
    for changes, expected in (({}, True), ({UNSAFE: False}, False), ({UNSAFE: True}, True)):
        del index[UNSAFE]
        index |= changes
        path.write_text(json.dumps(index))
        assert plan(open_sdxl(copied)).has_zero_negative == expected
        index.setdefault(UNSAFE, True)


def test_builds_of_stable_diffusion_are_not_taken(tiny_sd1, tmp_path):
    """SDXL's first text encoder is that of SD 1.5, of which it takes something else."""
    config = json.loads((tiny_sd1 / "text_encoder" / "config.json").read_text())
    texts = {key: config[key] for key in ("vocab_size", "max_position_embeddings")}
    changes = {
        "text_encoder": {key: config[key] for key in SDXL_BASE["text_encoder"] if key in config},
        "text_encoder_2": texts,
        "unet": {"cross_attention_dim": config["hidden_size"] + 32},
    }
    model = tmp_path / "model"
    write_random_checkpoint(model, shrink_sdxl(**changes))
    for source, name in (
        ("text_encoder", "text_encoder"),
        ("tokenizer", "tokenizer"),
        ("tokenizer", "tokenizer_2"),
    ):
        shutil.rmtree(model / name)
        shutil.copytree(tiny_sd1 / source, model / name)
    options = {"engine": "paddle", "cache_dir": tmp_path}
    first, second = (
        each.plan_builds()[0]
        for each in (
            open_sdxl(model, **options),
            SDPipeline(DiffusionConfig(model_path=tiny_sd1, **options)),
        )
    )
    assert (first.inputs, first.outputs) == (second.inputs, second.outputs)
    assert first.identify(tmp_path) != second.identify(tmp_path)
