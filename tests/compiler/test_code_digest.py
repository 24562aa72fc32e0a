"""What code a digest covers: modules and all that they import, and no other file."""

import ast
import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastdeploy_diffusion
from fastdeploy_diffusion.compiler.code_digest import digest_code, list_code
from fastdeploy_diffusion.engines.registry import create_engine, engine_names

PACKAGE = Path(fastdeploy_diffusion.__file__).parent
MODULES = {
    "build.py": "from package.export import onnx\n",
    "export/__init__.py": "from package.other import x\n",
    "export/onnx.py": "",
    "tokenizers/__init__.py": "",
    "tokenizers/rewriting.py": "",
    "other.py": "",
}


def write(folder, **texts):
    """Write the package with other texts in some files; its folder."""
    package = folder / "package"
    for name, text in {**MODULES, **texts}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return package


def list_names(package, *modules):
    return [
        file.relative_to(package).as_posix()
        for file in list_code(modules or ["package.build"], package)
    ]


@pytest.mark.parametrize(
    "line",
    [
        "from package.tokenizers.rewriting import rewrite",
        "from package.tokenizers import rewriting",
        "from package.tokenizers import rewriting as other, more",
        "from package.tokenizers import (\n    more,\n    rewriting as other,\n)",
        "import package.tokenizers.rewriting",
        "import package.tokenizers.rewriting as rewriting",
        "def f():\n    import package.tokenizers.rewriting",
        "def f():\n    from package.tokenizers import rewriting",
        "CHILD = 'package.tokenizers.rewriting'",
        "MAKERS = {'a': 'package.tokenizers.rewriting:Rewriting'}",
    ],
)
def test_what_a_module_on_the_way_imports_is_covered(tmp_path, line):
    package = write(tmp_path, **{"export/onnx.py": f"{line}\n"})
    assert "tokenizers/rewriting.py" in list_names(package)
    others = [
        write(tmp_path / name, **{"export/onnx.py": f"{line}\n", file: "# changed\n"})
        for name, file in (("a", "tokenizers/rewriting.py"), ("b", "other.py"))
    ]
    before, changed, elsewhere = (
        digest_code(["package.build"], each) for each in (package, *others)
    )
    assert changed != before
    assert elsewhere == before


@pytest.mark.parametrize(
    "lines",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
        "    from package.tokenizers import rewriting\n\n    import package.tokenizers.rewriting\n",
        "class A:\n    if TYPE_CHECKING:\n        from package.tokenizers import rewriting\n",
        "from elsewhere.tokenizers import rewriting\n",
    ],
)
def test_what_types_need_alone_and_what_is_of_others_is_not_covered(tmp_path, lines):
    package = write(tmp_path, **{"export/onnx.py": f"{lines}\nimport package.other\n"})
    assert list_names(package) == ["build.py", "export/onnx.py", "other.py"]


def test_names_that_a_folder_gives_cover_what_it_imports(tmp_path):
    package = write(tmp_path, **{"build.py": "from package.export import x\n"})
    assert list_names(package) == ["build.py", "export/__init__.py", "other.py"]


def test_files_that_move_are_others(tmp_path):
    before = write(tmp_path / "a", **{"build.py": "import package.other, package.third\n"})
    after = write(tmp_path / "b", **{"build.py": "import package.other, package.third\n"})
    (before / "third.py").write_text("x")
    (after / "other.py").rename(after / "third.py")
    (after / "other.py").write_text("x")
    assert digest_code(["package.build"], before) != digest_code(["package.build"], after)


def test_modules_of_others_count_for_what_they_import(tmp_path, monkeypatch):
    package = write(tmp_path)
    (tmp_path / "user_pass.py").write_text("from package.tokenizers import rewriting\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import user_pass

    assert list_names(package, user_pass.__name__, "no.such.module") == ["tokenizers/rewriting.py"]


def test_what_is_found_is_what_python_would_import():
    """The pattern that is fast enough finds what a parse of the file does, in every file."""
    wrong = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join((PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts))
        name = name.removesuffix(".__init__")
        if name == PACKAGE.name:
            continue
        wanted = set(parse_imports(file)) | {file}
        found = set(list_code([name], PACKAGE))
        if missing := wanted - found:
            wrong[name] = missing
    assert wrong == {}


class WithoutTypes(ast.NodeTransformer):
    """Leaves out what is imported for type checkers only."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        is_for_types = getattr(node.test, "id", "") == "TYPE_CHECKING"
        return None if is_for_types else self.generic_visit(node)


def parse_imports(file: Path) -> Iterator[Path]:
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
            if first == PACKAGE.name and parts:
                yield from list(find_files(parts))[:1]


def find_files(parts: list[str]) -> Iterator[Path]:
    """The module of a dotted name, or the one that has it as a member."""
    for place in (PACKAGE.joinpath(*parts), PACKAGE.joinpath(*parts[:-1])):
        if place != PACKAGE:
            for file in (place.with_suffix(".py"), place / "__init__.py"):
                if file.is_file():
                    yield file


# Files whose changes leave the keys of builds alone.
ASIDE = (
    *("schedulers/ddim.py", "tokenizers/clip.py", "cli/app.py", "pipelines/sd.py", "noise.py"),
    *("config/sections.py", "predictors/diffusion.py", "compiler/built_component.py"),
)
PASSES = {"winograd": "passes/layer/winograd.py", "fuse-silu": "passes/graph/fuse_silu.py"}
DECIDES = ("compiler/artifact.py", "compiler/rewriting.py", "passes/base.py", "models/unet.py")
DECIDES = (*DECIDES, "runtime/program.py", "checkpoints/layer_weights.py", "runtime/manifest.py")


@pytest.fixture(scope="module")
def change(tmp_path_factory):
    """Gives the folder of a package in which one file has another line."""

    @functools.cache
    def copy(changed):
        package = tmp_path_factory.mktemp("changed") / PACKAGE.name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE, package, ignore=ignore, copy_function=os.symlink)
        if changed:
            text = (package / changed).read_text()
            (package / changed).unlink()
            (package / changed).write_text(f"{text}# another word\n")
        return package

    return copy


@pytest.mark.parametrize("engine", [n for n in engine_names() if create_engine(n).keeps_builds])
def test_another_byte_of_what_decides_alone_changes_the_code_of_a_build(engine, change):
    made = create_engine(engine)
    modules = [
        made.builder or type(made).__module__,
        "fastdeploy_diffusion.compiler.artifact",
        "fastdeploy_diffusion.models.unet",
        "fastdeploy_diffusion.passes.layer.winograd",
    ]

    def digest(changed=""):
        return digest_code(modules, change(changed))

    before = digest()
    exports = ["export/onnx.py"] if made.dialect else ["export/pir.py"]
    for file in (*DECIDES, *exports, PASSES["winograd"]):
        assert digest(file) != before, file
    # Graphs depend on nothing that runs them.
    runs = ["runtime/session.py", f"engines/{engine}.py"] if made.runtimes else []
    for file in (*ASIDE, *runs, PASSES["fuse-silu"]):
        assert digest(file) == before, file
