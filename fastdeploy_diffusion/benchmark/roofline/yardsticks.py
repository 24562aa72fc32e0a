"""Networks of nothing but one operator, to find out how fast a machine can be."""

from fastdeploy_diffusion.paddle_runtime import paddle


class MatrixProducts(paddle.nn.Layer):
    """Products with square matrices, one after the other."""

    def __init__(self, size: int, count: int) -> None:
        super().__init__()
        self.products = paddle.nn.LayerList(
            paddle.nn.Linear(size, size, bias_attr=False) for _ in range(count)
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Multiply: (size, size) float32 to (size, size) float32."""
        for product in self.products:
            x = product(x)
        return x


class Convolutions(paddle.nn.Layer):
    """Convolutions of 3 × 3, one after the other."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.convolutions = paddle.nn.LayerList(
            paddle.nn.Conv2D(channels, channels, 3, padding=1, bias_attr=False)
            for _ in range(count)
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Convolve: (B, channels, H, W) float32 to the same."""
        for convolution in self.convolutions:
            x = convolution(x)
        return x
