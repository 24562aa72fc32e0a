"""The page of published runs is what the published runs say."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastdeploy_diffusion.benchmark.report.page import format_page, read_published
from fastdeploy_diffusion.cli.app import app
from fastdeploy_diffusion.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date():
    published = read_published(ROOT / "benchmarks" / "results")
    assert (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8") == format_page(published)


def test_every_run_is_on_the_page(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        recorded = Path(__file__).with_name("recorded.json")
        shutil.copy(recorded, tmp_path / name / "result.json")
    page = tmp_path / "page.md"
    result = CliRunner().invoke(app, ["bench", "page", str(tmp_path), "--output", str(page)])
    assert result.exit_code == 0, result.stderr
    text = page.read_text(encoding="utf-8")
    assert text == format_page(read_published(tmp_path))
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("# ")] == ["# Benchmarks"]
    assert "## Benchmark of shapes: one" in lines
    assert "## Benchmark of shapes: two" in lines
    assert text.count("### Measured with") == 2


def test_no_folder_is_explained(tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        read_published(tmp_path / "nowhere")
