"""Reports of a recorded run: every chart has its data, and the page needs nothing from outside."""

import csv
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fastdeploy_diffusion.benchmark.report.files import write_report
from fastdeploy_diffusion.benchmark.report.html import format_html
from fastdeploy_diffusion.benchmark.report.markdown import format_markdown
from fastdeploy_diffusion.benchmark.report.svg import Scale
from fastdeploy_diffusion.benchmark.report.table import (
    LATENCY_HEADINGS,
    UNKNOWN,
    format_seconds,
    list_cells,
    list_latencies,
    list_losses,
    list_resources,
)
from fastdeploy_diffusion.benchmark.report.terminal import format_terminal
from fastdeploy_diffusion.benchmark.result import Missing, read_result
from fastdeploy_diffusion.benchmark.row import STAGES
from fastdeploy_diffusion.errors import ConfigError

RECORDED = Path(__file__).with_name("recorded.json")
VOID = {"meta"}


@pytest.fixture(scope="module")
def result():
    return read_result(RECORDED)


class Page(HTMLParser):
    """Refuses what does not nest, and collects elements."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_decl(self, declaration):
        assert declaration == "DOCTYPE html"


def find_charts(page):
    """Each chart's drawing, parsed strictly, by name."""
    found = re.findall(r'<figure data-chart="(\w+)">.*?(<svg.*?</svg>)', page, re.DOTALL)
    return {name: ElementTree.fromstring(svg) for name, svg in found}


def list_marks(chart, **wanted):
    """The data of marks that carry some."""
    marks = [
        {key.removeprefix("data-"): value for key, value in each.attrib.items() if "data-" in key}
        for each in chart.iter()
    ]
    return [mark for mark in marks if mark and wanted.items() <= mark.items()]


def test_the_page_is_whole_and_nothing_comes_from_outside(result):
    text = format_html(result)
    page = Page(text)
    tags = Counter(tag for tag, _ in page.elements)
    assert tags["script"] == tags["link"] == tags["img"] == tags["iframe"] == 0
    assert not {"src", "href", "style", "onload"} & {
        name for _, attributes in page.elements for name in attributes
    }
    without_names = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|url\(|@import|//", without_names)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in (
        page.elements
    )


def test_every_chart_has_its_data(result):
    charts = find_charts(format_html(result))
    names = {row.case.name for row in result.rows}
    assert set(charts) == {
        "stages",
        "latencies",
        "quality",
        "starts",
        "turns",
        "roofline",
        "ablation",
    }
    for row in result.rows:
        case = row.case.name
        stages = list_marks(charts["stages"], case=case)
        assert {mark["stage"] for mark in stages} == set(row.samples.stages) & set(STAGES)
        pictures = [
            mark for mark in list_marks(charts["latencies"], case=case) if "seconds" in mark
        ]
        assert [float(mark["seconds"]) for mark in pictures] == pytest.approx(
            row.samples.pictures, rel=1e-5
        )
        starts = {mark["start"] for mark in list_marks(charts["starts"], case=case)}
        is_cold = row.samples.load_cold_seconds is not None
        assert ("load_cold_seconds" in starts) is is_cold
        assert len(starts) == 3 + is_cold
    assert {mark["case"] for mark in list_marks(charts["quality"])} == names
    ratios = [mark for mark in list_marks(charts["turns"]) if "ratio" in mark]
    assert len(ratios) == sum(len(each.ratios) for each in result.comparisons)
    assert len(list_marks(charts["ablation"])) == len(result.ablations)
    assert {mark["component"] for mark in list_marks(charts["roofline"])} == {
        each.component for each in result.rooflines
    }


def test_everything_lies_within_its_chart(result):
    for name, chart in find_charts(format_html(result)).items():
        _, _, width, height = map(float, chart.attrib["viewBox"].split())
        for each in chart.iter():
            place = each.attrib
            x, y = (float(place.get(key, place.get(f"c{key}", 0))) for key in "xy")
            right, bottom = x + float(place.get("width", 0)), y + float(place.get("height", 0))
            assert -0.01 <= x <= right <= width + 1, (name, place)
            assert -0.01 <= y <= bottom <= height + 1, (name, place)


def test_labels_do_not_lie_on_each_other(result):
    for name, chart in find_charts(format_html(result)).items():
        lines = {}
        for text in chart.iter("{http://www.w3.org/2000/svg}text"):
            if text.attrib["class"] == "small" and text.attrib["text-anchor"] == "start":
                left = float(text.attrib["x"])
                lines.setdefault(text.attrib["y"], []).append((left, left + 6 * len(text.text)))
        for line in lines.values():
            for (_, right), (left, _) in zip(sorted(line), sorted(line)[1:], strict=False):
                assert right < left, name
            assert max(right for _, right in line) <= 441, name


