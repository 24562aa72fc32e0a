"""``tune`` measures, ``explain`` says why."""

import json
import re
import threading
from dataclasses import replace

import pytest
from command_line import run
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion.cli.candidates import format_plan
from fastdeploy_diffusion.cli.tune import format_explanation
from fastdeploy_diffusion.engines.plan import Candidate, ComponentPlan, UnsafePrecision
from fastdeploy_diffusion.passes.registry import pass_names
from fastdeploy_diffusion.predictors.component import ComponentReport
from fastdeploy_diffusion.predictors.result import PipelineReport

PLAN = ComponentPlan(
    "denoiser",
    {"sample": (2, 4, 8, 8), "timestep": (2,)},
    (
        Candidate("openvino", "fp32", (), 0.5, 1e-6),
        Candidate("openvino", "fp32", ("merge-kv",), 0.25, 2e-6),
        Candidate("openvino", "bf16", (), 0.125, 3e-3),
        Candidate("onnxruntime", "fp32", ("fuse-attention",), 0.0004, 1e-6),
        Candidate("onnxruntime", "fp16", (), 0.1, 1e-3),
        Candidate("paddle", "fp16", refusal="paddle runs fp32 on cpu, not half precision"),
        Candidate("paddle", "bf16", refusal="paddle runs fp32 on cpu, not half precision"),
        Candidate("tensorrt", "fp32", refusal="tensorrt failed: " + "very long " * 40),
    ),
    (UnsafePrecision("onnxruntime", "fp16", "denoiser: NaN"),),
)


def report(**options):
    runs = {"engine": "openvino", "precision": "fp32", "measured_seconds": 0.25, **options}
    given = {"name": "denoiser", "device": "cpu", "fallback": None, "tolerance": 1e-4}
    return ComponentReport(**given, **runs)


def test_a_plan_is_a_table_that_says_what_runs():
    header, *lines = format_plan(PLAN, report())
    assert header.split() == ["engine", "precision", "passes", "ms", "times", "error"]
    rows = [" ".join(line.split()) for line in lines]
    assert rows == [
        "onnxruntime fp32 1 0.40 0.00 1e-06 runs with --precision auto",
        "onnxruntime fp16 none 100 0.40 1e-03 not safe",
        "openvino bf16 none 125 0.50 3e-03",
        "openvino fp32 1 250 1.00 2e-06 runs",
        "openvino fp32 none 500 2.00 1e-06",
        "passes of onnxruntime in fp32: fuse-attention",
        "passes of openvino in fp32: merge-kv",
        "not onnxruntime in fp16: not safe: denoiser: NaN",
        "not paddle in fp16, paddle in bf16: paddle runs fp32 on cpu, not half precision",
        rows[-1],
    ]
    assert rows[-1].startswith("not tensorrt in fp32: tensorrt failed: very long very")
    assert rows[-1].endswith(" …")


def test_a_plan_of_the_real_passes_fits_a_terminal():
    wide = tuple(
        Candidate(engine, precision, pass_names(), 1234.5, 1e-6, "")
        for engine in ("openvino", "onnxruntime")
        for precision in ("fp32", "bf16")
    )
    lines = format_plan(replace(PLAN, candidates=(*wide, *PLAN.candidates)), report())
    assert max(map(len, lines)) <= 100
    text = " ".join(" ".join(lines).split())
    assert f"passes of openvino in bf16: {', '.join(pass_names())}" in text


def explain(*plans):
    components = tuple(replace(report(), name=name) for name in ("text_encoder", "denoiser"))
    whole = PipelineReport("/models/m", "sd1", "DDIMScheduler", components, "resident")
    return format_explanation(whole, plans, as_json=False)


def test_a_tuning_that_is_not_finished_says_so():
    assert "the tuning is not finished, text_encoder not measured" in explain(None, PLAN)
    # Only what was seen to fail was kept: nothing was measured.
    unsafe = replace(PLAN, candidates=())
    assert "the tuning is not finished, denoiser not measured" in explain(PLAN, unsafe)
    assert "not tuned: auto goes by its order" in explain(None, None)
    assert "tun" not in explain(PLAN, PLAN)


