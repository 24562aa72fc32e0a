"""``tune`` measures, ``explain`` says why."""

import json

import pytest
from command_line import run
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion.cli.tune import format_plans
from fastdeploy_diffusion.engines.plan import Candidate, ComponentPlan

PLAN = ComponentPlan(
    "denoiser",
    {"sample": (2, 4, 8, 8), "timestep": (2,)},
    (
        Candidate("openvino", "fp32", (), 0.5, 1e-6),
        Candidate("openvino", "fp32", ("merge-kv",), 0.25, 2e-6),
        Candidate("openvino", "bf16", refusal="this CPU has no instructions for bf16"),
    ),
)


def test_plans_for_people():
    first, *rows = format_plans([PLAN], as_json=False).splitlines()
    assert first == "denoiser: sample 2 x 4 x 8 x 8, timestep 2"
    assert "taken" not in rows[0]
    assert " ".join(rows[1].split()) == (
        "openvino in fp32 with merge-kv 0.25 s relative error 2.0e-06 taken"
    )
    assert (
        rows[2].strip() == "openvino in bf16                this CPU has no instructions for bf16"
    )


@pytest.fixture
def config(tmp_path):
    model = write_tiny_sd(tmp_path / "model")
    file = tmp_path / "pipeline.yaml"
    file.write_text(f"model_path: {model}\ncache_dir: {tmp_path / 'builds'}\npasses: [merge-kv]\n")
    return file


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
    assert text.count("when it was tuned") == 3
    assert "passes: merge-kv " in text
    assert "not paddle in fp32 with merge-kv: " in text or "not openvino in fp32" in text
    assert "plan" in run("cache", "ls", "--dir", str(config.parent / "builds")).stdout


def test_explain_says_what_runs_without_a_plan(config):
    text = run("explain", "--config", str(config), "--engine", "paddle-eager").stdout
    assert "paddle-eager" in text
    assert "when it was tuned" not in text


def test_a_wrong_model_is_explained():
    assert "no/such does not exist" in run("tune", "--model", "no/such", code=2).stderr
    assert "no/such does not exist" in run("explain", "--model", "no/such", code=2).stderr
