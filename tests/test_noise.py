import math

import numpy as np
import pytest
import torch

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.noise import TorchGenerator, count_seeds, new_seed

TOLERANCE = 1e-5

SHAPES = [
    (1,),
    (2,),
    (15,),
    (16,),
    (17,),
    (31,),
    (32,),
    (33,),
    (100,),
    (),
    (0,),
    (3, 5),
    (3, 4, 9, 7),
    (1, 4, 64, 64),
]

SEEDS = [0, 1, 42, 2**31 - 1, 2**32 - 1, 2**32, 2**32 + 5, 2**63, 2**64 - 1, -1, -42, -(2**63)]


def torch_generator(seed):
    return torch.Generator().manual_seed(seed)


def torch_randn(generator, shape):
    return torch.randn(shape, generator=generator).numpy()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_torch_for_every_kind_of_seed(shape):
    for seed in SEEDS:
        ours = TorchGenerator(seed).randn(shape)
        theirs = torch_randn(torch_generator(seed), shape)
        assert ours.shape == theirs.shape
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE, err_msg=f"seed {seed}")


def test_equals_torch_for_300_seeds():
    for seed in range(1000, 1300):
        ours = TorchGenerator(seed).randn((75,))
        np.testing.assert_allclose(
            ours, torch_randn(torch_generator(seed), (75,)), rtol=0, atol=TOLERANCE
        )


@pytest.mark.parametrize("seed", range(8))
def test_calls_of_mixed_sizes_continue_the_stream(seed):
    # Odd small calls leave a cached second normal, which must outlive the large calls between them.
    sizes = [1, 16, 1, 3, 17, 40, 2, 1, 1, 15, 100, 5, 0, 7, 64, 1]
    order = np.random.default_rng(seed).permutation(sizes)
    ours, theirs = TorchGenerator(seed), torch_generator(seed)
    for size in map(int, order):
        np.testing.assert_allclose(
            ours.randn((size,)), torch_randn(theirs, (size,)), rtol=0, atol=TOLERANCE
        )


def test_the_cached_second_normal_is_kept_by_a_large_call():
    generator = TorchGenerator(3)
    first = generator.randn((1,))
    generator.randn((64,))
    second = generator.randn((1,))
    np.testing.assert_array_equal(np.concatenate([first, second]), TorchGenerator(3).randn((2,)))


def test_rarest_uniforms_stay_finite_and_equal():
    # 2**21 draws meet radii near the largest that 24 bits allow.
    ours = TorchGenerator(4).randn((2**21,))
    theirs = torch_randn(torch_generator(4), (2**21,))
    assert np.abs(theirs).max() > 5.4
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("seed", [5, -1])
def test_the_noise_of_one_image_is_that_of_a_batch_of_one(seed):
    shape = (4, 9, 7)
    theirs = torch_randn(torch_generator(seed), (1, *shape))[0]
    np.testing.assert_allclose(TorchGenerator(seed).randn(shape), theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 1.0, "1", None, True, math.nan])
def test_refuses_seeds_that_torch_refuses(seed):
    with pytest.raises((ValueError, RuntimeError, TypeError)):
        torch_generator(seed)
    with pytest.raises(RequestError, match=r"seed .*(integer|out of range)"):
        TorchGenerator(seed)


def test_accepts_numpy_integers():
    np.testing.assert_array_equal(
        TorchGenerator(np.int64(9)).randn((4,)), TorchGenerator(9).randn((4,))
    )


def test_refuses_negative_sizes():
    with pytest.raises(RequestError, match=r"\(4, -1\)"):
        TorchGenerator(0).randn((4, -1))


def test_new_seed_is_a_usable_32_bit_number():
    seeds = [new_seed() for _ in range(64)]
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert len(set(seeds)) > 60
    assert max(seeds) > 2**24


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (7, (7, 8, 9)),
        (2**32 - 1, (2**32 - 1, 2**32, 2**32 + 1)),
        (2**64 - 1, (2**64 - 1, 0, 1)),
        (-1, (-1, 0, 1)),
        (-(2**63), (-(2**63), 2**63 + 1, 2**63 + 2)),
    ],
)
def test_seeds_are_counted_in_64_bits(seed, expected):
    assert count_seeds(seed, 0, 3) == expected
    assert count_seeds(seed, 1, 2) == expected[1:]
