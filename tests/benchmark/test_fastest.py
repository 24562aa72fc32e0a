"""What is asked of our fastest cases: real processes, of which only the answers are made up."""

import pytest
from benchmark.painted_peer import make_case, make_plan, write_adapter

from fastdeploy_diffusion.benchmark.child_process import ChildProcess
from fastdeploy_diffusion.benchmark.fastest import ablate, measure_roofline
from fastdeploy_diffusion.benchmark.result import INTERRUPTED, Missing
from fastdeploy_diffusion.benchmark.workplace import Workplace

ANSWERS = """
    def ablate(self):
        {fail}
        times = {{"before": [2.0, 3.0], "after": [1.0, 1.5]}}
        return [
            {{"component": "denoiser", "passes": name, "error": 1e-6, **times}}
            for name in ("merge-kv", "all")
        ]

    def survey(self, batch):
        {fail}
        peaks = {{"matrix_product": 4e9, "convolution": 2e9, "bandwidth": 1e9}}
        counts = {{"plain_flops": 8, "flops": batch * 2 * 10**9, "moved_bytes": 10**6}}
        who = {{"component": "denoiser", "engine": "painted", "precision": "fp32"}}
        return [{{**who, **counts, "peaks": peaks, "seconds": [1.0, 4.0, 2.0]}}]
"""


@pytest.fixture
def open_place(tmp_path):
    def open_(fail="pass"):
        adapter = write_adapter(tmp_path)
        adapter.write_text(adapter.read_text() + ANSWERS.format(fail=fail))
        return Workplace(make_plan(adapter), tmp_path, shown.append)

    shown = []
    open_.shown = shown
    return open_


def test_each_trial_of_a_pass_is_a_result(open_place):
    found = ablate(open_place(), make_case())
    assert [(each.case, each.component, each.passes) for each in found] == [
        (make_case(), "denoiser", "merge-kv"),
        (make_case(), "denoiser", "all"),
    ]
    assert (found[0].before, found[0].after, found[0].relative_error) == ((2, 3), (1, 1.5), 1e-6)
    assert open_place.shown == [f"passes of {make_case()}"]


def test_a_roofline_is_that_of_the_batch_of_the_case(open_place):
    (found,) = measure_roofline(open_place(), make_case())
    assert (found.case, found.component, found.seconds) == (make_case(), "denoiser", (1, 4, 2))
    assert found.flops == make_case().work.batch * 2 * 10**9
    assert found.share == 0.5
    assert open_place.shown == [f"roofline of {make_case()}"]


@pytest.mark.parametrize(("ask", "what"), [(ablate, "passes"), (measure_roofline, "roofline")])
def test_what_fails_is_missing_with_the_reason(open_place, ask, what, monkeypatch):
    (missing,) = ask(open_place("raise MemoryError('no room')"), make_case())
    assert isinstance(missing, Missing)
    assert missing.case == f"{what} of {make_case()}"
    assert "MemoryError: no room" in missing.reason

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ChildProcess, "open", interrupt)
    (missing,) = ask(open_place(), make_case())
    assert (missing.case, missing.reason) == (f"{what} of {make_case()}", INTERRUPTED)
