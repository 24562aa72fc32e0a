"""The report opens in a real browser, where one is installed, without any network.

Any Chromium will do: one on the PATH, or the one that ``CHROME_BIN`` names. None comes with the
packages of the tests.
"""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fastdeploy_diffusion.benchmark.report.html import format_html
from fastdeploy_diffusion.benchmark.result import read_result

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, (os.environ.get("CHROME_BIN", ""), *NAMES))), None)
CHARTS = {"stages", "latencies", "quality", "starts", "turns", "roofline", "ablation"}
WIDTHS = (390, 1280)  # of a phone and of a desktop

# The report in frames of these widths, and what the browser made of it.
FRAME = '<iframe width="{width}" height="900" srcdoc="{page}"></iframe>'
MEASURE = """<script>
onload = () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, charts = {};
    for (const figure of page.querySelectorAll("figure")) {
      const box = figure.querySelector("svg").getBoundingClientRect();
      charts[figure.dataset.chart] = [box.left, box.right, box.height];
    }
    found[frame.width] = {
      charts,
      wide: page.documentElement.scrollWidth,
      fetched: frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name),
      end: page.querySelector("main").lastElementChild.getBoundingClientRect().bottom,
    };
  }
  document.body.dataset.found = JSON.stringify(found);
};
</script>"""


@pytest.mark.skipif(BROWSER is None, reason=f"no CHROME_BIN, nor {', '.join(NAMES)} on the PATH")
def test_a_browser_shows_every_chart(tmp_path):
    report = format_html(read_result(Path(__file__).with_name("recorded.json")))
    frames = [FRAME.format(width=width, page=html.escape(report)) for width in WIDTHS]
    page = tmp_path / "frames.html"
    page.write_text(f"<!DOCTYPE html><body>{''.join(frames)}{MEASURE}", encoding="utf-8")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    shown = subprocess.run(
        [str(BROWSER), *options, "--virtual-time-budget=5000", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    found = json.loads(html.unescape(re.search(r'data-found="(.*?)"', shown)[1]))
    assert set(found) == {str(width) for width in WIDTHS}
    for width, seen in found.items():
        assert set(seen["charts"]) == CHARTS
        for left, right, height in seen["charts"].values():
            assert 0 <= left < right <= int(width)
            assert height > 60
        assert seen["wide"] <= int(width)  # tables scroll within their boxes, the page does not
        assert seen["fetched"] == []
        assert seen["end"] > 900
