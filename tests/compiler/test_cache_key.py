"""Keys of builds, proofs and plans: another value of anything that decides is another key."""

import json
import os
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from fastdeploy_diffusion.compiler import cache_key
from fastdeploy_diffusion.compiler.cache_key import (
    make_graph_key,
    make_plan_key,
    make_proof_key,
)
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.registry import create_engine, engine_names
from fastdeploy_diffusion.engines.tensorrt import TensorRTEngine
from fastdeploy_diffusion.errors import CacheError
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.runtime.program import TensorSpec
from fastdeploy_diffusion.size_range import SizeRange

SPEC = BuildSpec(Device("cpu"))
GPU = BuildSpec(Device("gpu", 0))
SAMPLE = TensorSpec("sample", (None, SizeRange("height", 1, 2, 3)), "float32")
PREDICTION = TensorSpec("prediction", (None, 4), "float32")
NETWORK = {
    "layer": "unet:UNet",
    "config": {"width": 4},
    "form": {"wrap": ""},
    "weights": "1234",
    "passes": ["merge-qkv"],
}
CODE = ["fastdeploy_diffusion.models.unet"]
OTHER_CODE = ["fastdeploy_diffusion.models.flux"]
KEPT = [name for name in engine_names() if create_engine(name).keeps_builds]


def make_key(**changes):
    """The key of a graph, by default of an engine whose artifacts depend on all there is."""
    given = {
        "engine": create_engine("tensorrt"),
        "spec": SPEC,
        "component": "denoiser",
        "signature": {"inputs": (SAMPLE,), "outputs": (PREDICTION,)},
        "network": NETWORK,
        "code": CODE,
    }
    return make_graph_key(**{**given, **changes})


def make_proof(**changes):
    given = {"engine": create_engine("openvino"), "spec": SPEC, "weights": "1234", "code": CODE}
    return make_proof_key(**{**given, **changes})


def make_plan(**changes):
    given = {
        "engines": [create_engine("paddle"), create_engine("paddle-eager")],
        "device": Device("cpu"),
        "component": "denoiser",
        "network": NETWORK,
        "code": CODE,
    }
    return make_plan_key(**{**given, **changes})


@pytest.fixture(autouse=True)
def identify_anew():
    """What is read of the machine once is read for each test."""
    yield
    cache_key.identify_device.cache_clear()


@dataclass(frozen=True)
class Case:
    """One change: arguments of the key, or what the module finds on the machine."""

    changes: dict
    found: tuple = ()

    def apply(self, make, monkeypatch):
        with monkeypatch.context() as change:
            if self.found:
                change.setattr(cache_key, *self.found)
            cache_key.identify_device.cache_clear()
            return make(**self.changes)


def with_sizes(**changes):
    size = replace(SAMPLE.shape[1], **changes)
    return {
        "signature": {"inputs": (replace(SAMPLE, shape=(None, size)),), "outputs": (PREDICTION,)}
    }


def with_spec(**changes):
    return {"signature": {"inputs": (replace(SAMPLE, **changes),), "outputs": (PREDICTION,)}}


VERSIONS = ("find_version", {"paddlepaddle": "99"}.get)
MACHINE = ("platform", type("Other", (), {"machine": lambda: "riscv64", "system": lambda: "Linux"}))
CPU = ("read_cpu_flags", lambda: ["sse2"])


class Renamed(TensorRTEngine):
    """The same engine under another name."""

    name = "renamed"


class Dialectal(TensorRTEngine):
    """The same engine, which reads other operators."""

    dialect = Dialect.MICROSOFT


