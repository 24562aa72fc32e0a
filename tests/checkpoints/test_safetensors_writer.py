import numpy as np
import pytest

from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.safetensors_writer import write_safetensors

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

SHAPES = {"b.weight": (3, 5), "a.bias": (7,), "scalar": (), "none": (0, 4)}
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def draw():
    random = np.random.default_rng(3)
    values = {name: random.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
    # Ties, and what rounds up into the next power of two.
    values["a.bias"][:4] = np.array([0x3F808000, 0x3F818000, 0x3FFFFFFF, 1], np.uint32).view("f4")
    return {name: np.asarray(each) for name, each in values.items()}  # one is a bare number


@pytest.mark.parametrize("dtype", TYPES)
def test_others_read_what_is_written(dtype, tmp_path):
    values, file = draw(), tmp_path / "new" / "model.safetensors"
    asked = []

    def read(name):
        asked.append(name)
        return values[name]

    write_safetensors(file, SHAPES, dtype, read)
    assert asked == list(SHAPES)
    theirs = safetensors_torch.load_file(file)
    ours = SafetensorsFile(file)
    for name, value in values.items():
        wanted = torch.from_numpy(value).to(TYPES[dtype])
        assert theirs[name].dtype == TYPES[dtype]
        assert torch.equal(theirs[name], wanted)
        np.testing.assert_array_equal(ours.read(name), wanted.float().numpy())


def test_another_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a has the shape \(2,\), not \(3,\)"):
        write_safetensors(tmp_path / "f", {"a": (3,)}, "F32", lambda name: np.zeros(2, np.float32))
