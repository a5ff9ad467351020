import numpy as np
import pytest

from jdiff.metrics import intervals


@pytest.mark.core
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_the_published_one(successes, n, low, high):
    assert intervals.wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_ends_exactly_at_0_and_1_and_is_symmetric():
    assert intervals.wilson(0, 360)[0] == 0.0
    assert intervals.wilson(360, 360)[1] == 1.0
    low, high = intervals.wilson(7, 50)
    assert intervals.wilson(43, 50) == pytest.approx((1 - high, 1 - low), abs=1e-15)


def test_wilson_solves_its_equation():
    # The ends are the p0 at which (p - p0)^2 = z^2 p0 (1 - p0) / n.
    for p0 in intervals.wilson(23, 70):
        assert (23 / 70 - p0) ** 2 == pytest.approx(1.959964**2 * p0 * (1 - p0) / 70, rel=1e-6)


@pytest.mark.parametrize(
    ("successes", "n", "error", "words"),
    [
        (3, 0, ValueError, "n must be at least 1; got 0"),
        (4, 3, ValueError, "successes must be from 0 to 3; got 4"),
        (-1, 3, ValueError, "successes must be from 0 to 3; got -1"),
        (0.5, 3, TypeError, "successes must be a whole number; got 0.5"),
    ],
)
def test_wilson_refuses(successes, n, error, words):
    with pytest.raises(error, match=words):
        intervals.wilson(successes, n)


def test_bootstrap_is_seeded_and_near_the_normal_interval(rng):
    values = rng.normal(size=2000)
    low, high = intervals.bootstrap_mean(values, seed=3)
    assert (low, high) == intervals.bootstrap_mean(values, seed=3)
    assert (low, high) != intervals.bootstrap_mean(values, seed=4)
    # A 2.5 % quantile of 1000 resamples has a standard error of about 0.085 of the mean's.
    half = 1.96 * values.std(ddof=1) / np.sqrt(2000)
    assert low == pytest.approx(values.mean() - half, abs=0.2 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.2 * half)


def test_bootstrap_of_equal_values_is_a_point():
    assert intervals.bootstrap_mean(np.full(5, 2.0)) == (2.0, 2.0)


def test_bootstrap_covers_the_mean(rng):
    # 400 repetitions; three binomial deviations at 0.95 are 0.033. At n = 100 the percentile
    # interval of a skewed variable covers about 0.94, hence the 0.01 more below.
    covered = 0
    for seed in range(400):
        low, high = intervals.bootstrap_mean(rng.exponential(size=100), seed)
        covered += low <= 1.0 <= high
    assert 0.95 - 0.043 <= covered / 400 <= 0.95 + 0.033


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((2, 2)), r"values must be \[n\] with n >= 2; got shape \(2, 2\)"),
        (np.zeros(1), r"values must be \[n\] with n >= 2; got shape \(1,\)"),
        (np.array([0.0, np.nan, np.inf]), "values must be finite; got 2 of 3"),
    ],
)
def test_bootstrap_refuses(values, words):
    with pytest.raises(ValueError, match=words):
        intervals.bootstrap_mean(values)


def test_parts_interval_by_hand():
    # 0..9: variance 82.5 / 9, half width 2.26 sqrt(82.5 / 90) = 2.1638
    low, high = intervals.parts_interval(5.0, range(10))
    assert (low, high) == pytest.approx((5 - 2.1638, 5 + 2.1638), abs=1e-4)


@pytest.mark.parametrize("parts", [np.zeros(9), np.full(10, np.nan), np.zeros((10, 1))])
def test_parts_interval_refuses(parts):
    with pytest.raises(ValueError, match="part_values must be 10 finite numbers"):
        intervals.parts_interval(0.0, parts)


def test_left_out_interval_by_hand():
    # 0..9: sum of squares about the mean 82.5; s^2 = 0.9 82.5 = 74.25, half width 2.26 8.6168
    low, high = intervals.left_out_interval(5.0, range(10))
    assert (low, high) == pytest.approx((5 - 19.474, 5 + 19.474), abs=1e-3)


def test_of_a_mean_parts_and_parts_left_out_agree(rng):
    # The mean without a part moves by 1/9 of what that part is away.
    values = rng.normal(size=50)
    part = intervals.part_of(50)
    parts = [values[part == p].mean() for p in range(10)]
    left_out = [values[part != p].mean() for p in range(10)]
    expected = intervals.parts_interval(values.mean(), parts)
    assert intervals.left_out_interval(values.mean(), left_out) == pytest.approx(expected)


@pytest.mark.parametrize("parts", [np.zeros(9), np.full(10, np.nan), np.zeros((10, 1))])
def test_left_out_interval_refuses(parts):
    with pytest.raises(ValueError, match="left_out must be 10 finite numbers"):
        intervals.left_out_interval(0.0, parts)


def test_parts_hold_all_samples_in_order():
    for n in (10, 47, 360):
        part = intervals.part_of(n)
        np.testing.assert_array_equal(part, np.sort(part))
        sizes = np.bincount(part)
        assert len(sizes) == 10
        assert sizes.max() - sizes.min() <= 1