def test_what_would_be_faster_if_it_were_installed_is_one_line():
    command = 'pip install "fastdeploy-diffusion[openvino]"'
    components = tuple(
        replace(report(), name=name, engine="paddle", installable={"openvino": command})
        for name in ("text_encoder", "denoiser")
    )
    whole = PipelineReport("/models/m", "sd1", "DDIMScheduler", components, "resident")
    advice = f"openvino is faster as a rule, and is not installed: {command}"
    assert whole.advice == advice
    assert format_explanation(whole, [None, None], as_json=False).splitlines()[-1] == advice
    assert explain(None, None).count("installed") == 0


def test_a_precision_that_is_slower_than_float32_is_said_in_one_line():
    reason = "this CPU multiplies bf16 more slowly than fp32"
    slow = replace(report(), precision="bf16", slower=reason)
    whole = PipelineReport("/models/m", "sd1", "DDIMScheduler", (report(), slow), "resident")
    advice = f"fp32 is faster than bf16 here, with more memory: {reason}"
    assert format_explanation(whole, [None, None], as_json=False).splitlines()[-1] == advice


def test_an_interrupted_tuning_says_so(monkeypatch, config):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fastdeploy_diffusion.compiler.placer.tune_component", interrupt)
    error = run("tune", "--config", config, code=130).stderr
    assert "warning: the tuning is not finished; `explain` says which" in error


@pytest.fixture
def config(tmp_path):
    model = write_tiny_sd(tmp_path / "model")
    file = tmp_path / "pipeline.yaml"
    file.write_text(f"model_path: {model}\ncache_dir: {tmp_path / 'builds'}\npasses: [merge-kv]\n")
    return file


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("tune", r"text_encoder: \w+ in fp32, (1|no) passes, components 0 of 3 \(\d+ s\)"),
        ("passes", r"text_encoder: merge-kv, trials 0 of 3 \(\d+ s\)"),
    ],
)
def test_progress_is_told_without_a_terminal(command, line, config, monkeypatch):
    monkeypatch.setattr("fastdeploy_diffusion.cli.progress.SECONDS_BETWEEN_LINES", 0.01)
    slow = threading.Event()

    def interrupt(*_):  # after a while in which nothing is shown
        slow.wait(0.5)
        raise KeyboardInterrupt

    monkeypatch.setattr("fastdeploy_diffusion.compiler.build.ComponentBuild.open", interrupt)
    monkeypatch.setattr("fastdeploy_diffusion.compiler.pass_tester.PassTester.try_pass", interrupt)
    error = run(command, "--config", config, code=130).stderr
    assert any(re.fullmatch(line, each) for each in error.splitlines())


@pytest.mark.slow
def test_what_is_tuned_is_explained(config):
    words = ("--config", str(config), "--height", "32", "--width", "32")
    plans = json.loads(run("tune", *words, "--runs", "1", "--json").stdout)
    report = json.loads(run("explain", *words, "--json").stdout)
    for plan, component in zip(plans, report["components"], strict=True):
        tried = [each for each in plan["candidates"] if each["precision"] == "fp32"]
        measured = [each for each in tried if each["seconds"]]
        fastest = min(measured, key=lambda each: each["seconds"])
        assert component["engine"] == fastest["engine"]
        assert component["measured_seconds"] == fastest["seconds"]
        assert component["cached"]
    text = run("explain", *words).stdout
    assert [line.split()[-1] for line in text.splitlines()].count("runs") == 3
    assert max(map(len, text.splitlines()[1:])) <= 100
    assert "passes: merge-kv " in text
    assert "plan" in run("cache", "ls", "--dir", str(config.parent / "builds")).stdout


def test_explain_says_what_runs_without_a_plan(config):
    text = run("explain", "--config", str(config), "--engine", "paddle-eager").stdout
    assert "paddle-eager" in text
    assert "not tuned: auto goes by its order" not in text


def test_a_wrong_model_is_explained():
    assert "no/such does not exist" in run("tune", "--model", "no/such", code=2).stderr
    assert "no/such does not exist" in run("explain", "--model", "no/such", code=2).stderr
