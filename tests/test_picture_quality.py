import numpy as np
import pytest

from fastdeploy_diffusion.picture_quality import measure_psnr, measure_ssim

RANDOM = np.random.default_rng(5)
NOISE = RANDOM.integers(0, 256, (2, 15, 13, 3), np.uint8)


def test_psnr_by_hand():
    black = np.zeros((1, 12, 12, 3), np.uint8)
    assert measure_psnr(black + np.uint8(1), black) == pytest.approx(48.1308, abs=1e-4)
    assert measure_psnr(black + np.uint8(255), black) == 0
    assert measure_psnr(black, black) is None


def test_the_worst_picture_counts():
    other = NOISE.copy()
    other[1] = 255 - other[1]
    assert measure_psnr(other, NOISE) == measure_psnr(other[1:], NOISE[1:])
    assert measure_ssim(other, NOISE) == pytest.approx(measure_ssim(other[1:], NOISE[1:]))
    assert measure_ssim(NOISE, NOISE) == pytest.approx(1)


def test_ssim_of_flat_pictures_by_hand():
    dark, light = (np.full((1, 11, 11, 3), value, np.uint8) for value in (100, 150))
    # Without structure only luminance is left: (2 a b + c1) / (a² + b² + c1).
    c1 = (0.01 * 255) ** 2
    assert measure_ssim(dark, light) == pytest.approx((30000 + c1) / (32500 + c1), abs=1e-12)


def test_ssim_by_its_definition():
    given, wanted = NOISE[:1], RANDOM.integers(0, 256, (1, 15, 13, 3), np.uint8)
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(5):
        for left in range(3):
            for channel in range(3):
                x, y = (
                    each[0, top : top + 11, left : left + 11, channel].astype(float)
                    for each in (given, wanted)
                )
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                covariance = (window * (x - mx) * (y - my)).sum()
                values.append(
                    (2 * mx * my + c1) * (2 * covariance + c2)
                    / ((mx**2 + my**2 + c1) * (vx + vy + c2))
                )  # fmt: skip
    assert measure_ssim(given, wanted) == pytest.approx(np.mean(values), abs=1e-9)


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="compared with"):
        measure_psnr(NOISE, NOISE[:, 1:])
    with pytest.raises(ValueError, match="smaller than the window"):
        measure_ssim(NOISE[:, :10], NOISE[:, :10])
