"""Cases are measured by real processes; only what they draw is made up."""

import signal

import numpy as np
import pytest
from benchmark.painted_peer import make_case, make_plan, write_adapter

from fastdeploy_diffusion.benchmark import findings
from fastdeploy_diffusion.benchmark import measure as measure_module
from fastdeploy_diffusion.benchmark.child_process import ChildError
from fastdeploy_diffusion.benchmark.measure import measure_case
from fastdeploy_diffusion.benchmark.result import Missing
from fastdeploy_diffusion.benchmark.row import Row
from fastdeploy_diffusion.benchmark.run import run_benchmark
from fastdeploy_diffusion.benchmark.take_turns import take_turns
from fastdeploy_diffusion.benchmark.workplace import Workplace

PICTURES = np.random.default_rng(3).integers(0, 256, (2, 16, 24, 3), np.uint8)


def measure(tmp_path, reference=PICTURES, *, draw="pass"):
    plan = make_plan(write_adapter(tmp_path, draw=draw))
    return measure_case(Workplace(plan, tmp_path, lambda what: None), make_case(), reference)


def test_a_row_has_everything(tmp_path):
    row = measure(tmp_path)
    assert isinstance(row, Row)
    samples = row.samples
    assert row.missing == ""
    assert len(samples.pictures) == 3
    assert min(samples.pictures) >= 0.004
    assert samples.stages["step"] == (0.002,) * 6
    assert samples.stage_per_picture("step") == pytest.approx([0.004] * 3)
    assert samples.load_cold_seconds is None
    assert samples.first_picture_seconds > 0
    assert row.quality.psnr is None
    assert row.quality.ssim == pytest.approx(1)
    assert row.settings["version"] == "1.0"


PAUSE = "time.sleep(0.2)"


@pytest.mark.parametrize(
    ("place", "figures"),
    [
        ("import", ["import_seconds"]),
        ("load", ["load_cold_seconds", "load_warm_seconds"]),
        ("draw", ["first_picture_seconds"]),
    ],
)
def test_each_second_is_counted_where_it_is_spent(tmp_path, place, figures):
    pauses = {"load": PAUSE, "draw": f"self.drawn > 1 or {PAUSE}"}
    adapter = write_adapter(tmp_path, **{place: pauses[place]} if place in pauses else {})
    begin = f"import time; {PAUSE}\n" if place == "import" else ""
    code = adapter.read_text().replace("keeps_builds = False", "keeps_builds = True")
    adapter.write_text(begin + code)
    row = measure_case(Workplace(make_plan(adapter), tmp_path, print), make_case(), PICTURES)
    assert all(getattr(row.samples, name) >= 0.2 for name in figures)


def test_the_peak_of_memory_is_not_what_is_left(tmp_path):
    adapter = write_adapter(tmp_path, load="np.ones(2**23)")  # 64 MiB, for a moment
    row = measure_case(Workplace(make_plan(adapter), tmp_path, print), make_case(), PICTURES)
    assert row.samples.peak_bytes - row.samples.steady_bytes > 32 * 2**20
    assert row.samples.os_threads >= 1


def test_other_pictures_are_told(tmp_path):
    row = measure(tmp_path, 255 - PICTURES)
    assert row.quality.psnr < 10
    assert row.quality.ssim < 0.1


