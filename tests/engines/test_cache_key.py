"""Keys of builds and plans: another value of anything that decides is another key."""

import ast
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

import fastdeploy_diffusion
from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines import cache_key
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.cache_key import make_cache_key, make_plan_key
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.errors import CacheError
from fastdeploy_diffusion.program import TensorSpec
from fastdeploy_diffusion.size_range import SizeRange

PACKAGE = Path(fastdeploy_diffusion.__file__).parent
SPEC = BuildSpec(Device("cpu"))
GPU = BuildSpec(Device("gpu", 0))
SAMPLE = TensorSpec("sample", (None, SizeRange("height", 1, 2, 3)), "float32")
PREDICTION = TensorSpec("prediction", (None, 4), "float32")
NETWORK = {"config": {"width": 4}, "weights": "1234", "form": "", "passes": ["merge-qkv"]}


def make_key(**changes):
    given = {
        "engine": create_engine("paddle"),
        "spec": SPEC,
        "component": "denoiser",
        "signature": {"inputs": (SAMPLE,), "outputs": (PREDICTION,)},
        "network": NETWORK,
    }
    return make_cache_key(**{**given, **changes})


def make_plan(**changes):
    given = {
        "engines": [create_engine("paddle"), create_engine("paddle-eager")],
        "device": Device("cpu"),
        "component": "denoiser",
        "network": NETWORK,
    }
    return make_plan_key(**{**given, **changes})


@pytest.fixture(autouse=True)
def identify_anew():
    """What is read of the machine once is read for each test."""
    yield
    for each in (cache_key._identify, cache_key._digest_code):
        each.cache_clear()


@dataclass(frozen=True)
class Case:
    """One change: arguments of the key, or what the module finds on the machine."""

    changes: dict
    found: tuple = ()

    def apply(self, make, monkeypatch):
        with monkeypatch.context() as change:
            if self.found:
                change.setattr(cache_key, *self.found)
            cache_key._identify.cache_clear()
            return make(**self.changes)


def with_sizes(**changes):
    size = replace(SAMPLE.shape[1], **changes)
    return {
        "signature": {"inputs": (replace(SAMPLE, shape=(None, size)),), "outputs": (PREDICTION,)}
    }


def with_spec(**changes):
    return {"signature": {"inputs": (replace(SAMPLE, **changes),), "outputs": (PREDICTION,)}}


VERSIONS = ("find_version", {"paddlepaddle": "99"}.get)
CODE = ("_digest_code", lambda: "other code")
MACHINE = ("platform", type("Other", (), {"machine": lambda: "riscv64", "system": lambda: "Linux"}))
CPU = ("read_cpu_flags", lambda: ["sse2"])

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
        Case({"network": {**NETWORK, "config": {"width": 5}}}),
        Case({"network": {**NETWORK, "weights": "1235"}}),
        Case({"network": {**NETWORK, "form": "normalized"}}),
        Case({"network": {**NETWORK, "passes": []}}),
    ],
    "code": [Case({}, CODE)],
    "engine": [Case({"engine": create_engine("cinn")})],
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
PLAN_CASES = {
    "component": [Case({"component": "vae_decoder"})],
    "network": BUILD_CASES["network"],
    "code": [Case({}, CODE)],
    "engines": [Case({"engines": [create_engine("paddle"), create_engine("cinn")]})],
    "packages": [Case({}, VERSIONS)],
    "device": [Case({}, MACHINE), Case({}, CPU), Case({"device": Device("xpu", 0)})],
}
# The same for every plan: they keep its key apart from those of builds, and let `cache ls` show it.
PLAN_CONSTANTS = {"engine": "plan", "precision": "", "signature": {"inputs": [], "outputs": []}}