# By the ingredient that each changes, and it alone.
BUILD_CASES = {
    "component": [Case({"component": "vae_decoder"})],
    "signature": [
        *(Case(with_sizes(**{name: 7})) for name in ("min", "opt", "max")),
        Case(with_sizes(name="width")),
        Case(with_spec(name="latents")),
        Case(with_spec(shape=(2, 4))),
        Case(with_spec(dtype="float16")),
        Case({"signature": {"inputs": (SAMPLE,), "outputs": (replace(PREDICTION, name="x"),)}}),
        Case({"signature": {"inputs": (SAMPLE, PREDICTION), "outputs": (PREDICTION,)}}),
    ],
    "network": [
        Case({"network": {**NETWORK, "layer": "unet:OtherUNet"}}),
        Case({"network": {**NETWORK, "config": {"width": 5}}}),
        Case({"network": {**NETWORK, "weights": "1235"}}),
        Case({"network": {**NETWORK, "form": {"wrap": "", "normalize": True}}}),
        Case({"network": {**NETWORK, "passes": []}}),
    ],
    "code": [Case({"code": OTHER_CODE})],
    "engine": [Case({"engine": Renamed()})],
    "dialect": [Case({"engine": Dialectal()})],
    "packages": [Case({}, VERSIONS)],
    "device": [
        Case({}, MACHINE),
        Case({}, CPU),
        Case({"spec": replace(SPEC, device=Device("xpu", 0))}),
        Case({"spec": replace(SPEC, device=Device("xpu", 1))}),
        Case({"spec": replace(SPEC, target="sm86")}),
        Case({"spec": replace(SPEC, target="sm89")}),
    ],
    "precision": [Case({"spec": replace(SPEC, precision="bf16")})],
    "options": [
        Case({"spec": replace(SPEC, options={"gpu_passes": []})}),
        Case({"spec": replace(SPEC, options={"gpu_passes": ["x"]})}),
    ],
}
PROOF_CASES = {
    "weights": [Case({"weights": "1235"})],
    "code": [Case({"code": OTHER_CODE})],
    **{name: BUILD_CASES[name] for name in ("packages", "device", "precision", "options")},
}
PLAN_CASES = {
    "component": [Case({"component": "vae_decoder"})],
    "network": BUILD_CASES["network"],
    "code": [Case({"code": OTHER_CODE})],
    # The engine's file is among the code, so that only their order is an ingredient alone.
    "engines": [Case({"engines": [create_engine("paddle-eager"), create_engine("paddle")]})],
    "packages": [Case({}, VERSIONS)],
    "device": [Case({}, MACHINE), Case({}, CPU), Case({"device": Device("xpu", 0)})],
}
# The same for every plan: they keep its key apart from those of builds, and let `cache ls` show it.
PLAN_CONSTANTS = {"engine": "plan", "precision": "", "signature": {"inputs": [], "outputs": []}}


@pytest.mark.parametrize(
    ("make", "cases", "constants"),
    [
        (make_key, BUILD_CASES, {}),
        (make_proof, PROOF_CASES, {}),
        (make_plan, PLAN_CASES, PLAN_CONSTANTS),
    ],
    ids=["build", "proof", "plan"],
)
def test_every_ingredient_alone_makes_another_key(make, cases, constants, monkeypatch):
    before = make()
    json.dumps(before.ingredients)
    # An ingredient that is new has no case yet.
    assert before.ingredients.keys() == cases.keys() | constants.keys()
    assert {name: before.ingredients[name] for name in constants} == constants
    digests = [before.digest]
    for name, changes in cases.items():
        for change in changes:
            after = change.apply(make, monkeypatch)
            differing = [
                each
                for each in before.ingredients
                if after.ingredients[each] != before.ingredients[each]
            ]
            assert differing == [name], change
            digests.append(after.digest)
    assert len(set(digests)) == len(digests)
    assert make().digest == before.digest


def test_every_field_of_what_is_built_for_is_in_the_key():
    decided = {"device", "precision", "target", "options"}
    # Chosen when a build is loaded; where notes may lie; and what decides the bits of weights in
    # int8, which are in the key of a build that has any.
    undecided = {"threads": 1, "notes": Path("notes"), "portable_int8": True}
    assert {each.name for each in fields(BuildSpec)} == decided | undecided.keys()
    for name, value in undecided.items():
        for make in (make_key, make_proof):
            assert make(spec=replace(SPEC, **{name: value})).digest == make().digest
    assert {each.name for each in fields(TensorSpec)} == {"name", "shape", "dtype"}
    assert {each.name for each in fields(SizeRange)} == {"name", "min", "opt", "max"}


@pytest.mark.parametrize("engine", KEPT)
def test_another_version_of_any_package_is_another_key(engine, monkeypatch):
    made = create_engine(engine)
    graphs, proofs = set(), set()
    for package in (*made.packages, *made.runtimes, None):
        monkeypatch.setattr(cache_key, "find_version", {package: "99"}.get)
        graphs.add(make_key(engine=made).digest)
        proofs.add(make_proof(engine=made).digest)
    assert len(graphs) == len(set(made.packages)) + 1
    assert len(proofs) == len({*made.packages, *made.runtimes}) + 1


