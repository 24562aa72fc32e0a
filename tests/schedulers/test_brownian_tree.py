"""The path of a seed is that of torchsde, wherever it is asked for."""

import numpy as np
import pytest

from fastdeploy_diffusion.schedulers.brownian_tree import BrownianTree

START, END, SHAPE = 0.0291675, 14.614642, (2, 3, 5)
# Of the seed 5, as torchsde 0.2.6 draws it with torch 2.13.
RECORDED = {
    (0.0291675, 14.614642): [4.19411, 1.75817, -1.06926, 0.87582],
    (0.0291675, 1.3): [0.88523, 2.37129, -0.79802, 0.41923],
    (3.3, 4.4): [-0.06318, 0.78558, 0.18053, 0.59323],
    (7.25, 14.614642): [-0.28659, -0.48639, 0.39266, -0.80374],
}


def test_a_recorded_path():
    tree = BrownianTree(START, END, (2, 2), 5)
    for (start, end), wanted in RECORDED.items():
        np.testing.assert_allclose(tree.change(start, end).ravel(), wanted, atol=2e-5)


@pytest.mark.parametrize("seed", [0, 5, 2**40 + 3])
def test_changes_equal_torchsde(seed):
    torchsde = pytest.importorskip("torchsde")
    options = {"entropy": seed, "tol": 1e-6, "pool_size": 24, "halfway_tree": True}
    reference = torchsde.BrownianInterval(t0=START, t1=END, size=SHAPE, **options)
    tree = BrownianTree(START, END, SHAPE, seed)
    drawn = np.sort(np.random.default_rng(1).uniform(START, END, (20, 2)))
    for start, end in [*drawn, (START, 1.3), (START, END), (3.0, END)]:
        wanted = reference(start, end).numpy()
        np.testing.assert_allclose(tree.change(start, end), wanted, atol=1e-5)


def test_changes_add_up():
    tree = BrownianTree(START, END, SHAPE, 7)
    whole = tree.change(2.0, 9.0)
    np.testing.assert_allclose(tree.change(2.0, 3.25) + tree.change(3.25, 9.0), whole, atol=1e-5)
    assert not tree.change(3.0, 3.0).any()
    assert (whole != BrownianTree(START, END, SHAPE, 8).change(2.0, 9.0)).all()


def test_changes_have_the_variance_of_their_time():
    tree = BrownianTree(0.0, 10.0, (100, 100), 3)
    for start, end in ((0.0, 10.0), (1.0, 2.0), (3.3, 3.7)):
        assert tree.change(start, end).var() == pytest.approx(end - start, rel=0.05)
