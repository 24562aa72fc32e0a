r"""Weights of words are read as AUTOMATIC1111's web UI reads them.

The first seven prompts and their parts are the examples that its ``prompt_parser.py`` and its wiki
publish; the others are worked out by hand from the rules there: ``( )`` is 1.1, ``[ ]`` is 1 / 1.1,
``(text:w)`` is w, a backslash takes a character as it is, what is not closed is closed at the end.
"""

import time

import pytest

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.tokenizers.weighted_text import read_weights

UP, DOWN = 1.1, 1 / 1.1
BREAK = "BREAK"
# Prompt → parts with their weights; BREAK between those that start a chunk.
PROMPTS = {
    "normal text": [("normal text", 1)],
    "an (important) word": [("an ", 1), ("important", UP), (" word", 1)],
    "(unbalanced": [("unbalanced", UP)],
    r"\(literal\]": [("(literal]", 1)],
    "(unnecessary)(parens)": [("unnecessaryparens", UP)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        *(("a ", 1), ("house", 1.5730000000000004), (" ", 1.1), ("on", 1.0), (" a ", 1.1)),
        *(("hill", 0.55), (", sun, ", 1.1), ("sky", 1.4641000000000006), (".", 1.1)),
    ],
    "a (word:1.5) and a (word:0.25)": [
        *(("a ", 1), ("word", 1.5), (" and a ", 1), ("word", 0.25)),
    ],
    "": [],
    "()": [],
    "a () b": [("a  b", 1)],
    "((word))": [("word", UP * UP)],
    "(((word)))": [("word", UP * UP * UP)],
    "[word]": [("word", DOWN)],
    "[[word]]": [("word", DOWN * DOWN)],
    "([word])": [("word", 1)],
    "(a [b] c)": [("a ", UP), ("b", 1), (" c", UP)],
    "(a (b) c)": [("a ", UP), ("b", UP * UP), (" c", UP)],
    "(a (b:2) c:3)": [("a ", 3), ("b", 6), (" c", 3)],
    "(word:1)": [("word", 1)],
    "(word:0)": [("word", 0)],
    "(word:-0.5)": [("word", -0.5)],
    "(word:+1.5)": [("word", 1.5)],
    "(word:.5)": [("word", 0.5)],
    "(word : 1.3 )": [("word ", 1.3)],
    "(word:1.3": [("word:1.3", UP)],
    "word:1.3)": [("word:1.3)", 1)],
    "word)": [("word)", 1)],
    "word]": [("word]", 1)],
    "[word:1.3]": [("word:1.3", DOWN)],
    "(word:high)": [("word:high", UP)],
    "(a: b:1.2)": [("a: b", 1.2)],
    "at 12:30, 16:9": [("at 12:30, 16:9", 1)],
    "([a)b]": [("a", 1), ("b", DOWN)],
    "a [b": [("a ", 1), ("b", DOWN)],
    "((a) b": [("a", UP * UP), (" b", UP)],
    r"a \(b:1.3\) c": [("a (b:1.3) c", 1)],
    r"(a\) b:1.3)": [("a) b", 1.3)],
    r"\[a\] \\ b\c": [(r"[a] \ bc", 1)],
    "(红色:1.3)的猫": [("红色", 1.3), ("的猫", 1)],
    "(a)\n(b)": [("a", UP), ("\n", 1), ("b", UP)],
    "a BREAK b": [("a", 1), BREAK, ("b", 1)],
    "a,BREAK\nb BREAK": [("a,", 1), BREAK, ("b", 1), BREAK],
    "BREAK BREAK a": [BREAK, BREAK, ("a", 1)],
    "(a)BREAK[b]": [("a", UP), BREAK, ("b", DOWN)],
    "BREAKFAST, break, aBREAK, BREAK_2": [("BREAKFAST, break, aBREAK, BREAK_2", 1)],
    # There, BREAK is a word inside of brackets; here, what the wiki says of it holds everywhere.
    "(a BREAK b:1.2)": [("a", 1.2), BREAK, ("b", 1.2)],
}


def test_there_are_enough_prompts():
    assert len(PROMPTS) >= 40


@pytest.mark.parametrize(("prompt", "parts"), PROMPTS.items(), ids=PROMPTS)
def test_parts_have_their_weights(prompt, parts):
    stretches = [[]]
    for part in parts:
        if part == BREAK:
            stretches.append([])
        else:
            stretches[-1].append(part)
    read = read_weights(prompt)
    assert [[text for text, _ in each] for each in read] == [
        [text for text, _ in each] for each in stretches
    ]
    weights = [weight for each in stretches for _, weight in each]
    assert [weight for each in read for _, weight in each] == pytest.approx(weights, rel=1e-12)


@pytest.mark.parametrize("text", ["1.3.4", ".", "9" * 400])
def test_a_weight_must_be_a_number(text):
    with pytest.raises(RequestError, match="a weight in the prompt is") as caught:
        read_weights(f"a (cat:{text}) here")
    assert "1.3" in caught.value.allowed
    assert r"\(" in caught.value.fix


@pytest.mark.parametrize("opener", ["(", "[", "([", "(a"])
def test_open_brackets_are_limited(opener):
    with pytest.raises(RequestError, match="more than 50 brackets"):
        read_weights(opener * 51)
    read_weights(opener * (50 // len(opener.replace("a", ""))))


def test_very_long_prompts_take_little_time():
    started = time.process_time()
    for text in ("\\", "a\\", "BREAK ", " BREAK", ":", ": 1.1", "(a:1)", " ", ")", "(a)[b]"):
        read_weights(text * (100_000 // len(text)))
    read_weights("(" * 50 + "a\\" * 50_000)
    assert time.process_time() - started < 20
