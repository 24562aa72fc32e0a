"""Every figure of speed, memory, accuracy and size in the documentation has a source that holds."""

import ast
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from published_figures import FIGURES, Asserted, Computed, Dated

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = "README.md", "README.zh-CN.md"
GENERATED = "docs/benchmarks.md"  # from the results themselves
PAGES = [
    name
    for name in (
        ENGLISH,
        *(page.relative_to(ROOT).as_posix() for page in ROOT.glob("docs/**/*.md")),
    )
    if name != GENERATED
]

NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?"
UNITS = (
    r"times\b|[GMKk]i?B\b|(?:kilo|mega|giga)bytes|dB\b|ms\b|s\b|(?:milli)?seconds?\b|minutes?\b"
    r"|hours?\b|[GT]FLOP|[mb]illion|%|percent|倍|秒|分钟|小时"
)
# A number with a unit, a share, a decimal fraction, or a power of ten.
FIGURE = re.compile(
    rf"(?<![\w.\-/])(?:{NUMBER} ?(?:{UNITS})|\d+ of \d+|\d+\.\d+(?:e-?\d+)?(?![\w.\-])|\de-\d+)"
)
# Code, links, links to papers by their numbers; what a processor is sold as; versions and models,
# several of them too.
NAMES = (
    r"(?:Python|CUDA|ONNX Runtime|Paddle|YAML|SD|Stable Diffusion|TensorRT-RTX|Apache|section|as in"
    r"|按)"
)
NO_FIGURES = re.compile(
    r"`[^`]*`|\]\([^)]*\)|\[[\d.]+\]|[\d.]+ GHz"
    rf"|{NAMES} [\d.]+(?:(?:, | or | and |、| 或 | 和 )[\d.]+)*"
)


def read_paragraphs(text):
    """The paragraphs, list items and rows of tables of a page, each in one line; no blocks."""
    text = re.sub(r"^(```.*?^```|    .*?)$", "", text, flags=re.MULTILINE | re.DOTALL)
    starts = re.sub(r"^(?=[|#]|\* |\d+\. )", "\n", text, flags=re.MULTILINE)
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", starts) if part.strip()]


def find_figures(paragraph):
    """(start, end) of each figure."""
    blank = NO_FIGURES.sub(lambda found: "\0" * len(found[0]), paragraph)
    return [found.span() for found in FIGURE.finditer(blank)]


def find_spans(phrase, paragraph):
    return [(found.start(), found.end()) for found in re.finditer(re.escape(phrase), paragraph)]


def read_page(name):
    return read_paragraphs((ROOT / name).read_text(encoding="utf-8"))


def parse(text):
    return [found.replace(",", "") for found in re.findall(rf"(?<![\w.]){NUMBER}", text)]


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("It is 3.4 times as fast, in 12 s and 1,024 MiB.", ["3.4 times", "12 s", "1,024 MiB"]),
        ("92 of 100 pictures are right", ["92 of 100"]),
        ("took 5.6 in place of\n10.7 GiB", ["5.6", "10.7 GiB"]),
        ("| a | 8.99 | 1.8e-05 | 96 % |", ["8.99", "1.8e-05", "96 %"]),
        ("an error of 1e-6, 97% and 3 倍, 2.5 GiB。", ["1e-6", "97%", "3 倍", "2.5 GiB"]),
        ("SD 1.5 and Python 3.10, 3.11 or 3.12 on 20 steps at 512 × 512, 2.5 GHz", []),
        ("see [2010.02502](https://arxiv.org/abs/2010.02502), `1.5 GiB`", []),
        ("```bash\nsleep 3.5 s\n```\n\nit took 3 s", ["3 s"]),
    ],
)
def test_a_figure_is_told_from_other_numbers(text, figures):
    found = [
        paragraph[start:end]
        for paragraph in read_paragraphs(text)
        for start, end in find_figures(paragraph)
    ]
    assert found == figures


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_has_a_source(page):
    unknown = []
    for paragraph in read_page(page):
        known = [span for phrase in FIGURES.get(page, ()) for span in find_spans(phrase, paragraph)]
        unknown += [
            f"{paragraph[start:end]!r} in {paragraph[max(0, start - 40) : end + 30]!r}"
            for start, end in find_figures(paragraph)
            if not any(first <= start and end <= last for first, last in known)
        ]
    assert unknown == [], "say in tests/published_figures.py where they come from"


@pytest.mark.parametrize("page", FIGURES)
def test_every_source_is_of_a_figure(page):
    paragraphs = read_page(page)
    idle = [
        phrase
        for phrase in FIGURES[page]
        if not any(
            first <= start and end <= last
            for paragraph in paragraphs
            for first, last in find_spans(phrase, paragraph)
            for start, end in find_figures(paragraph)
        )
    ]
    assert idle == []


@pytest.mark.parametrize("page", FIGURES)
def test_what_is_computed_is_what_the_page_says(page):
    wrong = []
    for phrase, source in FIGURES[page].items():
        if isinstance(source, Computed):
            given, found = parse(phrase), np.atleast_1d(source.compute()).tolist()
            # Half of the last digit that the page gives.
            margins = [0.5 * 10.0 ** Decimal(each).as_tuple().exponent for each in given]
            if len(given) != len(found) or any(
                abs(value - float(text)) > margin * (1 + 1e-9)
                for text, value, margin in zip(given, found, margins, strict=True)
            ):
                wrong.append(f"{phrase!r}: {found}")
    assert wrong == []


@pytest.mark.parametrize("page", FIGURES)
def test_the_tests_assert_what_the_page_says(page):
    for source in FIGURES[page].values():
        if isinstance(source, Asserted):
            file, _, name = source.test.partition("::")
            text = (ROOT / "tests" / file).read_text(encoding="utf-8")
            tests = {
                each.name for each in ast.parse(text).body if isinstance(each, ast.FunctionDef)
            }
            assert name in tests, source
            where = ROOT / "tests" / (source.where or file)
            assert source.words in where.read_text(encoding="utf-8"), source


def list_commits(page):
    return {each.commit for each in FIGURES[page].values() if isinstance(each, Dated)}


@pytest.mark.parametrize("page", FIGURES)
def test_the_page_names_the_commit_of_what_was_seen_once(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [commit for commit in list_commits(page) if f"commit {commit}" not in text] == []


def test_what_was_seen_once_was_seen_at_a_commit_of_this_history(history):
    commits = set().union(*map(list_commits, FIGURES))
    assert [commit for commit in commits if not history(commit)] == []


def test_both_readmes_give_the_same_figures():
    english, chinese = (
        sorted(
            float(parse(paragraph[start:end])[0])
            for paragraph in read_page(page)
            for start, end in find_figures(paragraph)
        )
        for page in (ENGLISH, CHINESE)
    )
    assert english == chinese
