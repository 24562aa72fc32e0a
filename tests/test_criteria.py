"""What is wrong by a system is told from the noise of rounding, however large that is."""

from dataclasses import replace

import numpy as np
import pytest

from fastdeploy_diffusion.criteria import LargestError, RoundingError

SHAPES = {
    "latents": (1, 4, 32, 32),
    "tokens": (1, 77, 64),
    "pooled": (1, 768),
    "Flux": (1, 1024, 64),
}
BF16 = RoundingError("bfloat16")


def draw(shape, noise, seed=0):
    """An exact output, the layer's with rounding, and an engine's with rounding of its own."""
    random = np.random.default_rng(seed)

    def add_noise(values):
        return values + noise * random.standard_normal(shape)

    exact = [random.standard_normal(shape) for _ in range(BF16.inputs)]
    return exact, [add_noise(each) for each in exact], [add_noise(each) for each in exact]


def judge(exact, rounded, given, criterion=BF16):
    return criterion.judge(given, exact, rounded)


def shift_a_channel(output):
    shifted = output.copy()
    if output.ndim == 4:
        shifted[:, 1] = np.roll(output[:, 1], 1, -1)
    else:
        shifted[..., 1] = output[..., 2]
    return shifted


@pytest.mark.parametrize("noise", [1e-5, 4e-3, 2e-2, 0.3])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_rounding_explains_is_right(shape, noise):
    exact, rounded, given = draw(shape, noise)
    accuracy, problem = judge(exact, rounded, given)
    assert problem == ""
    assert accuracy.relative_error == pytest.approx(noise, rel=0.1)
    assert accuracy.rounding_error == pytest.approx(max(noise, 2**-9), rel=0.1)
    assert accuracy.tolerance == 2 * accuracy.rounding_error
    assert judge(exact, rounded, exact).accuracy == replace(accuracy, relative_error=0.0)


@pytest.mark.parametrize("noise", [1e-5, 4e-3, 2e-2])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("scale", [0.99, 1.01])
def test_a_scale_off_by_one_per_cent_is_wrong(shape, noise, scale):
    exact, rounded, given = draw(shape, noise)
    assert judge(exact, rounded, [scale * each for each in given]).problem


@pytest.mark.parametrize("scale", [0.99, 1.01])
def test_a_scale_shows_where_weights_make_much_of_rounding(scale):
    exact, rounded, given = draw(SHAPES["Flux"], 0.3)
    problem = judge(exact, rounded, [scale * each for each in given]).problem
    assert problem.startswith("by +" if scale > 1 else "by -")
    assert problem.endswith("% in scale")


@pytest.mark.parametrize("noise", [1e-5, 4e-3, 2e-2])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_shifted_channel_is_wrong(shape, noise):
    exact, rounded, given = draw(shape, noise)
    assert judge(exact, rounded, [shift_a_channel(each) for each in given]).problem


def test_one_channel_of_many_is_told_by_its_index():
    exact, rounded, given = draw(SHAPES["Flux"], 0.1)
    for each in given:
        each[..., 7] += 0.5
    problem = judge(exact, rounded, given).problem
    assert problem.startswith("at index 7 of axis 2, by 4.")


def test_noise_that_takes_from_the_projection_alone_is_no_error_of_scale():
    """Chaotic networks keep the size of their outputs, whatever they make of rounding."""
    random, shape = np.random.default_rng(0), SHAPES["Flux"]
    exact = [random.standard_normal(shape) for _ in range(2)]

    def turn(values, angle):
        return np.cos(angle) * values + np.sin(angle) * random.standard_normal(shape)

    rounded, given = ([turn(each, angle) for each in exact] for angle in (0.25, 0.35))
    assert judge(exact, rounded, given).problem == ""
    problem = judge(exact, rounded, [1.05 * each for each in given]).problem
    assert problem.endswith("% in scale")


def test_more_noise_than_twice_is_wrong():
    exact, rounded, given = draw(SHAPES["latents"], 1e-2)
    more = [each + 2.5 * (got - each) for each, got in zip(exact, given, strict=True)]
    accuracy, problem = judge(exact, rounded, more)
    assert 2.4 < accuracy.relative_error / accuracy.rounding_error < 2.6
    assert "of its root mean square, 2.5 times what rounding explains" in problem


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_a_layer_that_overflows_when_it_is_rounded_allows_nothing(spoilt):
    exact, rounded, given = draw(SHAPES["latents"], 1e-3)
    rounded[1][0, 0, 0, 0] = spoilt
    problem = judge(exact, rounded, given, RoundingError("float16")).problem
    assert problem == "in values that overflow where it is rounded to float16"


@pytest.mark.parametrize("criterion", [LargestError(0.5), BF16])
@pytest.mark.parametrize("place", [0, 1])
def test_what_is_not_a_number_is_wrong_in_any_input(criterion, place):
    exact, rounded, given = draw(SHAPES["tokens"], 1e-3)
    given[place][0, 3, 3] = np.nan
    accuracy, problem = judge(exact, rounded, given, criterion)
    assert problem
    assert accuracy.share == np.inf


def test_against_nothing_but_zeros_an_error_counts_in_full():
    zeros = [np.zeros((1, 4, 4))] * 2
    assert judge(zeros, zeros, zeros).problem == ""
    assert judge(zeros, zeros, [each + 0.1 for each in zeros]).problem
