"""The one-dimensional law against the real sampler, and the moment theorem."""

from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

import jdiff
from jdiff import noise
from jdiff.denoisers import LinearDenoiser, PolynomialDenoiser
from jdiff.theory import PushForwardLaw, law

GRID = noise.karras(18)
TWO = np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1)


def gauss_hermite(k):
    """k + 1 points and weights with a standard normal's moments up to 2 k + 1."""
    points, weights = np.polynomial.hermite_e.hermegauss(k + 1)
    return points.reshape(-1, 1, 1, 1), weights / weights.sum()


def sampled(denoiser, n=4000, solver="ddim", grid=GRID):
    return np.asarray(jdiff.sample(denoiser, jax.random.key(0), n, sigmas=grid, solver=solver))


@pytest.mark.core
@pytest.mark.parametrize("solver", ["ddim", "heun"])
@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_k_plus_1_points_become_a_gaussian(degree, solver):
    points, weights = gauss_hermite(degree)
    denoiser = PolynomialDenoiser.fit(points, degree, GRID, weights=weights)
    predicted = law(denoiser, GRID, solver)
    samples = sampled(denoiser, solver=solver)
    assert predicted.check(samples).passed, str(predicted.check(samples))
    # Up to order 2k the data's moments are N(0, 1)'s, so the denoiser is the linear one and the law
    # is Gaussian with the variance that the linear law has on the same grid.
    linear = law(LinearDenoiser.fit(points, weights=weights), GRID, solver)
    variance = float(linear.eigenvalues[0])
    assert predicted.covariance[0, 0] == pytest.approx(variance, rel=1e-3)
    # Fourth moment on 20,001 midpoints: their tails lack 2e-3 of it.
    kurtosis = predicted.moment(4) / predicted.moment(2) ** 2
    assert kurtosis == pytest.approx(3.0, abs=0.01)
    assert predicted.escaped == 0
    x = np.linspace(-2, 2, 9)
    normal = stats.norm(scale=variance**0.5).cdf(x)
    np.testing.assert_allclose(predicted.cdf(x), normal, atol=2e-4)
    # The optimal denoiser returns the points instead.
    optimal = sampled(jdiff.OptimalDenoiser.fit(points, weights), n=200).reshape(-1)
    distance = np.abs(optimal[:, None] - points.reshape(1, -1)).min(1)
    assert np.mean(distance < 0.05) > 0.95
    assert "shape" in predicted.check(sampled(jdiff.OptimalDenoiser.fit(points, weights))).failed


def test_only_moments_up_to_2k_matter():
    """Two targets with equal moments up to 2k generate the same; one moment changed shows."""
    k = 2
    a, weights_a = gauss_hermite(k)  # three points: moments of N(0, 1) up to 5
    b, weights_b = gauss_hermite(7)  # eight points: up to 15
    # Three points with the same moments of order 1, 2 and 4, and a third moment of 1, not 0: the
    # roots of the cubic that is orthogonal to 1, x, x^2 under moments 1 0 1 1 3 3.
    wanted = np.array([1.0, 0, 1, 1, 3, 3])
    hankel = wanted[np.add.outer(range(3), range(3))]
    c = np.roots([1, *np.linalg.solve(hankel, -wanted[3:])[::-1]])
    weights_c = np.linalg.solve(np.vander(c, 3, increasing=True).T, wanted[:3])
    c = c.reshape(-1, 1, 1, 1)
    moments = lambda x, w: [float(w @ x.reshape(-1) ** n) for n in range(5)]
    np.testing.assert_allclose(moments(a, weights_a), [1, 0, 1, 0, 3], atol=1e-12)
    np.testing.assert_allclose(moments(b, weights_b), [1, 0, 1, 0, 3], atol=1e-12)
    np.testing.assert_allclose(moments(c, weights_c), [1, 0, 1, 1, 3], atol=1e-12)
    fits = [
        PolynomialDenoiser.fit(x, k, GRID, weights=w)
        for x, w in ((a, weights_a), (b, weights_b), (c, weights_c))
    ]
    same, other, changed = (sampled(fit, 2000) for fit in fits)
    # From the same noise: the same samples, point by point (float32 of values up to 4).
    np.testing.assert_allclose(same, other, atol=2e-4)
    assert np.abs(same - changed).max() > 0.1
    predicted = law(fits[0], GRID)
    assert predicted.check(other).passed
    assert not predicted.check(changed).passed
    # And to the optimal denoiser, which sees all moments, the first two are different.
    returned = [
        sampled(jdiff.OptimalDenoiser.fit(x, w), 500) for x, w in ((a, weights_a), (b, weights_b))
    ]
    first, second = (x.reshape(-1) for x in returned)
    p: Any = stats.ks_2samp(first, second)[1]
    assert p < 1e-6


@pytest.mark.parametrize("solver", ["ddim", "heun"])
@pytest.mark.parametrize("degree", [3, 5])
def test_two_points(degree, solver):
    grid = noise.karras(40, sigma_min=0.02, sigma_max=20.0)
    denoiser = PolynomialDenoiser.fit(TWO, degree, grid)
    predicted = law(denoiser, grid, solver)
    samples = sampled(denoiser, 20_000, solver, grid)
    assert predicted.check(samples).passed, str(predicted.check(samples))
    # More degree, closer to copying: the quartiles lie at the points already.
    np.testing.assert_allclose(predicted.quantile([0.25, 0.75]), [-1, 1], atol=0.05)
    gaussian = PolynomialDenoiser.fit(TWO, 1, grid)
    assert not predicted.check(sampled(gaussian, 20_000, solver, grid)).passed
    # What law and samples say of the middle is a statement on its own.
    density = predicted.density([-0.5, 0.5])[0]
    share = np.mean(np.abs(samples) < 0.5)
    assert share == pytest.approx(density, abs=4 * np.sqrt(density / 20_000) + 1e-3)


