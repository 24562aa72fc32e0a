"""What the history of this repository says, for tests that can do without it elsewhere."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_git(*words):
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def name_lack_of_history():
    """Say why there is no history here; nothing if there is."""
    if not (ROOT / ".git").exists():
        return "this is no clone, and has no history"
    if run_git("rev-parse", "--is-shallow-repository").stdout.strip() == "true":
        return "this clone is shallow, and has no history"
    return ""


def is_ancestor(commit):
    return run_git("merge-base", "--is-ancestor", commit, "HEAD").returncode == 0


def list_tags():
    return run_git("tag", "--list", "v*", "--merged", "HEAD").stdout.split()
