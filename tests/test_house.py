"""The house rules that a machine can check: links, import directions, lengths, broad excepts."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fastdeploy_diffusion"
MAX_LINES = 500

# From top to bottom: a room may import what stands below it, and itself.
FLOORS = (
    {"benchmark"},
    {"pipelines", "compiler"},
    {"predictors"},
    {"requests"},
    # Adapters change what checkpoints hold.
    {"adapters"},
    {"schedulers", "tokenizers", "images", "checkpoints"},
    # Some schedulers draw noise by themselves.
    {"noise"},
    # An engine asks for the form of a program that it reads, so export stands below the engines.
    {"engines"},
    {"export"},
    {"passes"},
    # Passes know the layers that they rewrite; the layers know their configs, and declare stages.
    {"models"},
    # C++ kernels, which engines and passes may ask for.
    {"native"},
    # What runs a build is data there: it knows nothing of where that comes from.
    {"families", "runtime"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Stand above all rooms; every other module at the root is a leaf, which imports no room.
ENTRANCES = {"__init__", "__main__", "cli", "server"}
# What runs, and knows nothing of what builds, be it later than when it is imported.
RUNNING = ("pipelines", "adapters", "requests", "schedulers", "tokenizers", "noise", "images")
# What the floors would allow, but the design does not.
FORBIDDEN = {
    "engines": {"passes", "models"},
    **{room: {"models"} for room in ("checkpoints", "export")},
    **{room: {"models", "passes", "export"} for room in RUNNING},
}

# The wall: what runs opens what builds through one door, lazily. The others name its types alone.
DOOR = "predictors/open_component"
KNOW_BUILDS = {DOOR, "predictors/building_methods", "predictors/component"}

# Distribution → where it may be imported: a folder, or a file without its suffix ("*" at the end
# stands for more letters).
RUNTIMES = {
    "openvino": ("engines/openvino*",),
    "onnxruntime": ("engines/onnxruntime",),
    "tensorrt": ("engines/tensorrt*",),
    "tensorrt_rtx": ("engines/tensorrt*",),
    "cuda": ("engines/tensorrt*",),
    "paddle": (
        "models/",
        "passes/",
        "export/",
        "checkpoints/",
        "engines/paddle*",
        "engines/cinn",
        "paddle_runtime",
    ),
    # The package's own quiet way to Paddle is as good as Paddle.
    "paddle_runtime": (
        *("models/", "passes/", "export/", "checkpoints/"),
        *("engines/paddle*", "engines/cinn", "benchmark/roofline/yardsticks"),
    ),
    "onnx": ("export/",),
    "onnx_ir": ("export/", "passes/"),
    "onnxscript": ("export/", "passes/"),
    "paddle2onnx": ("export/",),
    "torch": (),
    "diffusers": (),
    "transformers": (),
}

# Private names of another room that a test reaches nevertheless, and why.
EXCUSED = {
    "predictors/test_recovering_session.py _build": "what is to replace an engine does not build",
    "pipelines/test_staged_memory.py _run": "an engine fails inside, as nothing public makes it",
    "predictors/test_embedding_cache.py _text_encoder": "opened as only a pipeline opens it",
}
PUBLIC = {"_replace", "_fields", "_asdict", "_make"}  # of named tuples


def find_violations(package: Path) -> list[str]:
    """List what breaks the rules in a package's source tree, as ``file:line: what``."""
    found = []
    for file in sorted(package.rglob("*.py")):
        relative = file.relative_to(package)
        text = file.read_text(encoding="utf-8")
        if len(text.splitlines()) > MAX_LINES:
            found.append(f"{relative}:1: more than {MAX_LINES} lines")
        tree = ast.parse(text)
        for line, module in _imports(tree, package.name, relative):
            problem = _judge(module.split("."), package, relative)
            if problem:
                found.append(f"{relative}:{line}: {problem}")
        found += [
            f"{relative}:{line}: swallows every error, and no comment there says why"
            for line in _find_swallowers(tree)
            if "#" not in text.splitlines()[line - 1]
        ]
    return found


