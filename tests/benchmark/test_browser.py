"""The report opens in a real browser, where one is installed, without any network."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fastdeploy_diffusion.benchmark.report.html import format_html
from fastdeploy_diffusion.benchmark.result import read_result

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
CHARTS = {"stages", "latencies", "quality", "starts", "turns", "roofline", "ablation"}


@pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(NAMES)} is installed")
def test_a_browser_shows_every_chart(tmp_path):
    page = tmp_path / "report.html"
    recorded = Path(__file__).with_name("recorded.json")
    page.write_text(format_html(read_result(recorded)), encoding="utf-8")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    shown = subprocess.run(
        [str(BROWSER), *options, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert set(re.findall(r'<figure data-chart="(\w+)"><figcaption>[^<]+', shown)) == CHARTS
    assert shown.count("</svg>") == len(CHARTS)
    assert "</main>" in shown
