"""Syntax of other tools is told from ordinary prompts."""

import time
import warnings

import pytest

from fastdeploy_diffusion.requests.prompt_syntax import PromptSyntaxWarning, warn_of_syntax


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a (red:1.3) cat", "'(red:1.3)'"),
        ("a (large red cat:2)", "'(large red cat:2)'"),
        ("一只(红色:1.2)猫", "'(红色:1.2)'"),
        ("a cat BREAK a dog", "'BREAK'"),
        ("a cat,\nBREAK\na dog", "'BREAK'"),
    ],
)
def test_weights_and_breaks_are_named_where_prompts_are_plain(prompt, found):
    with pytest.warns(PromptSyntaxWarning) as caught:
        warn_of_syntax(["a cat", prompt, prompt], "plain")
    (warning,) = caught
    told = f"{found} in the prompt is read as plain text: prompt_syntax='weighted' reads"
    assert str(warning.message).startswith(told)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_syntax(["a cat", prompt, prompt], "weighted")


@pytest.mark.parametrize("syntax", ["plain", "weighted"])
@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a {red|blue} cat", "'{red|blue}' in the prompt is read as plain text: alternatives"),
        ("a {red|blue|} cat", "'{red|blue|}'"),
        ("a __color__ cat", "'__color__' in the prompt is read as plain text: wildcards"),
        ("__animals/cats__", "'__animals/cats__'"),
        ("a [cat:dog:0.5]", "'[cat:dog:0.5]' in the prompt is read as plain text: words that"),
    ],
)
def test_what_is_not_there_is_named(prompt, found, syntax):
    with pytest.warns(PromptSyntaxWarning) as caught:
        warn_of_syntax(["a cat", prompt, prompt], syntax)
    (warning,) = caught
    assert str(warning.message).startswith(found)
    assert str(warning.message).endswith("are not there yet")


@pytest.mark.parametrize("syntax", ["plain", "weighted"])
def test_loras_are_loaded_elsewhere(syntax):
    with pytest.warns(PromptSyntaxWarning, match=r"'<lora:paint:0\.8>' .* are loaded by load_lora"):
        warn_of_syntax(["a cat <lora:paint:0.8>"], syntax)


def test_ordinary_prompts_are_silent():
    prompts = (
        "a cat (red), 16:9, at 12:30 (or 1:2)", "snake_case __ and __", "a|b", "{a}", "f(x)",
        "(a cat: the red one)", "[draft]", "[1:2]", "x < 3 > 2", "(note: 5 cats)", "____",
        "BREAK THE ICE", "PLEASE BREAK IT", "a BREAKFAST", "break",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_syntax(prompts, "plain")


def test_very_long_prompts_take_no_time():
    started = time.process_time()
    for text in ("(", "{", "|", "{a|", "__a", "<lora:", "[a:", "(a:1", "a  "):
        warn_of_syntax([text * (300_000 // len(text))], "plain")
    assert time.process_time() - started < 4
