"""Try many spoilt models: ``python tests/fuzz/fuzz_checkpoints.py 0 20000 results.jsonl``.

Seeds that the file of results has are not tried again, so that a run may be stopped and go on.
"""

import argparse
import collections
import faulthandler
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

# The folders in which pytest finds the modules of the tests.
TESTS = Path(__file__).resolve().parents[1]
_BATCH = 200  # mutants that one process tries: Paddle is imported once for them
_DEADLINE = 150  # seconds, for what hangs where no signal reaches


def main() -> int:
    """Try the seeds, a batch a process; 1 if one of them ended as it must not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int, help="not included")
    parser.add_argument("results", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return _run_child(range(options.first, options.last), options.results)

    options.results.touch()
    todo = sorted(set(range(options.first, options.last)) - _read(options.results).keys())
    while todo:
        batch = [seed for seed in todo if seed < todo[0] + _BATCH]
        command = [sys.executable, __file__, str(batch[0]), str(batch[-1] + 1)]
        child = subprocess.run([*command, str(options.results), "--child"], check=False)
        done = set(_read(options.results))
        crashed = next((seed for seed in batch if seed not in done), None)
        if crashed is not None:
            _write(options.results, _describe_crash(crashed, child.returncode))
            done.add(crashed)
        todo = [seed for seed in todo if seed not in done]
        _report(options.results)
    return any(not each["is_right"] for each in _read(options.results).values())


def _run_child(seeds: range, results: Path) -> int:
    sys.path += [str(TESTS), str(TESTS / "checkpoints")]
    from attempts import Attempts

    done = _read(results)
    with tempfile.TemporaryDirectory() as folder:
        attempts = Attempts(Path(folder))
        for seed in seeds:
            if seed not in done:
                faulthandler.dump_traceback_later(_DEADLINE, exit=True)
                _write(results, asdict(attempts.run(seed)))
    faulthandler.cancel_dump_traceback_later()
    return 0


def _describe_crash(seed: int, code: int) -> dict[str, object]:
    return {"seed": seed, "outcome": f"crash {code}", "is_right": False, "subject": "?"}


def _read(results: Path) -> dict[int, dict[str, object]]:
    lines = results.read_text().splitlines()
    return {each["seed"]: each for each in map(json.loads, lines)}


def _write(results: Path, attempt: dict[str, object]) -> None:
    with results.open("a") as file:
        file.write(json.dumps(attempt) + "\n")


def _report(results: Path) -> None:
    ended = _read(results).values()
    counts = collections.Counter(str(each["outcome"]) for each in ended)
    wrong = [each["seed"] for each in ended if not each["is_right"]]
    print(len(ended), dict(counts.most_common()), "wrong:", wrong[:20], flush=True)


if __name__ == "__main__":
    sys.exit(main())
