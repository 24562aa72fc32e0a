"""Sweeps: what is drawn along them, and what is fitted to it."""

from pathlib import Path

import pytest
from benchmark.painted_peer import WORK
from benchmark.test_report import Page, find_charts, list_marks

from fastdeploy_diffusion.benchmark.report.charts.planes import draw_growth
from fastdeploy_diffusion.benchmark.report.html import format_html
from fastdeploy_diffusion.benchmark.report.markdown import format_markdown
from fastdeploy_diffusion.benchmark.report.terminal import format_terminal
from fastdeploy_diffusion.benchmark.result import read_result
from fastdeploy_diffusion.benchmark.sweep import fit_exponent, list_growths, widen

RESULT = read_result(Path(__file__).with_name("recorded.json"))
ROW = next(row for row in RESULT.rows if row.case.is_own)


def grow(sweep="steps", places=(2, 4, 8), exponent=0.5, memory=True):
    """Rows whose time and memory grow by powers of the place; the last comes first."""
    rows = []
    for place in reversed(places):
        work = ROW.case.work.model_copy(update={sweep: place})
        samples = ROW.samples.model_copy(
            update={
                "pictures": (3 * place**exponent,) * 2,
                "peak_bytes": 2**30 * place if memory else None,
            }
        )
        case = ROW.case.model_copy(update={"work": work})
        rows.append(ROW.model_copy(update={"case": case, "samples": samples}))
    return rows


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ("size", [(256, 384), (384, 576), (512, 768), (768, 1152)]),
        ("batch", [1, 2, 4, 8]),
        ("steps", [1, 2, 4, 8]),
        ("threads", [1, 2, 3]),
    ],
)
def test_points_are_chosen(sweep, expected):
    work = WORK.model_copy(update={"width": 512, "height": 768, "threads": 3})
    works = widen([work], sweep, is_given=False)
    found = [(each.width, each.height) if sweep == "size" else getattr(each, sweep)
             for each in works]  # fmt: skip
    assert found == expected
    assert len({str(each) for each in works}) == len(works)
    assert widen(works[:2], sweep, is_given=True) == works[:2]


def test_small_sizes_stay_drawable():
    works = widen([WORK.model_copy(update={"width": 128, "height": 128})], "size", is_given=False)
    assert [each.width for each in works] == [64, 128, 192]


@pytest.mark.parametrize("exponent", [-0.8, 0, 1, 2.5])
def test_the_exponent_of_a_power_is_found(exponent):
    places = (1, 3, 10)
    assert fit_exponent(places, [7 * each**exponent for each in places]) == pytest.approx(exponent)
    assert fit_exponent((4, 4), (1.0, 2.0)) is None
    assert fit_exponent((4,), (1.0,)) is None


def test_growth_is_told_and_drawn():
    (growth,) = list_growths(grow(), "steps")
    assert growth.places == (2, 4, 8)
    assert growth.exponent == pytest.approx(0.5)
    assert growth.memory_exponent == pytest.approx(1)
    result = RESULT.model_copy(
        update={"rows": tuple(grow()), "sweep": "steps", "comparisons": (), "rooflines": ()}
    )
    text = format_html(result)
    Page(text)
    charts = find_charts(text)
    for name in ("growth", "memory"):
        assert [mark["place"] for mark in list_marks(charts[name])] == ["2", "4", "8"]
    for written in (format_terminal(result), format_markdown(result)):
        assert "time grows as steps ^ 0.50, memory as ^ 1.00 (3 points, 2 to 8)" in written


def test_what_does_not_grow_has_no_chart():
    one = RESULT.model_copy(update={"rows": tuple(grow(places=(4,))), "sweep": "steps"})
    unknown = one.model_copy(update={"rows": tuple(grow(memory=False))})
    assert not {"growth", "memory"} & set(find_charts(format_html(one)))
    assert {"growth", "memory"} & set(find_charts(format_html(unknown))) == {"growth"}
    assert "grows as steps ^ 0.50 (3" in format_terminal(unknown)


def test_cases_that_share_a_colour_are_all_in_the_legend():
    rows = []
    for engine in "abcdefg":
        for row in grow():
            case = row.case.model_copy(update={"engine": engine})
            rows.append(row.model_copy(update={"case": case}))
    figure = draw_growth(list_growths(rows, "steps"), "steps")
    assert figure.legend["c0"] == "a fp32: 0.50; f fp32: 0.50"
    assert len(figure.legend) == 5
