"""Weighted and long prompts beside torch: the features, and diffusers' pictures of them."""

from collections import defaultdict

import numpy as np
import pytest
import torch
import weighted_reference
from diffusers import DDIMScheduler
from diffusers_folder import write_diffusers_folder
from picture_psnr import psnr
from sdxl_folder import write_sdxl_folder
from weighted_reference import BREAK

from fastdeploy_diffusion import DiffusionConfig, SDPipeline, SDXLPipeline
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.images import read_settings

UP, DOWN = 1.1, 1 / 1.1
LONG = "a beautiful sunset over mountains, soft light, sharp focus and a cat, a horse on mars; "
# The number of chunks; the prompt, and its parts as `weighted_reference` takes them; the negative
# prompt likewise. Texts have 20 tokens here, 18 of them words.
PROMPTS = {
    "weights": (
        1,
        "a (red:1.5) circle, [soft] light",
        [("a ", 1), ("red", 1.5), (" circle, ", 1), ("soft", DOWN), (" light", 1)],
        ("((ugly))", [("ugly", UP * UP)]),
    ),
    "a break": (
        2,
        "a red circle BREAK (a blue square:0.6)",
        [("a red circle", 1), BREAK, ("a blue square", 0.6)],
        ("", []),
    ),
    "many chunks": (
        5,
        f"{LONG}(highly detailed:1.3), {LONG}[[digital]] painting, {LONG}",
        [
            *((LONG, 1), ("highly detailed", 1.3), (f", {LONG}", 1), ("digital", DOWN * DOWN)),
            (f" painting, {LONG}", 1),
        ],
        (f"(ugly:1.2) BREAK {LONG}", [("ugly", 1.2), BREAK, (LONG, 1)]),
    ),
    "a longer negative prompt": (
        3,
        "(whiskers)",
        [("whiskers", UP)],
        (f"{LONG}{LONG}", [(LONG + LONG, 1)]),
    ),
}
SMALL = {"num_inference_steps": 3, "output_type": "np"}
# dB; 50 was asked for. With a weight of 1.4 in place of 1.5 it is less than 80.
LEAST = 110


@pytest.fixture(scope="module", params=["sd1", "sd2"])
def sd(request, tmp_path_factory):
    """(our pipeline, diffusers') of a family, with random weights."""
    folder = tmp_path_factory.mktemp(request.param)
    reference = write_diffusers_folder(folder, request.param, seed=20261130)
    if request.param == "sd2":  # the padding of the published ones
        reference.tokenizer.pad_token = "!"
        reference.tokenizer.save_pretrained(folder / "model" / "tokenizer")
    reference.scheduler = DDIMScheduler.from_pretrained(folder / "model" / "scheduler")
    config = DiffusionConfig(model_path=folder / "model", scheduler="ddim", engine="paddle-eager")
    return SDPipeline(config), reference


