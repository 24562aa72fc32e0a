"""Values of requests: whatever is given, a plan or a RequestError comes of it, before any work."""

import random
from contextlib import suppress
from dataclasses import fields

import numpy as np
import pytest

from fastdeploy_diffusion import DiffusionConfig, FluxPipeline, SDPipeline, SDXLPipeline
from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.images import SETTINGS

SEED = 20261129
TRIES = 1500


class Evil:
    """What cannot even be shown."""

    def __repr__(self):
        raise ValueError("no")


# What people and programs give by mistake; values that some setting allows are among them.
VALUES = (
    *(None, True, False, 0, 1, 2, 3, -1, 8, 16, 64, 10**9, 2**40, 2**63, 2**64, 10**400, 10**5000),
    *(0.0, 0.5, 1.0, 7.5, -0.5, 1e30, 1e308, float("nan"), float("inf"), 1j, 10**400 * -1),
    *(np.int64(2), np.uint8(1), np.float32(0.5), np.float64("nan"), np.bool_(True), np.str_("a")),
    *("", "a cat", "np", "latents", "a" * 100_000, "\ud800", "\0", b"", b"ab", bytearray(b"ab")),
    *([], [None], ["a"], ["a", "b"], ["a", None], [1, 2], [0.9, 0.3], [2**64], [[]], [b"a"]),
    *((), (1, 2), (64, 64), (10**400, 1), (float("nan"), 1), range(2), {1, 2}, {"a": 1}),
    *(np.arange(2), np.array(3), np.array("a"), np.array(["a"]), np.array([None]), np.eye(3)),
    *(np.zeros((1, 4, 16, 16), np.float32), np.full((1, 4, 16, 16), np.nan, np.float32)),
    *(np.zeros((1, 4, 16, 16)), np.zeros((0,), np.float32), np.zeros((1, 64, 16), np.float32)),
    *(object(), Evil(), int, print, (each for each in "ab"), iter([1]), lambda: None, slice(1)),
)


@pytest.fixture(scope="module")
def pipelines(tiny_sd1, tiny_sdxl, tiny_dev, tiny_schnell):
    models = (
        (SDPipeline, tiny_sd1),
        (SDXLPipeline, tiny_sdxl),
        (FluxPipeline, tiny_dev),
        (FluxPipeline, tiny_schnell),
    )
    return [
        opened(DiffusionConfig(model_path=model, engine="paddle-eager")) for opened, model in models
    ]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_value_is_planned_or_refused(pipelines):
    draw = random.Random(SEED)
    names = {
        pipeline: [each.name for each in fields(pipeline.request_class)] for pipeline in pipelines
    }
    planned = refused = 0
    for number in range(TRIES):
        pipeline = draw.choice(pipelines)
        chosen = draw.sample(names[pipeline], draw.choice((1, 1, 1, 2, 4)))
        given = {"prompt": "a cat", **{name: draw.choice(VALUES) for name in chosen}}
        refusal, settings = None, {}
        try:
            settings = pipeline.describe_request(pipeline.request_class(**given))
        except RequestError as error:
            refusal = str(error)
        assert refusal is None or 0 < len(refusal) < 2000, (number, chosen)
        refused, planned = refused + (refusal is not None), planned + (refusal is None)
        for name, value in settings.items():
            kinds = (int, float) if SETTINGS[name] is float else (SETTINGS[name],)
            assert value is None or isinstance(value, kinds), (number, name, value)
    assert min(planned, refused) > TRIES / 50


@pytest.mark.parametrize("name", [each.name for each in fields(SDPipeline.request_class)])
def test_each_setting_meets_each_value(pipelines, name):
    for value in VALUES:
        with suppress(RequestError):
            describe(pipelines, **{name: value})


def describe(pipelines, **given):
    pipeline = pipelines[0]
    return pipeline.describe_request(pipeline.request_class(**{"prompt": "a cat", **given}))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"guidance_scale": 10**400}, "guidance_scale is a number of about 401 digits"),
        ({"height": 10**5000}, "height is a number of about 5001 digits"),
        ({"num_images_per_prompt": 10**9}, "1000000000 pictures are asked for at once"),
        ({"prompt": ["a"] * 2, "num_images_per_prompt": 600_000}, "1200000 pictures"),
        ({"callback_on_step_end": 5}, "callback_on_step_end is 5"),
        ({"callback_on_step_end_tensor_inputs": "latents"}, "tensor_inputs is 'latents'"),
        ({"callback_on_step_end_tensor_inputs": None}, "tensor_inputs is None"),
        ({"output_type": np.array(["pil", "np"])}, "output_type is array"),
        ({"seed": b"ab", "num_images_per_prompt": 2}, "the seed b'ab' is not an integer"),
        ({"seed": np.array([0.5])}, "the seed 0.5 is not an integer"),
        ({"prompt": Evil()}, "prompt is <Evil instance"),
        ({"prompt": ["a"] * 99_999 + [None]}, "prompt is ['a', 'a', 'a', 'a', 'a', 'a', ...]"),
    ],
)
def test_what_is_refused_is_shown_in_a_line(pipelines, given, problem):
    with pytest.raises(RequestError) as caught:
        describe(pipelines, **given)
    assert problem in caught.value.problem
    assert len(caught.value.problem) < 200


def test_arrays_of_seeds_are_lists_of_them(pipelines):
    for seeds in (np.arange(5, 7), [5, 6], range(5, 7), (np.int64(5), np.uint8(6))):
        settings = describe(pipelines, seed=seeds, num_images_per_prompt=2)
        assert settings["seed"] == 5
        assert type(settings["seed"]) is int
    with pytest.raises(RequestError, match="3 seeds for 2 pictures"):
        describe(pipelines, seed=np.arange(3), num_images_per_prompt=2)


def test_numbers_of_numpy_are_kept_as_pythons_own(pipelines):
    given = {
        "guidance_scale": np.float32(2.5), "guidance_rescale": np.float32(0.5),
        "eta": np.float64(0.25), "clip_skip": np.int64(1), "height": np.int32(16),
        "num_inference_steps": np.uint8(3), "seed": np.uint64(2**63),
    }  # fmt: skip
    settings = describe(pipelines, **given)
    for name, value in given.items():
        assert settings[name] == value
        assert type(settings[name]) in (int, float)


@pytest.mark.parametrize("kind", range(4))
def test_too_many_steps_are_refused_before_anything_is_made_for_them(pipelines, kind):
    pipeline = pipelines[kind]
    for steps in (1001, 10**9, 2**62):
        with pytest.raises(RequestError, match=f"num_inference_steps={steps} is not possible"):
            pipeline.text_to_image("a cat", num_inference_steps=steps)


def test_what_a_callback_returns_is_checked(pipelines):
    request = {"num_inference_steps": 1, "output_type": "latent", "seed": 1}
    with pytest.raises(RequestError, match="callback_on_step_end returned 5"):
        pipelines[0].text_to_image("a cat", callback_on_step_end=lambda *_: 5, **request)
