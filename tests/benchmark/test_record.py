"""``benchmarks/record.py`` keeps what a command printed, with what it was measured on."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "record.py"


def test_what_a_command_prints_is_kept_with_machine_commit_and_versions(tmp_path):
    file = tmp_path / "found.json"
    command = [sys.executable, "-c", "import sys; print('{\"seconds\":', sys.argv[1], '}')", "1.5"]
    subprocess.run([sys.executable, str(SCRIPT), str(file), *command], check=True)
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["found"] == {"seconds": 1.5}
    assert found["command"].endswith(" 1.5")
    assert found["machine"]["cores"] >= 1
    assert found["packages"].keys() >= {"fastdeploy-diffusion", "numpy"}
    # The fields that tell the age of a benchmark's own result, too.
    assert found.keys() >= {"started", "git_revision", "python"}