@pytest.fixture(scope="module", params=[True, False], ids=["zeros", "no zeros"])
def sdxl(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdxl")
    reference = write_sdxl_folder(folder, seed=20261201, forces_zeros=request.param)
    config = DiffusionConfig(model_path=folder / "model", engine="paddle-eager")
    return SDXLPipeline(config), reference


class Skipping(torch.nn.Module):
    """A text encoder without its last layers, but with the LayerNorm behind them."""

    def __init__(self, encoder, layers):
        super().__init__()
        self.encoder, self.layers = encoder, layers

    def forward(self, ids, output_hidden_states):
        found = self.encoder(ids, output_hidden_states=output_hidden_states)
        norm = getattr(self.encoder, "text_model", self.encoder).final_layer_norm
        found.last_hidden_state = norm(found.hidden_states[-(self.layers + 1)])
        return found


def count_chunks(tokenizer, *texts):
    return max(len(weighted_reference.fill_chunks(tokenizer, parts)) for parts in texts)


def watch(pipeline, *asked, **settings):
    """The features of negative prompt and prompt, as a callback gets them, and the pictures."""
    seen = defaultdict(list)

    def record(pipeline, step, timestep, tensors):
        for name, values in tensors.items():
            seen[name].append(values)

    names = ("negative_prompt_embeds", "prompt_embeds")
    pictures = pipeline.text_to_image(
        *asked,
        prompt_syntax="weighted",
        callback_on_step_end=record,
        callback_on_step_end_tensor_inputs=names,
        **settings,
    )
    return [seen[name][0] for name in names], pictures


@pytest.mark.parametrize(
    ("name", "clip_skip"), [*((name, None) for name in PROMPTS), ("many chunks", 1)]
)
def test_stable_diffusion(sd, name, clip_skip):
    ours, reference = sd
    tokenizer, encoder = reference.tokenizer, reference.text_encoder
    chunks, prompt, parts, (negative, negative_parts) = PROMPTS[name]
    assert count_chunks(tokenizer, parts, negative_parts) == chunks
    # As in diffusers, layers are skipped for the prompt alone.
    wanted = [
        weighted_reference.encode(tokenizer, run, each, chunks=chunks, layer=None).tokens
        for run, each in (
            (encoder, negative_parts),
            (Skipping(encoder, clip_skip) if clip_skip else encoder, parts),
        )
    ]
    settings = {**SMALL, "guidance_scale": 4.0}
    asked = {"negative_prompt": negative, "clip_skip": clip_skip}
    given, picture = watch(ours, prompt, seed=5, **asked, **settings)
    for own, theirs in zip(given, wanted, strict=True):
        assert own.shape == (1, 20 * chunks, 24)
        assert np.abs(own - theirs.numpy()).max() <= 1e-4
    expected = reference(
        prompt_embeds=wanted[1],
        negative_prompt_embeds=wanted[0],
        generator=torch.Generator().manual_seed(5),
        **settings,
    ).images
    assert psnr(picture, expected) >= LEAST


@pytest.mark.parametrize("name", PROMPTS)
def test_sdxl(sdxl, name):
    ours, reference = sdxl
    second, second_parts = "(a dog:1.4)", [("a dog", 1.4)]
    chunks, prompt, parts, (negative, negative_parts) = PROMPTS[name]
    wanted = [
        _encode_both(reference, firsts, seconds, chunks)
        for firsts, seconds in ((negative_parts, negative_parts), (parts, second_parts))
    ]
    settings = {**SMALL, "guidance_scale": 4.0}
    asked = {"prompt_2": second, "negative_prompt": negative}
    given, picture = watch(ours, prompt, seed=6, **asked, **settings)
    for own, theirs in zip(given, wanted, strict=True):
        assert np.abs(own - theirs.tokens.numpy()).max() <= 1e-4
    expected = reference(
        prompt_embeds=wanted[1].tokens,
        pooled_prompt_embeds=wanted[1].pooled,
        negative_prompt_embeds=wanted[0].tokens,
        negative_pooled_prompt_embeds=wanted[0].pooled,
        generator=torch.Generator().manual_seed(6),
        **settings,
    ).images
    assert psnr(picture, expected) >= LEAST


def _encode_both(reference, firsts, seconds, chunks):
    first = weighted_reference.encode(
        reference.tokenizer, reference.text_encoder, firsts, chunks=chunks, layer=-2
    )
    second = weighted_reference.encode(
        reference.tokenizer_2, reference.text_encoder_2, seconds, chunks=chunks, layer=-2
    )
    joined = torch.cat([first.tokens, second.tokens], -1)
    return weighted_reference.Features(joined, second.pooled)


def test_sdxl_without_a_negative_prompt(sdxl):
    ours, reference = sdxl
    chunks, prompt, parts, _ = PROMPTS["many chunks"]
    wanted = _encode_both(reference, parts, parts, chunks)
    if reference.config.force_zeros_for_empty_prompt:
        negative = weighted_reference.Features(*map(torch.zeros_like, wanted))
    else:
        negative = _encode_both(reference, [], [], chunks)
    given, _ = watch(ours, prompt, seed=1, **SMALL)
    for own, theirs in zip(given, (negative, wanted), strict=True):
        assert np.abs(own - theirs.tokens.numpy()).max() <= 1e-4


def test_short_prompts_without_weights_are_drawn_as_plain_ones(sd):
    ours, _ = sd
    asked = {**SMALL, "seed": 2, "negative_prompt": "ugly"}
    plain = ours.text_to_image("a red circle", **asked)
    weighted = ours.text_to_image("a red circle", prompt_syntax="weighted", **asked)
    np.testing.assert_array_equal(plain, weighted)


def test_prompts_of_a_list_have_one_number_of_chunks_and_can_be_drawn_again_alone(sd):
    ours, _ = sd
    asked = {"num_inference_steps": 2, "prompt_syntax": "weighted", "negative_prompt": "(ugly)"}
    both = ours.text_to_image(["a (cat)", LONG], seed=3, **asked)
    for index, picture in enumerate(both):
        settings = read_settings(picture)
        assert settings["prompt_syntax"] == "weighted"
        assert settings["prompt_chunks"] == 2
        again = ours.text_to_image(**settings)
        assert again.tobytes() == picture.tobytes(), index
    alone = ours.text_to_image("a (cat)", seed=3, **asked)
    assert read_settings(alone)["prompt_chunks"] == 1
    assert alone.tobytes() != both[0].tobytes()


@pytest.mark.parametrize(
    "options",
    [{}, {"enable_dynamic_shape": True, "shapes": {"chunks": [1, 1, 2]}}],
    ids=["a build each", "one build"],
)
def test_requests_of_other_lengths_run_beside_each_other(tiny_sd1, options):
    ours = SDPipeline(DiffusionConfig(model_path=tiny_sd1, engine="onnxruntime", **options))
    quick = {"num_inference_steps": 2, "output_type": "np", "prompt_syntax": "weighted"}
    asked = [
        ("a (cat)", {**quick, "seed": 1}),
        ("a [dog] BREAK on mars", {**quick, "seed": 2}),
        ("(a red circle:1.4) BREAK, blue", {**quick, "seed": 3}),
    ]
    with ours.batch(pictures=8) as batch:
        drawings = [batch.submit(prompt, **settings) for prompt, settings in asked]
    for (prompt, settings), drawing in zip(asked, drawings, strict=True):
        alone = ours.text_to_image(prompt, **settings)
        np.testing.assert_array_equal(drawing.result().images, alone)


def test_weights_need_no_second_run_of_the_encoder(sd):
    ours, _ = sd
    ours.generate("a green (ring) BREAK on mars", prompt_syntax="weighted", **SMALL)
    again = ours.generate(
        "a (green ring:1.7) BREAK [on] mars BREAK", prompt_syntax="weighted", **SMALL
    )
    assert [(each.texts, each.kept) for each in again.embeddings] == [(3, 3)]  # one is empty


def test_weights_far_from_one_are_refused(sd):
    ours, _ = sd
    huge = "9" * 30
    with pytest.raises(RequestError, match="too large to compute with") as caught:
        ours.text_to_image(f"a ((cat:{huge}):{huge})", prompt_syntax="weighted", **SMALL)
    assert "nearer to 1" in caught.value.fix