def _find_swallowers(tree: ast.AST) -> Iterator[int]:
    """Every handler of all errors that raises none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            kind = ast.unparse(node.type) if node.type else "BaseException"
            raises = any(isinstance(each, ast.Raise) for each in ast.walk(node))
            if kind in ("Exception", "BaseException") and not raises:
                yield node.lineno


def _imports(tree: ast.AST, package: str, relative: Path) -> Iterator[tuple[int, str]]:
    """Every module or name that is imported, absolute, wherever in the file the import stands."""
    here = (package, *relative.with_suffix("").parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: -node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"
        elif isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            argument = node.args[0]
            if name in ("import_module", "__import__") and isinstance(argument, ast.Constant):
                yield node.lineno, str(argument.value)


def _judge(target: list[str], package: Path, relative: Path) -> str:
    source = relative.with_suffix("").as_posix()
    room = relative.parts[0].removesuffix(".py")
    if target[0] in RUNTIMES:
        return "" if _may_import_runtime(source, target[0]) else f"imports {target[0]}"
    if target[0] != package.name or len(target) == 1:
        return ""
    other = target[1]
    if other == "compiler" and source in KNOW_BUILDS:
        return ""
    if other in RUNTIMES:
        return "" if _may_import_runtime(source, other) else f"imports {other}"
    if other in ENTRANCES - {"__init__"}:
        return "" if room in ENTRANCES else f"imports the entrance {other}"
    if not (package / other).exists() and not (package / f"{other}.py").exists():
        # `from package import Name` hides which room the name comes from.
        return (
            "" if other == "__version__" or room in ENTRANCES else f"imports {other} from the top"
        )
    if room in ENTRANCES or other not in FLOOR_OF or other == room:
        return ""
    if room not in FLOOR_OF:
        return f"the leaf {room} imports the room {other}"
    if FLOOR_OF[other] <= FLOOR_OF[room] or other in FORBIDDEN.get(room, ()):
        return f"{room} imports {other}"
    if (room, other) == ("engines", "export") and not _builds(source):
        return f"what runs imports {'.'.join(target[1:3])}"
    return ""


def _builds(engine: str) -> bool:
    return engine.endswith("_builder") or engine.startswith(("engines/paddle", "engines/cinn"))


def _may_import_runtime(source: str, runtime: str) -> bool:
    return any(
        source.startswith(place.removesuffix("*")) if place[-1] in "/*" else source == place
        for place in RUNTIMES[runtime]
    )


def test_package_keeps_the_rules() -> None:
    assert find_violations(PACKAGE) == []


def test_tests_are_no_longer_than_other_files() -> None:
    lines = {file: len(file.read_text().splitlines()) for file in ROOT.glob("tests/**/*.py")}
    assert {file: count for file, count in lines.items() if count > MAX_LINES} == {}


@pytest.mark.parametrize(
    ("file", "line", "problem"),
    [
        ("engines/paddle.py", "from house.pipelines.sd import SDPipeline", "engines imports"),
        ("engines/cinn.py", "from ..schedulers import ddim", "engines imports schedulers"),
        ("engines/cinn.py", "from .. import passes", "engines imports passes"),
        ("passes/qkv.py", "import house.export.onnx", "passes imports export"),
        ("export/paddle.py", "from house import predictors", "export imports predictors"),
        (
            "models/unet.py",
            "def f():\n    from house.engines import base",
            "models imports engines",
        ),
        ("models/unet.py", "import house.export", "models imports export"),
        ("runtime/recipe.py", "import paddle", "imports paddle"),
        ("runtime/recipe.py", "from house.passes import base", "runtime imports passes"),
        ("noise.py", "from house.images import to_pil", "noise imports images"),
        ("noise.py", "from .images import to_pil", "noise imports images"),
        ("pipelines/sd.py", "def f():\n    import house.models.unet", "pipelines imports models"),
        ("pipelines/sd.py", "from house import passes", "pipelines imports passes"),
        ("schedulers/ddim.py", "from house.export import onnx", "schedulers imports export"),
        ("schedulers/ddim.py", "from house.models import unet", "schedulers imports models"),
        ("config.py", "from house.engines.registry import names", "the leaf config imports"),
        ("config.py", "from .engines import registry", "the leaf config imports the room engines"),
        ("predictors/vae.py", "from house import SDPipeline", "imports SDPipeline from the top"),
        ("predictors/vae.py", "from house.cli import main", "imports the entrance cli"),
        ("passes/qkv.py", "import torch.nn", "imports torch"),
        ("cli.py", "from diffusers import Pipeline", "imports diffusers"),
        ("tokenizers.py", "import transformers", "imports transformers"),
        ("tokenizers.py", "importlib.import_module('transformers')", "imports transformers"),
        ("schedulers/ddim.py", "import paddle", "imports paddle"),
        ("noise.py", "from house.paddle_runtime import paddle", "imports paddle_runtime"),
        ("predictors/vae.py", "from .. import paddle_runtime", "imports paddle_runtime"),
        ("engines/onnxruntime.py", "import paddle", "imports paddle"),
        ("engines/paddle.py", "import openvino", "imports openvino"),
        (
            "engines/openvino.py",
            "def f():\n    from house.export.onnx import export_onnx",
            "what runs imports export.onnx",
        ),
        ("engines/base.py", "import tensorrt as trt", "imports tensorrt"),
        ("pipelines/sd.py", "import onnxruntime", "imports onnxruntime"),
        ("pipelines/sd.py", "#\n" * 501, "more than 500 lines"),
        ("noise.py", "try: f()\nexcept Exception: pass", "swallows every error"),
        ("noise.py", "try: f()\nexcept: pass", "swallows every error"),
    ],
)
def test_a_violation_is_found(tmp_path: Path, file: str, line: str, problem: str) -> None:
    package = build_house(tmp_path)
    (package / file).write_text(f"import importlib\n{line}\n")
    violations = find_violations(package)
    assert len(violations) == 1
    assert violations[0].startswith(f"{file}:")
    assert problem in violations[0]


def test_what_the_design_allows_is_no_violation(tmp_path: Path) -> None:
    package = build_house(tmp_path)
    for file, text in {
        "__init__.py": "from house.pipelines.sd import SDPipeline",
        "cli.py": "from house import SDPipeline",
        "pipelines/sd.py": "from ..predictors import vae\nfrom .a import B\nimport house.engines",
        "predictors/vae.py": "from house import __version__, noise\nimport house.models.unet",
        "models/unet.py": "import paddle.nn\nfrom house.errors import E\nfrom . import attention",
        "export/to_program.py": "import paddle\nfrom house.passes import base",
        "passes/qkv.py": "from house.runtime.recipe import Derivation",
        "models/flux.py": "from house.runtime.stages import Stage",
        "runtime/recipe.py": "from house.errors import E",
        "engines/paddle_eager.py": "import paddle\nfrom ..program import Program",
        "engines/openvino.py": "from house.runtime import manifest\ndef f():\n    import openvino",
        "engines/openvino_builder.py": "from house.export.onnx import export_onnx",
        "paddle_runtime.py": "import paddle",
        "checkpoints/load.py": "from house.paddle_runtime import paddle",
        "noise.py": "import numpy\nimport tokenizers",
        "errors.py": "try: f()\nexcept Exception: raise E\n"
        "try: f()\nexcept Exception:  # as C extensions raise what they like\n    pass",
    }.items():
        (package / file).write_text(f"{text}\n")
    assert find_violations(package) == []


def build_house(folder: Path) -> Path:
    package = folder / "house"
    for room in ("pipelines", "predictors", "schedulers", "checkpoints", "models"):
        (package / room).mkdir(parents=True)
    for room in ("export", "passes", "engines", "runtime"):
        (package / room).mkdir()
    for leaf in ("__init__", "cli", "config", "errors", "program", "noise", "images", "tokenizers"):
        (package / f"{leaf}.py").write_text("")
    return package


def find_trespasses(tests: Path, package: Path) -> set[str]:
    """List each test file and private name that another room than its own defines.

    A name that the test, or the room that it tests, defines as well is taken for that one.
    """
    rooms: dict[str, set[str]] = {}
    for file in package.rglob("*.py"):
        room = file.relative_to(package).parts[0].removesuffix(".py")
        rooms.setdefault(room, set()).update(_private_names(file, defined=True))
    found = set()
    for file in tests.rglob("*.py"):
        relative = file.relative_to(tests)
        room = relative.parts[0].removesuffix(".py").removeprefix("test_")
        others = set().union(*rooms.values()) - rooms.get(room, set())
        others -= _private_names(file, defined=True)
        used = _private_names(file, defined=False)
        found |= {f"{relative.as_posix()} {name}" for name in others & used}
    return found


def _private_names(file: Path, *, defined: bool) -> set[str]:
    """The private names that a file defines, or all that it uses, as attribute, import or text."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        is_set = isinstance(getattr(node, "ctx", None), ast.Store)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Attribute) and is_set >= defined:
            names.append(node.attr)
        elif isinstance(node, ast.Name) and is_set >= defined:
            names.append(node.id)
        elif isinstance(node, ast.alias) and not defined:
            names.append(node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not defined:
            names.append(node.value)  # as monkeypatch.setattr takes it
    return {name for name in names if len(name) > 1 and name[0] == "_" != name[1]} - PUBLIC


def test_tests_leave_the_private_names_of_other_rooms_alone() -> None:
    """What they reach there has no wall around it: say what is public, or test through that."""
    assert find_trespasses(ROOT / "tests", PACKAGE) == set(EXCUSED)


def test_a_trespass_is_found(tmp_path: Path) -> None:
    package = build_house(tmp_path)
    (package / "engines" / "session.py").write_text("class A:\n    def f(self): self._a = _b = 1\n")
    (package / "models" / "unet.py").write_text("def _c(): pass\n")
    tests = tmp_path / "tests"
    lines = {
        "engines/test_session.py": "session._a\n",
        "models/test_unet.py": "session._a.x\nfrom house.models.unet import _c\nos._exit(1)",
        "test_images.py": "from house.models.unet import _c\nmonkeypatch.setattr(x, '_b', 1)",
        "toy.py": "class Toy:\n    def __init__(self): self._a = self.__doc__",
    }
    for file, text in lines.items():
        (tests / file).parent.mkdir(parents=True, exist_ok=True)
        (tests / file).write_text(text)
    assert find_trespasses(tests, package) == {
        "models/test_unet.py _a",
        "test_images.py _c",
        "test_images.py _b",
    }


@pytest.mark.parametrize("link", ["passes", "engines", "configs"])
def test_links_at_the_root_are_no_import_names(link: str) -> None:
    assert (ROOT / link).resolve() == PACKAGE / link
    result = run_python(f"import {link}")
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert f"import fastdeploy_diffusion.{link} instead" in last
    assert run_python(f"import fastdeploy_diffusion.{link}").returncode == 0


@pytest.mark.parametrize("module", ["fastdeploy_diffusion", "fastdeploy_diffusion.cli"])
def test_importing_the_package_imports_no_runtime(module: str) -> None:
    result = run_python(f"import {module}, sys; print(*sys.modules)")
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split())
    assert module in loaded
    assert not loaded & set(RUNTIMES)


