import numpy as np
import pytest

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.runtime.program import TensorSpec, check_feeds

SPECS = (TensorSpec("sample", (None, 4), "float32"), TensorSpec("timestep", (), "int64"))
SAMPLE, TIMESTEP = np.zeros((3, 4), np.float32), np.array(7)


def test_right_feeds_pass():
    check_feeds("denoiser", SPECS, {"timestep": TIMESTEP, "sample": SAMPLE})
    check_feeds("denoiser", SPECS, {"sample": SAMPLE}, complete=False)


@pytest.mark.parametrize(
    ("feeds", "lines"),
    [
        (
            {"sample": SAMPLE},
            [
                "denoiser: input 'timestep' was not given",
                "  allowed: sample, timestep",
                "  fix: feed every input, or bind it before the run",
            ],
        ),
        (
            {"sample": SAMPLE, "timesteps": TIMESTEP},
            [
                "denoiser: unknown input 'timesteps'",
                "  allowed: sample, timestep",
                "  fix: did you mean 'timestep'?",
            ],
        ),
        (
            {"sample": SAMPLE.astype("float16"), "timestep": TIMESTEP},
            [
                "denoiser: input 'sample' is float16 (3, 4)",
                "  allowed: float32 (any, 4)",
                '  fix: array.astype("float32")',
            ],
        ),
        (
            {"sample": SAMPLE.T, "timestep": TIMESTEP},
            ["denoiser: input 'sample' is float32 (4, 3)", "  allowed: float32 (any, 4)"],
        ),
        (
            {"sample": SAMPLE[:0], "timestep": TIMESTEP},
            ["denoiser: input 'sample' is float32 (0, 4)", "  allowed: float32 (any, 4)"],
        ),
        (
            {"sample": SAMPLE, "timestep": 7},
            [
                "denoiser: input 'timestep' is of type int, not a numpy array",
                "  allowed: int64 ()",
                "  fix: numpy.asarray(…, dtype='int64')",
            ],
        ),
    ],
)
def test_wrong_feeds_say_what_was_given_and_allowed(feeds, lines):
    with pytest.raises(EngineError) as caught:
        check_feeds("denoiser", SPECS, feeds)
    assert str(caught.value).splitlines() == lines