@pytest.mark.parametrize("degree", [3, 5, 7])
def test_near_atoms_rounding_is_no_deviation_but_a_shift_is(degree):
    """Down to sigma 0.002 the law's peaks at -1 and +1 are narrower than float32 tells apart."""
    denoiser = PolynomialDenoiser.fit(TWO, degree, GRID)
    predicted = law(denoiser, GRID)
    samples = sampled(denoiser)
    assert predicted.check(samples).passed, str(predicted.check(samples))
    shifted = predicted.check(samples + 3 * predicted.resolution)
    assert shifted.failed == ("shape",)


def test_escape_belongs_to_the_law():
    """Degree 5 on {-1, +1}: about 0.2 % explode, in float64 too."""
    grid = noise.karras(60, sigma_min=0.002, sigma_max=80.0)
    denoiser = PolynomialDenoiser.fit(TWO, 5, grid)
    predicted = law(denoiser, grid)
    samples = sampled(denoiser, 40_000, grid=grid)
    found = predicted.check(samples)
    outside = ~(np.abs(samples.reshape(-1)) <= predicted.bound)  # NaN is outside
    assert found.row("escaped").statistic == pytest.approx(outside.mean(), abs=1e-12)
    assert 0.0005 < predicted.escaped < 0.01
    assert found.row("escaped").passed, str(found)
    # Samples without the escaped ones are another law: 0.2 % of 40,000 are missed.
    kept = samples[~outside]
    assert "escaped" in predicted.check(kept).failed


def test_cdf_quantile_density_and_moments_agree():
    denoiser = PolynomialDenoiser.fit(*gauss_hermite(3)[:1], 3, GRID, weights=gauss_hermite(3)[1])
    predicted = law(denoiser, GRID)
    p = np.linspace(0.01, 0.99, 25)
    np.testing.assert_allclose(predicted.cdf(predicted.quantile(p)), p, atol=1e-4)
    edges = np.linspace(-5, 5, 401)
    density, middle = predicted.density(edges), (edges[1:] + edges[:-1]) / 2
    assert np.sum(density) * 0.025 == pytest.approx(1, abs=1e-3)
    for order in (1, 2, 4):
        by_bins = np.sum(density * middle**order) * 0.025
        assert predicted.moment(order) == pytest.approx(by_bins, abs=5e-3)
    assert predicted.mean.shape == (1, 1, 1)
    assert predicted.eigenvalues[0] == predicted.covariance[0, 0]
    draws = predicted.sample(jax.random.key(2), 3000)
    assert draws.shape == (3000, 1, 1, 1)
    assert predicted.check(draws).passed


def test_the_map_is_the_samplers():
    denoiser = PolynomialDenoiser.fit(TWO, 3, GRID)
    z = np.linspace(-2.5, 2.5, 41).reshape(-1, 1, 1, 1)
    for solver in ("ddim", "heun"):
        ends = jdiff.solve(denoiser, np.float32(GRID[0] * z), GRID, solver=solver)
        predicted = law(denoiser, GRID, solver).map(z.reshape(-1))
        np.testing.assert_allclose(np.asarray(ends).reshape(-1), predicted, atol=5e-3)


def test_the_grid_is_fine_enough():
    denoiser = PolynomialDenoiser.fit(TWO, 3, GRID)
    coarse, fine = (PushForwardLaw(denoiser, GRID, "ddim", num_points=m) for m in (2001, 200_001))
    x = np.linspace(-2, 2, 33)
    np.testing.assert_allclose(coarse.cdf(x), fine.cdf(x), atol=2e-3)
    assert coarse.covariance[0, 0] == pytest.approx(fine.covariance[0, 0], rel=2e-3)


def test_a_digits_coordinate(rng):
    """Real digits along their first axis, as one-dimensional data of 1,437 points."""
    images = jdiff.data.load("digits").images
    linear = LinearDenoiser.fit(images)
    x = images.reshape(len(images), -1) / 127.5 - 1 - np.asarray(linear.mean)
    points = (x @ np.asarray(linear.basis)[:, :1]).reshape(-1, 1, 1, 1).astype(np.float32)
    denoiser = PolynomialDenoiser.fit(points, 3, GRID)
    predicted = law(denoiser, GRID)
    assert predicted.check(sampled(denoiser, 1000)).passed
    cubed = PolynomialDenoiser.fit(np.sign(points) * np.abs(points) ** 1.5, 3, GRID)
    assert not predicted.check(sampled(cubed, 1000)).passed


@pytest.mark.core
def test_bad_input():
    predicted = law(PolynomialDenoiser.fit(TWO, 1, GRID), GRID)
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\]; got"):
        predicted.quantile([0.5, 1.5])
    with pytest.raises(ValueError, match="edges must be a growing one-dimensional array"):
        predicted.density([1.0, 0.0])
    with pytest.raises(ValueError, match="at least 20 within 10 of 0; got 3 of 3"):
        predicted.check(np.zeros((3, 1, 1, 1), np.float32))
    with pytest.raises(ValueError, match=r"samples must have shape \[n, 1, 1, 1\]"):
        predicted.check(np.zeros((30, 1), np.float32))


def test_a_narrow_target_far_from_zero_keeps_its_bound():
    points = TWO * 1e-3 + 0.5
    denoiser = PolynomialDenoiser.fit(points, 1, [80.0, 10.0, 0.0])
    predicted = law(denoiser, [80.0, 10.0, 0.0])
    assert predicted.bound == pytest.approx(0.01, rel=1e-3)
    assert predicted.escaped == 0