def test_a_picture_is_drawn_with_paddle_alone() -> None:
    """What an engine or the export needs is asked for where it is used: the rest is optional."""
    optional = {*RUNTIMES, "ml_dtypes"} - {"paddle", "paddle_runtime"}
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(optional)}))\n"
        "from fastdeploy_diffusion import DiffusionConfig\n"
        "from fastdeploy_diffusion.pipelines.opening import open_pipeline\n"
        "pipeline = open_pipeline(DiffusionConfig.from_preset('shapes', cache=False))\n"
        "print(pipeline.text_to_image('a red star', seed=1, num_inference_steps=1).size)"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "(128, 128)"


def test_what_runs_a_pipeline_is_imported_without_what_builds_it() -> None:
    builders = ("paddle", "onnx", "onnx_ir", "onnxscript", "paddle2onnx", "ml_dtypes")
    building = {"benchmark", "cli", "compiler", "models", "passes", "export", "paddle_runtime"}
    names = [file.relative_to(PACKAGE).with_suffix("") for file in PACKAGE.rglob("*.py")]
    modules = sorted(
        ".".join((PACKAGE.name, *name.parts)).removesuffix(".__init__")
        for name in names
        if name.parts[0] not in building and not name.match("engines/*_builder")
    )
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({builders}))\n"
        f"from importlib import import_module\n"
        f"for name in {modules}: import_module(name)\n"
        "print(*sys.modules)"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    loaded = {tuple(name.split(".")[:2]) for name in result.stdout.split()}
    assert not loaded & {(PACKAGE.name, room) for room in ("models", "passes", "compiler")}


