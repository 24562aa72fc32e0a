"""Keep what a command found, with the machine, the commit and the versions that it was found on.

``python benchmarks/record.py FILE COMMAND…`` runs a command that prints one JSON document, and
writes FILE. The documentation takes its figures from those in ``benchmarks/results``.
"""

import argparse
import json
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from fastdeploy_diffusion.benchmark.environment import (
    describe_benchmark_machine,
    list_packages,
    read_git_revision,
)
from fastdeploy_diffusion.machine import find_version

PEERS = ("torch", "diffusers", "transformers")


def record(command: list[str]) -> dict[str, object]:
    """Run a command, and say what it was run on; the fields are those of a benchmark's result."""
    peers = {name: found for name in PEERS if (found := find_version(name))}
    context = {
        "command": shlex.join(command),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_benchmark_machine(),
        "packages": {**list_packages(), **peers},
        "python": sys.version.split()[0],
        "git_revision": read_git_revision(),
    }
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {**context, "found": json.loads(done.stdout)}


def main() -> None:
    """Run the command, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="outside the tree, which must have no changes")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    found = record(options.command)
    options.file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
