"""The page of published runs, ``docs/benchmarks.md``: generated, never typed."""

import re
from collections.abc import Mapping
from pathlib import Path

from fastdeploy_diffusion import __version__
from fastdeploy_diffusion.benchmark.report.markdown import format_markdown
from fastdeploy_diffusion.benchmark.result import RESULT_FILE, BenchmarkResult, read_result
from fastdeploy_diffusion.errors import ConfigError

_HEAD = """# Benchmarks

Generated from `benchmarks/results/` by `python benchmarks/run.py page`; not written by hand. How to
measure on your own machine, and how to read this: [benchmark.md](benchmark.md).
"""
_NOTHING = "No run is published yet.\n"


def read_published(folder: Path) -> dict[str, BenchmarkResult]:
    """Read every published run: ``FOLDER/NAME/result.json``.

    Raises:
        ConfigError: There is no such folder, or one of the files is no result.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is no folder",
            allowed=f"a folder of reports, each with its {RESULT_FILE}",
        )
    return {file.parent.name: read_result(file) for file in sorted(folder.glob(f"*/{RESULT_FILE}"))}


def format_page(results: Mapping[str, BenchmarkResult]) -> str:
    """Write the page: every run, by name."""
    sections = []
    for name, result in results.items():
        text = re.sub(r"^(#+)", r"\1#", format_markdown(result), flags=re.MULTILINE)
        title, _, rest = text.partition("\n")
        sections.append(f"{title}: {name}\n\n{describe_age(result, __version__)}\n{rest}")
    return "\n".join([_HEAD, *(sections or [_NOTHING])])


def describe_age(result: BenchmarkResult, version: str) -> str:
    """Describe the version of the code that was measured."""
    revision, changes, _ = (result.git_revision or "").partition("+changes")
    commit = f"at commit {revision[:7]}" if revision else "at a commit that nobody noted"
    measured = result.packages.get("fastdeploy-diffusion", "unknown")
    age = (
        f"Measured {commit}{', with changes,' if changes else ''} ({result.started[:10]}), "
        f"version {measured}; later changes are not in these figures."
    )
    return age if measured == version else f"{age} **This is version {version}: measure again.**"
