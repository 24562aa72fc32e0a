"""What a child is told is the configuration that was asked for, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchmark.painted_peer import WORK, make_case, make_plan

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.benchmark.case import OWN, Case
from fastdeploy_diffusion.benchmark.child_process import ChildError
from fastdeploy_diffusion.benchmark.workplace import Workplace
from fastdeploy_diffusion.compiler.calibration_prompts import read_prompts
from fastdeploy_diffusion.runtime.cache import CALIBRATIONS

OPTIONS = {
    "passes": ["merge-qkv"],
    "scheduler": "euler",
    "denoiser": {"engine": "paddle-eager"},
    "cache_limit_gib": 3,
}


@pytest.mark.parametrize("engine", ["openvino", "auto"])
def test_the_configuration_survives_the_way(tmp_path, engine):
    config = DiffusionConfig.from_preset("shapes", **OPTIONS)
    plan = replace(make_plan(tmp_path / "adapter.py"), config=config)
    case = Case(painter=OWN, engine=engine, device="cpu", precision="fp32", work=WORK)
    task = json.loads(json.dumps(Workplace(plan, tmp_path, print).describe_task(case)))
    told = DiffusionConfig(**task["config"])
    changes = {
        "engine": engine,
        "precision": "fp32",
        "threads": 1,
        "cpu_fallback": False,
        "cache_dir": told.cache_dir,
        # Every picture that is measured encodes its prompt.
        "embedding_cache": {"memory_mib": 0.0, "disk_mib": 0.0},
    }
    assert told.model_dump() == {**config.model_dump(), **changes}
    assert told.cache_dir.startswith(str(tmp_path))
    assert task["scheduler"] == "EulerDiscreteScheduler"
    assert task["model_path"] == config.model_path


@pytest.mark.parametrize(
    ("name", "told"), [("dpm-solver", "DPMSolverMultistepScheduler"), ("DPM++ 2M Karras", None)]
)
def test_peers_are_told_of_schedulers_but_not_of_samplers_with_options(tmp_path, name, told):
    config = DiffusionConfig.from_preset("shapes", scheduler=name)
    place = Workplace(replace(make_plan(tmp_path / "adapter.py"), config=config), tmp_path, print)
    own = Case(painter=OWN, engine="openvino", device="cpu", precision="fp32", work=WORK)
    assert place.describe_task(own)["scheduler"] == "DPMSolverMultistepScheduler"
    peer = own.model_copy(update={"painter": "painted", "engine": "painted"})
    if told:
        assert place.describe_task(peer)["scheduler"] == told
    else:
        with pytest.raises(ChildError, match="options peers are not told"):
            place.describe_task(peer)


def test_every_case_has_a_cache_of_its_own(tmp_path):
    place = Workplace(make_plan(tmp_path / "adapter.py"), tmp_path, print)
    cases = [
        Case(
            painter=OWN,
            engine=engine,
            device="cpu",
            precision=precision,
            work=WORK.model_copy(update=update),
        )
        for engine in ("openvino", "paddle")
        for precision in ("fp32", "bf16")
        for update in (
            {},
            {"width": 32},
            {"height": 32},
            {"batch": 1},
            {"steps": 9},
            {"threads": 2},
        )
    ]
    assert len({place.cache_folder(case) for case in cases}) == len(cases)


def test_a_peer_is_not_told_of_our_environment(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setattr(
        "fastdeploy_diffusion.benchmark.workplace.ChildProcess",
        lambda python, adapter, environment, limit: seen.update(environment),
    )
    place = Workplace(make_plan(tmp_path / "adapter.py"), tmp_path, print)
    place.start(
        Case(painter="painted", engine="painted", device="cpu", precision="fp32", work=WORK)
    )
    assert "PYTHONPATH" not in seen
    place.start(Case(painter=OWN, engine="paddle", device="cpu", precision="fp32", work=WORK))
    assert seen["PYTHONPATH"].endswith("/ours")


@pytest.mark.parametrize("option", ["variant", "tokenizer_path", "prediction_type"])
def test_a_peer_that_would_draw_with_something_else_is_refused(tmp_path, option):
    value = {"prediction_type": "epsilon"}.get(option, "other")
    config = DiffusionConfig.from_preset("shapes", **{option: value})
    plan = replace(make_plan(tmp_path / "adapter.py"), config=config)
    with pytest.raises(ChildError, match=f"{option} is set, which peers are not told"):
        Workplace(plan, tmp_path, print).describe_task(make_case())


def test_inputs_are_recorded_once_for_peers_that_quantise(tmp_path, tiny_sd1):
    own = Case(painter=OWN, engine="openvino", device="cpu", precision="fp32", work=WORK)
    peers = [make_case(precision=each) for each in ("int8", "int8-hybrid")]
    config, said = DiffusionConfig(model_path=tiny_sd1), []
    plan = replace(make_plan(tmp_path / "adapter.py", [own, *peers]), config=config)
    place = Workplace(plan, tmp_path, said.append)
    assert place.describe_task(peers[0])["calibration"] is None
    for peer in peers:
        place.calibrate(peer)
    assert len(said) == 1
    (folder,) = {place.describe_task(each)["calibration"] for each in peers}
    prompts = read_prompts().calibrating
    assert len(list(Path(folder).glob("*.safetensors"))) == len(prompts)
    assert place.describe_task(own)["calibration"] is None


@pytest.mark.parametrize(("count", "is_taken"), [(32, True), (4, True), (8, False), (2, False)])
def test_inputs_of_large_models_are_found_too(count, is_taken, tmp_path):
    peer = make_case(precision="int8")
    place = Workplace(make_plan(tmp_path / "adapter.py", [peer]), tmp_path, print)
    cache = tmp_path / f"calibration-{WORK.width}x{WORK.height}-{WORK.steps}"
    (folder := cache / CALIBRATIONS / "x").mkdir(parents=True)
    for index in range(count):
        (folder / f"{index}.safetensors").touch()
    assert (place.describe_task(peer)["calibration"] == str(folder)) == is_taken
