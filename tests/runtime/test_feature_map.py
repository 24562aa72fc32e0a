import numpy as np
import pytest

from fastdeploy_diffusion.runtime.feature_map import FeatureMap, Moments, list_windows


@pytest.mark.parametrize("size", [8, 9, 14, 15, 63])
@pytest.mark.parametrize("halo", [0, 1, 3])
def test_windows_keep_every_row_once_and_none_beside_what_they_did_not_see(size, halo):
    windows = list(list_windows(size, 8, halo))
    assert [row for each in windows for row in range(each.first, each.last)] == list(range(size))
    for each in windows:
        assert each.start >= 0
        assert each.stop == each.start + 8 <= size
        assert each.first >= (each.start + halo if each.start else 0)
        assert each.last <= (each.stop - halo if each.stop < size else size)


def test_windows_are_read_as_they_were_written(tmp_path):
    values = np.random.default_rng(0).standard_normal((3, 7, 5), np.float32)
    written = FeatureMap(3, 7, 5, tmp_path)
    written.write(values[:, 4:], 4, 0)
    written.write(values[:, :4, 2:], 0, 2)
    written.write(values[:, :4, :2], 0, 0)
    assert np.array_equal(written.read((2, 6), (1, 4)), values[None, :, 2:6, 1:4])
    assert np.array_equal(written.read_tokens()[0].T, values.reshape(3, -1))
    written.close()
    assert list(tmp_path.iterdir()) == []


def test_moments_are_exact_far_from_zero():
    values = np.random.default_rng(0).normal(1000, 1, (4, 60, 50)).astype(np.float32)
    moments = Moments(2)
    for row in range(0, 60, 20):
        moments.add(values[:, row : row + 20])
    groups = values.reshape(2, -1).astype(np.float64)
    assert np.allclose(moments.mean, groups.mean(axis=1), rtol=1e-7)
    assert np.allclose(moments.variance, groups.var(axis=1), rtol=1e-5)