def test_identical_pictures_lie_on_their_own_line(result):
    rows = [
        row.model_copy(update={"quality": row.quality.model_copy(update={"psnr": None})})
        for row in result.rows
    ]
    some = result.model_copy(update={"rows": (*rows[:1], *result.rows[1:])})
    for changed in (some, result.model_copy(update={"rows": tuple(rows)})):
        chart = find_charts(format_html(changed))["quality"]
        marks = [each.attrib for each in chart.iter() if each.attrib.get("data-psnr")]
        identical = {each["cy"] for each in marks if each["data-psnr"] == "identical"}
        others = {each["cy"] for each in marks if each["data-psnr"] != "identical"}
        (label,) = [each for each in chart.iter() if each.text == "identical"]
        assert identical == {f"{float(label.attrib['y']) - 4:g}"}
        assert not others & identical


def test_text_reports_have_every_row_and_reason(result):
    gap = Missing(case="tensorrt fp16, 128 x 128", reason="there is no GPU <here>")
    result = result.model_copy(update={"missing": (gap,)})
    for text in (format_terminal(result), format_markdown(result)):
        assert all(row.case.name in text for row in result.rows)
        assert "there is no GPU <here>" in text
        assert "times as fast as diffusers fp32" in text
        assert "denoiser with merge-kv is" in text
    assert "there is no GPU &lt;here&gt;" in format_html(result)


def test_every_percentile_is_there(result):
    row = result.rows[0]
    every = [list_latencies([row])[0], *list_latencies(result.rows)]
    assert every[0][:3] == [row.case.name, "picture", str(len(row.samples.pictures))]
    assert every[0][3] == format_seconds(min(row.samples.pictures))
    assert len(every[0]) == len(LATENCY_HEADINGS)
    figures = {(line[0], line[1]) for line in every}
    assert (row.case.name, "vae decoder") in figures
    for text in (format_markdown(result), format_html(result)):
        assert all(cell in text for line in every for cell in line)
        assert all(cell in text for line in list_resources(result.rows) for cell in line)


def test_what_is_missing_shows_as_such(result):
    (row,) = [row for row in result.rows if row.case.name == "diffusers fp32"]
    cells = list_cells(row)
    assert cells[6] == UNKNOWN  # no cold load: it keeps no builds
    cut = row.model_copy(update={"missing": "took more than 5 s, at 'draw'"})
    assert list_cells(cut)[0] == "diffusers fp32*"
    text = format_terminal(result.model_copy(update={"rows": (cut,)}))
    assert "cut short after 5 of 5 pictures: took more than 5 s" in text


def test_where_a_peer_is_faster_comes_first(result):
    assert list_losses(result) == [] or "diffusers" in list_losses(result)[0]
    theirs = next(row for row in result.rows if not row.case.is_own)
    quick = theirs.samples.model_copy(
        update={"pictures": (1e-6,) * 5, "stages": {"vae_decoder": (1e-6,) * 5}}
    )
    rows = [row for row in result.rows if row.case.is_own]
    rows.append(theirs.model_copy(update={"samples": quick}))
    changed = result.model_copy(update={"rows": tuple(rows)})
    half = theirs.model_copy(
        update={"samples": quick, "case": theirs.case.model_copy(update={"precision": "fp16"})}
    )  # of which we have nothing
    for each in (changed, result.model_copy(update={"rows": (*rows[:-1], half)})):
        assert [re.search("in (.+?):", line)[1] for line in list_losses(each)] == [
            "the whole picture", "vae decoder",
        ]  # fmt: skip
    for text in (format_terminal(changed), format_markdown(changed), format_html(changed)):
        assert 0 < text.index("is faster than ours") < text.index("picture p50")


def test_a_report_without_rows_says_why(result):
    gaps = (Missing(case="paddle fp32", reason="interrupted"),)
    empty = result.model_copy(
        update={
            "rows": (),
            "comparisons": (),
            "rooflines": (),
            "ablations": (),
            "missing": gaps,
        }
    )
    Page(format_html(empty))
    for text in (format_terminal(empty), format_markdown(empty), format_html(empty)):
        assert "paddle fp32: interrupted" in text


def test_files_are_written_and_read_again(result, tmp_path):
    page = write_report(result, tmp_path)
    assert page.read_text() == format_html(result)
    assert read_result(tmp_path) == result
    with (tmp_path / "samples.csv").open() as file:
        lines = list(csv.DictReader(file))
    pictures = [line for line in lines if line["what"] == "picture"]
    assert len(pictures) == sum(len(row.samples.pictures) for row in result.rows)
    assert float(pictures[0]["seconds"]) == result.rows[0].samples.pictures[0]


def test_what_is_no_result_is_explained(tmp_path, result):
    file = tmp_path / "result.json"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_result(file)
    file.write_text("{}")
    with pytest.raises(ConfigError, match="is no result of a benchmark: started: Field required"):
        read_result(tmp_path)
    file.write_text(result.model_copy(update={"schema_version": 99}).model_dump_json())
    with pytest.raises(ConfigError, match="schema version 99"):
        read_result(file)


@pytest.mark.parametrize(("low", "high"), [(0, 1e-6), (0, 7), (-0.3, 0.2), (0.9, 61), (5, 5)])
def test_ticks_are_round_and_within(low, high):
    ticks = Scale(low, high).ticks()
    assert 1 <= len(ticks) <= 6
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    if low > 0:
        assert all(low <= tick <= high for tick in Scale(low, high, is_log=True).ticks())