@pytest.mark.parametrize(
    ("make", "cases", "constants"),
    [(make_key, BUILD_CASES, {}), (make_plan, PLAN_CASES, PLAN_CONSTANTS)],
    ids=["build", "plan"],
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
    # Chosen when a build is loaded; and where notes may lie.
    undecided = {"threads": 1, "notes": Path("notes")}
    assert {each.name for each in fields(BuildSpec)} == decided | undecided.keys()
    for name, value in undecided.items():
        assert make_key(spec=replace(SPEC, **{name: value})).digest == make_key().digest
    assert {each.name for each in fields(TensorSpec)} == {"name", "shape", "dtype"}
    assert {each.name for each in fields(SizeRange)} == {"name", "min", "opt", "max"}


@pytest.mark.parametrize("engine", ["cinn", "onnxruntime", "openvino", "paddle", "tensorrt"])
def test_another_version_of_any_package_is_another_key(engine, monkeypatch):
    made = create_engine(engine)
    digests = set()
    for package in (*made.packages, None):
        monkeypatch.setattr(cache_key, "find_version", {package: "99"}.get)
        digests.add(make_key(engine=made).digest)
    assert len(digests) == len(set(made.packages)) + 1


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
        cache_key._identify.cache_clear()
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


def test_the_code_digest_sees_every_file_but_those_of_other_rooms(tmp_path, monkeypatch):
    package = tmp_path / "package"
    rooms = [each.name for each in PACKAGE.iterdir() if each.is_dir() and each.name[0] != "_"]
    files = [f"{room}/module.py" for room in rooms]
    files += ["program.py", "images.py", "noise.py", "a_new_room/deep/module.py", "new.py"]
    for name in (*files, "engines/cache_key.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("first")
    monkeypatch.setattr(cache_key, "__file__", str(package / "engines" / "cache_key.py"))
    digest = cache_key._digest_code.__wrapped__
    seen = set()
    for name in files:
        before = digest()
        (package / name).write_text(f"second {name}")
        if digest() != before:
            seen.add(name)
    assert set(files) - seen == {
        *(f"{room}/module.py" for room in ("benchmark", "cli", "config", "configs")),
        *("schedulers/module.py", "tokenizers/module.py", "images.py", "noise.py"),
    }
    before = digest()
    (package / "new.py").rename(package / "renamed.py")
    assert digest() != before


def find_uncovered(package: Path, roots: Iterable[str]) -> list[str]:
    """Name the modules that code on the build's way imports, and the code digest leaves out."""
    covered = set(cache_key.list_code(package))
    reached, waiting = set(), [package / root for root in roots]
    while waiting:
        file = waiting.pop()
        if file not in reached:
            reached.add(file)
            waiting += list_imports(package, file)
    return sorted(file.relative_to(package).as_posix() for file in reached - covered)


class WithoutTypes(ast.NodeTransformer):
    """Leaves out what is imported for type checkers only."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        is_for_types = getattr(node.test, "id", "") == "TYPE_CHECKING"
        return None if is_for_types else self.generic_visit(node)


def list_imports(package: Path, file: Path) -> Iterator[Path]:
    """List the package's modules that a file imports or names, whenever it does so."""
    tree = WithoutTypes().visit(ast.parse(file.read_text(encoding="utf-8")))
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{each.name}" for each in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value.partition(":")[0]]  # as registries and child processes name them
        for name in names:
            first, *parts = name.split(".")
            if first != package.name:
                continue
            for length in range(len(parts)):
                place = package.joinpath(*parts[: length + 1])
                found = (place.with_suffix(".py"), place / "__init__.py")
                yield from (each for each in found if each.is_file())


def test_the_code_digest_covers_what_builds():
    rooms = ("families", "models", "passes", "export", "engines", "predictors", "checkpoints")
    assert set(rooms) < {
        file.relative_to(PACKAGE).parts[0] for file in cache_key.list_code(PACKAGE)
    }
    # What builds, and names all that it chooses from.
    assert find_uncovered(PACKAGE, ["predictors/build.py", "predictors/streamed_build.py"]) == []


@pytest.mark.parametrize(
    "line",
    [
        "from package.tokenizers.rewriting import rewrite",
        "def f():\n    import package.tokenizers.rewriting",
        "CHILD = 'package.tokenizers.rewriting'",
        "MAKERS = {'a': 'package.tokenizers.rewriting:Rewriting'}",
    ],
)
def test_a_module_on_the_way_that_is_left_out_is_found(tmp_path, line):
    package = tmp_path / "package"
    for name, text in {
        "predictors/build.py": "from package.export import onnx\n",
        "export/onnx.py": f"{line}\n",
        "tokenizers/rewriting.py": "",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    assert find_uncovered(package, ["predictors/build.py"]) == ["tokenizers/rewriting.py"]