@pytest.mark.parametrize(
    ("draw", "reason"),
    [
        ("if self.drawn == 3: os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("if self.drawn == 3: raise MemoryError('no room')", "MemoryError: no room"),
    ],
)
def test_what_was_measured_before_a_failure_is_kept(tmp_path, draw, reason):
    row = measure(tmp_path, draw=draw)
    assert isinstance(row, Row)
    assert reason in row.missing
    assert len(row.samples.pictures) == 1


class ScriptedMeter:
    """Says 10 joules after the first picture, 30 after the second, 60 after the third."""

    def __init__(self):
        self.joules = iter((10.0, 30.0, 60.0))

    def read_joules(self):
        return next(self.joules)


@pytest.mark.parametrize(
    ("draw", "joules"),
    [
        ("pass", 20),
        ("if self.drawn == 4: os._exit(1)", 15),
        ("if self.drawn == 3: os._exit(1)", 10),
    ],
)
def test_joules_are_those_of_a_picture(tmp_path, monkeypatch, draw, joules):
    monkeypatch.setattr(measure_module, "EnergyMeter", ScriptedMeter)
    assert measure(tmp_path, draw=draw).samples.joules == joules


def test_a_reference_is_drawn_once_for_pictures_that_are_the_same(tmp_path, monkeypatch):
    """Threads change no picture; everything else does."""
    case = make_case()
    works = [
        case.work.model_copy(update=update)
        for update in ({}, {"threads": 2}, {"steps": 3}, {"threads": 3}, {"seed": 4})
    ]
    cases = [case.model_copy(update={"work": work}) for work in works]
    drawn, judged = [], []

    def draw(place, case):
        drawn.append((case.work.steps, case.work.seed))
        if case.work.seed == 4:
            raise ChildError("too little memory")
        return f"reference {case.work.steps}"

    def note(place, case, reference):
        judged.append(reference)
        return Missing(case=str(case), reason="only noted")

    monkeypatch.setattr(findings, "draw_reference", draw)
    monkeypatch.setattr(findings, "measure_case", note)
    plan = make_plan(write_adapter(tmp_path), cases)
    found = findings.Findings()
    findings.measure_all(Workplace(plan, tmp_path, lambda what: None), found)
    assert drawn == [(2, 3), (3, 3), (2, 4)]
    assert judged == [
        *("reference 2", "reference 2", "reference 3", "reference 2", "too little memory"),
    ]
    assert [each.case for each in found.missing] == [str(each) for each in cases]


def test_speed_without_quality_is_no_row(tmp_path):
    missing = measure(tmp_path, "the reference ran out of memory")
    assert isinstance(missing, Missing)
    assert "the reference ran out of memory" in missing.reason
    assert len(missing.samples.pictures) == 3
    missing = measure(tmp_path, PICTURES[:, :12])
    assert "compared with" in missing.reason


def test_a_peer_that_is_not_installed_is_listed_with_its_error(tmp_path):
    adapter = write_adapter(tmp_path)
    adapter.write_text(f"import a_peer_that_is_not_there\n{adapter.read_text()}")
    place = Workplace(make_plan(adapter), tmp_path, lambda what: None)
    missing = measure_case(place, make_case(), PICTURES)
    assert isinstance(missing, Missing)
    assert missing.reason == "ModuleNotFoundError: No module named 'a_peer_that_is_not_there'"


def test_turns_are_taken_in_pairs(tmp_path):
    plan = make_plan(write_adapter(tmp_path), runs=4)
    place = Workplace(plan, tmp_path, lambda what: None)
    comparison = take_turns(place, make_case(), make_case(precision="bf16"))
    assert len(comparison.ratios) == 4
    assert comparison.ratios[0] == pytest.approx(
        comparison.theirs_seconds[0] / comparison.ours_seconds[0]
    )
    ended = make_plan(write_adapter(tmp_path, draw="if self.drawn == 3: os._exit(1)"), runs=4)
    place = Workplace(ended, tmp_path, lambda what: None)
    comparison = take_turns(place, make_case(), make_case(precision="bf16"))
    assert len(comparison.ratios) == 1
    assert "exit code 1" in comparison.missing


@pytest.fixture
def ctrl_c():
    """Ctrl-C as a terminal has it: what runs in the background is started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.serial
def test_ctrl_c_keeps_what_was_measured(tmp_path, monkeypatch, ctrl_c):
    # The parent is interrupted while the second case draws; its pictures so far stay.
    monkeypatch.setattr(findings, "draw_reference", lambda place, case: PICTURES)
    draw = (
        "if self.task['precision'] == 'bf16' and self.drawn == 3: "
        "os.kill(os.getppid(), signal.SIGINT); time.sleep(600)"
    )
    cases = [make_case(precision=each) for each in ("fp32", "bf16", "fp16")]
    plan = make_plan(write_adapter(tmp_path, draw=draw), cases)
    seen = []
    result = run_benchmark(plan, lambda what, done, total: seen.append((what, done, total)))
    assert result.is_interrupted
    assert [row.case.precision for row in result.rows] == ["fp32", "bf16"]
    assert [len(row.samples.pictures) for row in result.rows] == [3, 1]
    assert {each.case: each.reason for each in result.missing} == {
        "painted fp16, 24 x 16, batch 2, 2 steps, 1 thread": "interrupted",
        "turns with peers": "interrupted",
        "distance from the limit": "interrupted",
    }
    assert seen[-1][1:] == (1, 3)
    assert result.machine["usable_cores"] >= 1
