"""The decoder of TAESD in torch, whose parameters have the names of the published files."""

from drawn_parameters import draw_reference_parameters
from torch import nn


class _Limit(nn.Module):
    def forward(self, latents):
        return (latents / 3).tanh() * 3


class _Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        convolutions = [_convolve(width, width) for _ in range(3)]
        self.conv = nn.Sequential(
            convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), convolutions[2]
        )

    def forward(self, features):
        return (self.conv(features) + features).relu()


def make_original_decoder(*, channels, width=64, blocks=(3, 3, 3, 1)):
    """Make a decoder of random weights: latents to pictures in [0, 1]."""
    layers = [_Limit(), _convolve(channels, width), nn.ReLU()]
    for level, count in enumerate(blocks):
        if level:
            layers += [nn.Upsample(scale_factor=2), _convolve(width, width, bias=False)]
        layers += [_Residual(width) for _ in range(count)]
    decoder = nn.Sequential(*layers, _convolve(width, 3)).eval()
    draw_reference_parameters(decoder, 6, 1.0)
    return decoder


def _convolve(inputs, outputs, *, bias=True):
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
