"""Measure speed, memory and quality on this machine: ``python benchmarks/run.py --help``.

The same as ``fastdeploy-diffusion bench``, from a clone that need not be installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from fastdeploy_diffusion.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "bench")
    main()