@pytest.mark.skipif(sys.platform != "linux", reason="caught signals are read as Linux tells them")
def test_paddle_leaves_signals_alone() -> None:
    """Its handler of SIGTERM was seen to hang: whoever stops a service would wait."""
    code = (
        "def tell():\n"
        "    lines = open('/proc/self/status').readlines()\n"
        "    print(*(line for line in lines if line.startswith('SigCgt')))\n"
        "tell()\n"
        "{}\n"
        "tell()"
    )
    used = "from fastdeploy_diffusion import paddle_runtime"
    for imported, is_same in (("import paddle", False), (used, True)):
        before, after = run_python(code.format(imported)).stdout.split("SigCgt:")[1:]
        assert (before.strip() == after.strip()) == is_same, imported


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_every_file_of_the_tests_has_a_name_of_its_own() -> None:
    """They are no packages, so two of one name are one module to Python, and one is not found."""
    names = [file.name for file in (ROOT / "tests").rglob("*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_nothing_lies_at_the_root_by_accident() -> None:
    """A profiler's log of 70,000 lines once did."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    files = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    links = {"configs", "engines", "passes"}
    folders = {".ci", "benchmarks", "docs", "examples", "fastdeploy_diffusion", "tests"}
    own = {".gitignore", "LICENSE", "Makefile", "README.md", "README.zh-CN.md"}
    own |= {"pyproject.toml", "setup.py"}
    assert {file.split("/")[0] for file in files if file} == links | folders | own
