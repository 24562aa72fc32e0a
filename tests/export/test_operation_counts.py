"""Operations are counted as by hand, for every component, and as many as passes leave."""

import numpy as np
import pytest

from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.export.operation_counts import count_operations
from fastdeploy_diffusion.paddle_runtime import paddle
from fastdeploy_diffusion.runtime.program import Program, TensorSpec

nn, F = paddle.nn, paddle.nn.functional
SAMPLE = TensorSpec("sample", (None, 6, None, None), "float32")
RESULT = TensorSpec("result", (None, 4), "float32")


class Blocks(nn.Layer):
    """One of each kind that is counted."""

    def __init__(self, groups=2):
        super().__init__()
        self.convolution = nn.Conv2D(6, 8, 3, padding=1, stride=2, groups=groups)
        self.up = nn.Conv2DTranspose(8, 5, 4, stride=2, padding=1)
        self.unused = nn.Linear(77, 99)
        self.project = nn.Linear(5, 4)

    def forward(self, sample):
        hidden = F.silu(self.up(F.relu(self.convolution(sample)))).flatten(2)  # (B, 5, tokens)
        scores = paddle.matmul(hidden, hidden, transpose_x=True)  # (B, tokens, tokens)
        return self.project(paddle.matmul(scores, hidden, transpose_y=True).sum(1))


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 4, 6), (3, 8, 2)])
def test_counts_are_those_by_hand(batch, height, width):
    layer = Blocks().eval()
    counts = count_operations(
        Program("blocks", layer, (SAMPLE,), (RESULT,)), {"sample": (batch, 6, height, width)}
    )
    half, tokens = (height // 2) * (width // 2), height * width
    multiplications = (
        8 * half * 3 * 9  # six channels in two groups
        + 8 * half * 5 * 16
        + tokens * tokens * 5
        + tokens * 5 * tokens
        + 5 * 4
    )
    assert counts.flops == 2 * batch * multiplications
    weights = sum(
        int(np.prod(each.shape))
        for name, each in layer.named_parameters()
        if not name.startswith("unused")
    )
    assert counts.elements == weights + batch * (6 * tokens + 4)


class Convolution3D(nn.Layer):
    def forward(self, sample):
        return F.conv3d(sample.unsqueeze(2), paddle.ones([4, 6, 1, 1, 1])).mean([2, 3, 4])


def test_what_cannot_be_counted_is_refused():
    program = Program("other", Convolution3D().eval(), (SAMPLE,), (RESULT,))
    with pytest.raises(EngineError, match=r"other: the operations of 'conv3d' cannot be counted"):
        count_operations(program, {"sample": (1, 6, 2, 2)})
