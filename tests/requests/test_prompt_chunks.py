"""The syntax of prompts and the number of their chunks: what is allowed, and what follows."""

import pytest

from fastdeploy_diffusion import DiffusionConfig, FluxPipeline, GenerationRequest
from fastdeploy_diffusion.config import RequestDefaults
from fastdeploy_diffusion.errors import ConfigError, RequestError
from fastdeploy_diffusion.families.flux import FLUX
from fastdeploy_diffusion.families.sd import SD1
from fastdeploy_diffusion.requests.flux_request import FluxRequest, plan_flux
from fastdeploy_diffusion.requests.model_limits import ModelLimits
from fastdeploy_diffusion.requests.plan import plan_generation
from fastdeploy_diffusion.requests.prompt_chunks import fit_chunks
from fastdeploy_diffusion.requests.shape_ranges import resolve_ranges


def make_limits(family=SD1, **limits):
    return ModelLimits(64, 64, 8, 4, family.defaults, **limits)


def plan(default=None, *, limits=None, **settings):
    request = GenerationRequest(prompt="a cat", **settings)
    return plan_generation(request, RequestDefaults(prompt_syntax=default), limits or make_limits())


@pytest.mark.parametrize(
    ("asked", "default", "syntax", "chunks"),
    [
        (None, None, "plain", None),
        ("plain", "weighted", "plain", None),
        ("weighted", None, "weighted", 1),
        (None, "weighted", "weighted", 1),
    ],
)
def test_the_request_wins_over_the_configuration(asked, default, syntax, chunks):
    made = plan(default, prompt_syntax=asked)
    assert (made.prompt_syntax, made.prompt_chunks) == (syntax, chunks)
    assert made.settings(0)["prompt_syntax"] == syntax
    assert made.settings(0)["prompt_chunks"] == chunks


@pytest.mark.parametrize(
    ("settings", "problem", "hint"),
    [
        ({"prompt_syntax": "wheighted"}, "prompt_syntax is 'wheighted'", "weighted"),
        ({"prompt_syntax": "A1111"}, "prompt_syntax is 'A1111'", "weighted"),
        ({"prompt_syntax": 3}, "prompt_syntax is 3", "plain, weighted"),
        ({"prompt_chunks": 2}, "prompt_chunks is 2, and prompts are plain", "weighted"),
        ({"prompt_syntax": "weighted", "prompt_chunks": 0}, "prompt_chunks is 0", "1 to 32"),
        ({"prompt_syntax": "weighted", "prompt_chunks": 33}, "prompt_chunks is 33", "1 to 32"),
        ({"prompt_syntax": "weighted", "prompt_chunks": 1.5}, "prompt_chunks is 1.5", "1 to 32"),
    ],
)
def test_other_values_are_refused(settings, problem, hint):
    with pytest.raises(RequestError, match=problem) as caught:
        plan(**settings)
    assert hint in f"{caught.value.allowed} {caught.value.fix}"


@pytest.mark.parametrize(("asked", "needed", "chunks"), [(None, 3, 3), (2, 3, 3), (4, 3, 4)])
def test_texts_are_filled_up_to_the_longest_or_more(asked, needed, chunks):
    made = plan(prompt_syntax="weighted", prompt_chunks=asked)
    assert fit_chunks(made, needed, make_limits()).prompt_chunks == chunks
    assert fit_chunks(plan(), 1, make_limits()).prompt_chunks is None


@pytest.mark.parametrize(
    ("built", "settings", "needed", "hint"),
    [
        ((1,), {"prompt_syntax": "weighted"}, 2, "bundle --chunks 2"),
        ((1, 3), {"prompt_syntax": "weighted"}, 2, "prompt_chunks=3; or make a bundle"),
        ((2,), {}, 1, "prompt_syntax='weighted', prompt_chunks=2"),
    ],
)
def test_a_bundle_says_what_it_was_built_for(built, settings, needed, hint):
    with pytest.raises(RequestError, match="which the bundle was not built for") as caught:
        fit_chunks(plan(**settings), needed, make_limits(chunks=built))
    assert caught.value.allowed == ", ".join(map(str, built))
    assert hint in caught.value.fix


def make_ranges(**shapes):
    config = DiffusionConfig(model_path="/", enable_dynamic_shape=True, shapes=shapes)
    return resolve_ranges(config, 64, 64, 8)


def test_a_range_of_chunks_is_one_of_tokens():
    assert make_ranges().count_tokens(77) == 77
    assert make_ranges(chunks=2).count_tokens(77) == 154
    tokens = make_ranges(chunks=[1, 2, 3]).count_tokens(77)
    assert (tokens.name, tokens.min, tokens.opt, tokens.max) == ("tokens", 77, 154, 231)


def test_chunks_out_of_the_range_are_refused():
    limits = make_limits(ranges=make_ranges(chunks=[1, 1, 2]))
    made = plan(prompt_syntax="weighted", limits=limits)
    assert fit_chunks(made, 2, limits).chunks == 2
    with pytest.raises(RequestError, match="take 3 chunks") as caught:
        fit_chunks(made, 3, limits)
    assert caught.value.allowed == "1 to 2, which enable_dynamic_shape builds for"
    assert "shapes.chunks" in caught.value.fix


@pytest.mark.parametrize("chunks", [33, [1, 2, 33], [2, 1, 3], 0, "2"])
def test_a_range_must_be_one(chunks):
    with pytest.raises(ConfigError, match="chunks"):
        make_ranges(chunks=chunks)


@pytest.mark.parametrize(
    "settings", [{"prompt_syntax": "weighted"}, {"prompt_syntax": "weighted", "prompt_chunks": 2}]
)
def test_flux_says_why_it_reads_no_weights(settings):
    limits = make_limits(FLUX, is_packed=True)
    with pytest.raises(RequestError, match="one vector") as caught:
        plan_flux(FluxRequest(prompt="a dog", **settings), RequestDefaults(), limits)
    assert "T5" in caught.value.problem
    assert "plain" in caught.value.allowed
    made = plan_flux(FluxRequest(prompt="a", prompt_syntax="plain"), RequestDefaults(), limits)
    assert made.prompt_syntax == "plain"


def test_flux_refuses_them_in_a_configuration(tiny_dev):
    with pytest.raises(ConfigError, match=r"defaults\.prompt_syntax is 'weighted'"):
        FluxPipeline(model_path=tiny_dev, defaults={"prompt_syntax": "weighted"})