CHANGES = {
    "weights": {"network": {**NETWORK, "weights": "1235"}},
    "kind": {"spec": replace(SPEC, device=Device("xpu"))},
    "device": {"spec": replace(SPEC, target="sm86")},  # of the same kind
    "precision": {"spec": replace(SPEC, precision="bf16")},
    "options": {"spec": replace(SPEC, options={"x": 1})},
}


@pytest.mark.parametrize("engine", KEPT)
def test_what_an_artifact_ignores_is_in_the_key_of_its_proof_alone(engine):
    made = create_engine(engine)
    assert made.artifact_depends_on <= CHANGES.keys()
    # Another kind of device is another device, too.
    implied = {"kind"} if "device" in made.artifact_depends_on else set()
    graph, proof = make_key(engine=made).digest, make_proof(engine=made).digest
    for name, change in CHANGES.items():
        is_another = make_key(engine=made, **change).digest != graph
        assert is_another == (name in made.artifact_depends_on | implied), name
        beside = {"weights": "1235"} if name == "weights" else change
        assert make_proof(engine=made, **beside).digest != proof


WORDS = {
    "weights": "the weights",
    "precision": "the precision",
    "kind": "the kind of device",
    "options": "the options",
    "device": "the device",
}


def test_the_documentation_says_what_builds_depend_on():
    text = (Path(__file__).parents[2] / "docs" / "cache.md").read_text()
    rows = re.findall(r"^\| (`.*`) \| (the .*|nothing more) \|$", text, re.MULTILINE)
    told = {
        name: set(words.split(", ")) - {"nothing more"}
        for names, words in rows
        for name in re.findall("`(.*?)`", names)
    }
    assert told == {
        name: {WORDS[each] for each in create_engine(name).artifact_depends_on} for name in KEPT
    }


def test_what_runs_on_the_graph_of_one_machine_runs_on_that_of_another(monkeypatch):
    """The graphs of these engines are made for any machine; each proves them for itself."""
    for name in ("onnxruntime", "openvino", "paddle"):
        engine = create_engine(name)
        here = make_key(engine=engine), make_proof(engine=engine)
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(cache_key, *CPU)
            cache_key.identify_device.cache_clear()
            there = make_key(engine=engine), make_proof(engine=engine)
        cache_key.identify_device.cache_clear()
        assert there[0].digest == here[0].digest
        assert there[1].digest != here[1].digest


def test_a_target_stands_for_the_gpu_and_its_driver(monkeypatch):
    # Any GPU of the architecture finds it, so that no GPU of this machine is asked.
    monkeypatch.setenv("PATH", "")
    key = make_key(engine=create_engine("tensorrt"), spec=replace(GPU, target="sm86"))
    assert key.ingredients["device"]["target"] == "sm86"


# What nvidia-smi prints for `--query-gpu` is what was asked for, in that order.
NVIDIA_SMI = """#!/bin/sh
for argument in "$@"; do
  case "$argument" in
    --query-gpu=*)
      for field in $(echo "${argument#--query-gpu=}" | tr , ' '); do
        case "$field" in
          name) printf '%s, ' "$GPU_NAME";;
          compute_cap) printf '%s, ' "$GPU_CAP";;
          driver_version) printf '%s, ' "$GPU_DRIVER";;
        esac
      done; echo;;
    --id=*) echo "index ${argument#--id=}";;
  esac
done
"""


def test_another_gpu_or_driver_is_another_key(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    machine = {"GPU_NAME": "NVIDIA A10", "GPU_CAP": "8.6", "GPU_DRIVER": "550.54.15"}

    def identify(spec=GPU, **changes):
        for name, value in {**machine, **changes}.items():
            monkeypatch.setenv(name, value)
        cache_key.identify_device.cache_clear()
        return make_key(spec=spec).digest

    digests = [
        identify(),
        identify(GPU_NAME="NVIDIA A2"),
        identify(GPU_CAP="8.9"),
        identify(GPU_DRIVER="550.54.16"),
        identify(replace(GPU, device=Device("gpu", 1))),
    ]
    assert len(set(digests)) == len(digests)
    assert identify() == digests[0]


def test_a_gpu_that_cannot_be_identified_has_no_key(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CacheError, match="nvidia-smi"):
        make_key(spec=replace(SPEC, device=Device("gpu", 7)))
    with pytest.raises(CacheError, match="nvidia-smi"):
        make_proof(spec=replace(SPEC, device=Device("gpu", 7)))
