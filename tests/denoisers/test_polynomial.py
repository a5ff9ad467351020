"""Polynomial denoisers against quadrature in float64, and what they see of their data."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jdiff
from jdiff import noise
from jdiff.denoisers import LinearDenoiser, OptimalDenoiser, PolynomialDenoiser, axes, polynomial
from jdiff.denoisers.polynomial import MAX_FUNCTIONS, multi_indices

call = jax.jit(lambda denoiser, y, sigma: denoiser(y, sigma))
KARRAS = noise.karras(18)
TWO = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1)


def gauss_hermite(k):
    """k + 1 points and weights with the moments of N(0, 1) up to order 2 k + 1."""
    points, weights = np.polynomial.hermite_e.hermegauss(k + 1)
    return points.reshape(-1, 1, 1, 1), weights / weights.sum()


def least_squares(x, w, degree, sigma, nodes):
    """Coefficients of monomials [m, d] by tensor Gauss-Hermite nodes: exact for enough of them."""
    z, v = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.stack(np.meshgrid(*[z] * x.shape[1], indexing="ij"), -1).reshape(-1, x.shape[1])
    weight = np.prod(np.stack(np.meshgrid(*[v / v.sum()] * x.shape[1]), -1), -1).reshape(-1)
    y = (x[:, None] + sigma * grid[None]).reshape(-1, x.shape[1])
    root = np.sqrt((w[:, None] * weight[None]).reshape(-1, 1))
    h = monomials(y, degree)
    return np.linalg.lstsq(root * h, root * np.repeat(x, len(grid), 0), rcond=None)[0]


def monomials(y, degree):
    return np.stack([np.prod(y**a, 1) for a in multi_indices(y.shape[1], degree)], 1)


@pytest.mark.core
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("sigma", [3.0, 0.4])
def test_against_quadrature(d, degree, sigma, rng):
    x, w = rng.normal(size=(11, d)), rng.uniform(0.1, 1, 11)
    denoiser = PolynomialDenoiser.fit(x.reshape(-1, 1, 1, d), degree, [5.0, sigma, 0.0], weights=w)
    float32 = lambda a: a.astype(np.float32).astype(np.float64)  # as the fit sees it
    a = least_squares(float32(x), w / w.sum(), degree, sigma, degree + 1)
    y = rng.normal(size=(6, d)) * (1 + sigma) ** 0.5
    found = np.asarray(call(denoiser, jnp.asarray(y.reshape(6, 1, 1, d), jnp.float32),
                            jnp.float32(sigma)))  # fmt: skip
    expected = monomials(float32(y), degree) @ a
    # float32 sums of up to 35 terms of size up to some tens.
    np.testing.assert_allclose(found.reshape(6, d), expected, atol=2e-4)


@pytest.mark.core
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 1), (2, 2, 3)])
def test_degree_one_is_the_linear_denoiser(shape, rng):
    images = rng.integers(0, 256, (40, *shape), dtype=np.uint8)
    weights = rng.uniform(0.1, 1, 40)
    polynomial = PolynomialDenoiser.fit(images, 1, [2.0, 0.1], weights=weights)
    linear = LinearDenoiser.fit(images, weights=weights)
    y = jnp.asarray(rng.normal(size=(5, *shape)), jnp.float32)
    for sigma in (2.0, 0.1):
        a, b = (call(d, y, jnp.float32(sigma)) for d in (polynomial, linear))
        np.testing.assert_allclose(a, b, atol=1e-5)


def normal_equations(x, w, sigma, ridge):
    """Degree 1 of whole images, float64: the slopes in y and the value at the mean."""
    mu = w @ x
    covariance = (x - mu).T @ ((x - mu) * w[:, None])
    # E (y - mu)(y - mu)^T, and the ridge on slopes times the deviation of y: scale^2 |slope|^2.
    scale = np.diag(covariance) + sigma**2
    noisy = covariance + sigma**2 * np.eye(len(mu)) + ridge * np.diag(scale)
    return np.linalg.solve(noisy, covariance), mu


@pytest.mark.core
@pytest.mark.parametrize("num", [60, 6], ids=["N > D", "N < D"])
@pytest.mark.parametrize("ridge", [0.0, 0.02])
@pytest.mark.parametrize("route", ["axes", "rows"])
def test_degree_one_by_both_routes_against_the_normal_equations(
    num, ridge, route, rng, monkeypatch
):
    images = rng.integers(0, 256, (num, 4, 3, 1), dtype=np.uint8)
    images[:, 1, 1] = 77  # a value that never deviates
    w = rng.uniform(0.1, 1, num)
    calls = []
    rows = polynomial._by_rows
    monkeypatch.setattr(polynomial, "_by_rows", lambda *a: calls.append(1) or rows(*a))
    if route == "rows":
        monkeypatch.setattr(polynomial, "_RESOLVED", np.inf)
    levels = [3.0, 0.3, 0.01]
    denoiser = PolynomialDenoiser.fit(images, 1, levels, w, ridge=ridge)
    assert len(calls) == (route == "rows")
    x = (images.reshape(num, -1) / np.float32(127.5) - np.float32(1)).astype(np.float64)
    for t, sigma in enumerate(levels):
        slopes, mu = normal_equations(x, w / w.sum(), np.float64(np.float32(sigma)), ridge)
        found = np.asarray(denoiser.coefficients[t], np.float64)
        np.testing.assert_allclose(found[0], mu, atol=1e-7)
        # Slopes below 1, twice rounded to float32.
        scale = np.asarray(denoiser.scale[t], np.float64)[:, None]
        np.testing.assert_allclose(found[1:] / scale, slopes, atol=3e-7)


def test_a_level_beyond_the_axes_is_fitted_by_rows(rng, monkeypatch):
    """Noise of 1e-12 beside an eigenvalue of 1: those of float64 err by 1e-16."""
    x = rng.normal(size=(30, 1, 1, 2)) * [1.0, 1e-5]
    calls = []
    rows = polynomial._by_rows
    monkeypatch.setattr(polynomial, "_by_rows", lambda *a: calls.append(1) or rows(*a))
    denoiser = PolynomialDenoiser.fit(x, 1, [1.0, 1e-6])
    assert calls
    y = x.astype(np.float32)
    np.testing.assert_allclose(call(denoiser, y, jnp.float32(1e-6)), y, atol=1e-6)


def test_the_images_are_met_once_for_all_levels(rng, monkeypatch):
    x, met = rng.normal(size=(30, 1, 1, 2)), []
    basis = polynomial._basis
    monkeypatch.setattr(polynomial, "_basis", lambda u, *a: met.append(len(u)) or basis(u, *a))
    for levels in ([3.0], KARRAS[:10]):
        met.clear()
        PolynomialDenoiser.fit(x, 3, levels)
        assert met == [30]


@pytest.mark.parametrize("degree", [1, 2, 3, 5, 7])
def test_gauss_hermite_points_are_a_gaussian_to_it(degree):
    """Moments up to 2k agree with N(0, 1), whose best denoiser is y / (1 + sigma^2), exactly."""
    points, weights = gauss_hermite(degree)
    denoiser = PolynomialDenoiser.fit(points, degree, KARRAS, weights=weights)
    y = np.linspace(-3, 3, 13).reshape(-1, 1, 1, 1)
    for sigma in KARRAS[:-1]:
        deviation = np.float32(np.sqrt(1 + sigma**2))
        found = call(denoiser, jnp.asarray(y * deviation, jnp.float32), jnp.float32(sigma))
        # He_7 at 3 deviations is 31 in units of sqrt(7!): float32 rounding of such terms.
        np.testing.assert_allclose(found, y * deviation / (1 + sigma**2), atol=1e-4)


def test_only_moments_up_to_twice_the_degree_matter():
    def fit(n):  # n Gauss-Legendre points have the uniform moments up to order 2 n - 1
        points, weights = np.polynomial.legendre.leggauss(n)
        return PolynomialDenoiser.fit(points.reshape(-1, 1, 1, 1), 3, KARRAS, weights)

    # Four and eight points agree up to order 7; three differ from them, up to 6, in the sixth
    # moment alone. (On the moments of a Gaussian the sixth would not matter: there D is linear as
    # soon as those up to degree + 1 agree.)
    three, four, eight = fit(3), fit(4), fit(8)
    np.testing.assert_allclose(four.coefficients, eight.coefficients, atol=1e-5)
    assert np.abs(np.asarray(three.coefficients - eight.coefficients)).max() > 0.01
    a, b, c = (jdiff.sample(d, jax.random.key(3), 200) for d in (four, eight, three))
    # float32 rounding through 18 steps that start at 80.
    np.testing.assert_allclose(a, b, atol=1e-4)
    assert np.abs(np.asarray(c - b)).max() > 0.01


def test_four_points_generate_a_continuous_gaussian():
    """The sampler multiplies by the gain of every step; OptimalDenoiser returns the points."""
    points, weights = gauss_hermite(3)
    n, sigmas = 20_000, KARRAS.astype(np.float64)
    s, s_next = sigmas[:-1], sigmas[1:]
    gain = 1 / (1 + s**2)
    deviation = s[0] * np.prod(gain + s_next / s * (1 - gain))
    denoisers = (
        PolynomialDenoiser.fit(points, 3, KARRAS, weights=weights),
        OptimalDenoiser.fit(points, weights=weights),
    )
    gaussian, copies = (
        np.asarray(jdiff.sample(d, jax.random.key(0), n), np.float64).ravel() / deviation
        for d in denoisers
    )
    # Kurtosis of n Gaussian values has the deviation sqrt(24 / n) = 0.035: four of them, 6e-5.
    assert np.mean(gaussian**4) / np.mean(gaussian**2) ** 2 == pytest.approx(3, abs=0.14)
    # The points have a kurtosis of 3 too: it is the distribution that tells them apart.
    assert scipy.stats.kstest(gaussian, "norm").pvalue > 1e-4
    assert scipy.stats.kstest(copies, "norm").pvalue < 1e-12


def solve_exactly(a, b):
    """Gauss-Jordan elimination in fractions."""
    rows = [[*row, right] for row, right in zip(a, b, strict=True)]
    for i in range(len(rows)):
        pivot = next(j for j in range(i, len(rows)) if rows[j][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [v / rows[i][i] for v in rows[i]]
        for j in range(len(rows)):
            if j != i:
                rows[j] = [v - rows[j][i] * u for v, u in zip(rows[j], rows[i], strict=True)]
    return [row[-1] for row in rows]


@pytest.mark.parametrize("degree", [3, 5, 7])
def test_two_points_down_to_the_last_level_in_exact_arithmetic(degree, rng):
    """At 0.002 and degree 7 the basis has a condition number of 3e9; rationals have none."""
    denoiser = PolynomialDenoiser.fit(TWO, degree, KARRAS)
    # E z^i, i even, and E x^e y^n of y = x + s z, x = -1 or 1: even powers of x and z survive.
    odd = lambda i: math.prod(range(1, i, 2))
    moment = lambda n, e, s: sum(
        math.comb(n, i) * odd(i) * s**i for i in range(0, n + 1, 2) if (n - i + e) % 2 == 0
    )
    orders = range(degree + 1)
    for sigma in KARRAS[[0, 8, 15, 16, 17]]:
        s = Fraction(float(sigma))
        gram = [[Fraction(moment(i + j, 0, s)) for j in orders] for i in orders]
        c = solve_exactly(gram, [Fraction(moment(i, 1, s)) for i in orders])
        y = (rng.choice([-1, 1], 30) + sigma * rng.normal(size=30)).astype(np.float32)
        expected = [float(sum(c[i] * Fraction(float(v)) ** i for i in orders)) for v in y]
        found = call(denoiser, jnp.asarray(y.reshape(-1, 1, 1, 1)), jnp.float32(sigma))
        # Coefficients of up to 57 in float32: 57 * 6e-8, a few times.
        np.testing.assert_allclose(np.ravel(found), expected, atol=3e-5)


@pytest.mark.parametrize(
    ("where", "name", "value"), [(axes, "_BLOCK", 7), (polynomial, "_WAITING", 1)]
)
def test_reducing_in_parts_changes_nothing(where, name, value, rng, monkeypatch):
    x, w = rng.normal(size=(40, 1, 1, 2)), rng.uniform(0.1, 1, 40)
    fit = lambda: PolynomialDenoiser.fit(x, 3, [3.0, 0.2], w, ridge=1e-3).coefficients
    triangles = []
    count = polynomial._triangle
    monkeypatch.setattr(polynomial, "_triangle", lambda *a: triangles.append(1) or count(*a))
    whole, once = fit(), len(triangles)
    monkeypatch.setattr(where, name, value)
    np.testing.assert_allclose(fit(), whole, atol=1e-6)
    assert len(triangles) > 2 * once + 2


def test_an_odd_target_has_an_odd_denoiser_that_nears_the_optimal_one():
    y = jnp.linspace(-2, 2, 21).reshape(-1, 1, 1, 1)
    optimal = call(OptimalDenoiser.fit(TWO), y, jnp.float32(0.7))
    np.testing.assert_allclose(optimal, np.tanh(np.asarray(y) / 0.49), atol=1e-5)
    errors = []
    for degree in (1, 3, 5, 7, 9):
        denoiser = PolynomialDenoiser.fit(TWO, degree, [0.7])
        x_hat = np.asarray(call(denoiser, y, jnp.float32(0.7)))
        np.testing.assert_allclose(x_hat, -x_hat[::-1], atol=1e-4)
        p = np.exp(-0.5 * ((np.abs(y) - 1) / 0.7) ** 2)  # about the density of y
        errors.append(float(np.sum(p * (x_hat - optimal) ** 2)))
    assert all(b < 0.7 * a for a, b in zip(errors, errors[1:], strict=False)), errors


@pytest.mark.parametrize("ridge", [0.0, 0.05])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_no_other_polynomial_has_a_smaller_error(degree, ridge, rng):
    """The exact expected loss, by quadrature, and the ridge, in all directions from the fit."""
    x, sigma = rng.normal(size=(7, 1)), 0.5
    denoiser = PolynomialDenoiser.fit(x.reshape(-1, 1, 1, 1), degree, [sigma], ridge=ridge)
    z, v = np.polynomial.hermite_e.hermegauss(2 * degree + 2)
    y = (x + sigma * z[None]).reshape(-1)
    weight = np.tile(v / v.sum(), 7) / 7
    u = (y - float(denoiser.mean[0])) / float(denoiser.scale[0, 0])
    h = np.stack(
        [np.polynomial.hermite_e.HermiteE.basis(n)(u) / math.sqrt(math.factorial(n))
         for n in range(degree + 1)], 1
    )  # fmt: skip
    c = np.asarray(denoiser.coefficients, np.float64)[0]
    loss = lambda c: (
        weight @ (np.repeat(x[:, 0], len(z)) - (h @ c)[:, 0]) ** 2 + ridge * np.sum(c[1:] ** 2)
    )
    best = loss(c)
    for direction in np.eye(degree + 1):
        for step in (-1e-2, 1e-2):
            assert loss(c + step * direction[:, None]) > best + 1e-6


def test_a_level_a_row_and_levels_that_were_not_fitted(rng):
    denoiser = PolynomialDenoiser.fit(TWO, 3, [2.0, 0.5, 0.0])
    assert np.asarray(denoiser.sigmas).tolist() == [2.0, 0.5]
    y = jnp.asarray(rng.normal(size=(2, 1, 1, 1)), jnp.float32)
    both = call(denoiser, y, jnp.asarray([2.0, 0.5]))
    for i, sigma in enumerate((2.0, 0.5)):
        np.testing.assert_allclose(both[i], call(denoiser, y[i : i + 1], jnp.float32(sigma))[0])
    assert jdiff.sample(denoiser, jax.random.key(0), 4).shape == (4, 1, 1, 1)
    with pytest.raises(ValueError, match="sigmas asks for level 1, but this PolynomialDenoiser"):
        jdiff.sample(denoiser, jax.random.key(0), 4, sigmas=[1.0, 0.0])
    with pytest.raises(ValueError, match="labels must be None: PolynomialDenoiser has no classes"):
        denoiser(y, jnp.float32(0.5), jnp.zeros(2, int))


def test_two_fits_share_a_compilation(rng):
    traces = []

    @jax.jit
    def counted(denoiser, y, sigma):
        traces.append(1)
        return denoiser(y, sigma)

    for seed in (0, 1):
        points = np.random.default_rng(seed).normal(size=(9, 1, 1, 2))
        counted(PolynomialDenoiser.fit(points, 3, KARRAS), jnp.zeros((3, 1, 1, 2)), jnp.float32(80))
    assert len(traces) == 1


@pytest.mark.core
def test_multi_indices():
    for d, degree in ((1, 5), (2, 3), (4, 2)):
        found = multi_indices(d, degree)
        assert found.shape == (math.comb(d + degree, degree), d)
        assert len({tuple(a) for a in found}) == len(found)
        assert np.all(np.diff(found.sum(1)) >= 0)
        assert found[0].tolist() == [0] * d
        assert found.sum(1).max() == degree


def test_digits_of_degree_two_are_within_the_limit():
    # 2,145 functions of 64 values; 784 values have 308,505.
    assert math.comb(66, 2) <= MAX_FUNCTIONS < math.comb(786, 2)
    with pytest.raises(ValueError, match="takes 308,505 basis functions, more than 2,500; Random"):
        PolynomialDenoiser.fit(np.zeros((3, 28, 28, 1), np.uint8), 2, KARRAS)


def test_a_singular_level_names_itself_and_a_ridge_helps():
    # Polynomials that vanish on both points to high order: the noise hardly tells them apart.
    message = (
        r"sigmas\[17\] = 0.002: the 10 basis functions of degree 9 are singular on this data "
        r"\(ratio 2.*e-12\); a ridge, for example ridge=1e-10, bounds the coefficients"
    )
    with pytest.raises(ValueError, match=message):
        PolynomialDenoiser.fit(TWO, 9, KARRAS)
    fitted = PolynomialDenoiser.fit(TWO, 9, KARRAS, ridge=1e-10)
    x_hat = call(fitted, jnp.asarray(TWO, jnp.float32), jnp.float32(KARRAS[-2]))
    np.testing.assert_allclose(x_hat, TWO, atol=1e-2)


def test_a_high_degree_is_fitted_or_refused_at_once(rng):
    x = rng.normal(size=(200, 1, 1, 1))
    denoiser = PolynomialDenoiser.fit(x, 40, [5.0])
    y = jnp.asarray(x + 5 * rng.normal(size=x.shape), jnp.float32)
    mu, variance = x.mean(), x.var()
    linear = mu + variance / (variance + 25) * (y - mu)
    # At 5 deviations of noise all but the linear term is small, whatever the degree.
    np.testing.assert_allclose(call(denoiser, y, jnp.float32(5)), linear, atol=0.05)
    refused = [
        # Solved, but in float32 its terms of size 1e12 cancel to values of size 1: noise. The
        # coefficients are as good as the solver's rounding: 7e4, 4e5 and 1e6 were met.
        (
            *(TWO, 40, 0.5),
            r"terms of degree 40 cancel, so that float32 sums err by \de.0[456] where the",
        ),
        (TWO, 2000, 5.0, "degree 2000 is too high: its binomial coefficients overflow float64"),
        (np.zeros((1, 1, 1, 784)), 10**9, 0.5, r"takes 10\^\d+ basis functions, more than 2,500"),
    ]
    for points, degree, sigma, message in refused:
        with pytest.raises(ValueError, match=message):
            PolynomialDenoiser.fit(points, degree, [sigma])


def test_a_basis_that_overflows_on_a_rare_outlier_is_refused():
    points = np.array([-1.0, 1.0, 1e6]).reshape(3, 1, 1, 1)
    with pytest.raises(ValueError, match="degree 60 is too high for this data: its functions over"):
        PolynomialDenoiser.fit(points, 60, [1.0], weights=[1.0, 1.0, 1e-12])


def test_identical_images_are_returned_at_any_degree():
    denoiser = PolynomialDenoiser.fit(np.full((3, 1, 2, 1), 40, np.uint8), 2, [0.5])
    x_hat = call(denoiser, jnp.ones((1, 1, 2, 1)), jnp.float32(0.5))
    np.testing.assert_allclose(x_hat, np.full((1, 1, 2, 1), 40 / 127.5 - 1), atol=1e-6)


def test_only_a_long_fit_shows_a_bar(monkeypatch, capsys):
    PolynomialDenoiser.fit(TWO, 3, KARRAS)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(polynomial, "_QUIET", 0)
    PolynomialDenoiser.fit(TWO, 3, KARRAS)
    assert "PolynomialDenoiser.fit: levels" in capsys.readouterr().err


@pytest.mark.core
def test_ridge_is_added_to_the_mean_squared_error():
    points, weights = gauss_hermite(1)
    # One coefficient c of u, E u^2 = 1, E x u = 1 / sqrt(1 + s^2): c = E x u / (1 + ridge).
    fitted = PolynomialDenoiser.fit(points, 1, [1.0], weights=weights, ridge=0.5)
    assert float(fitted.coefficients[0, 1, 0]) == pytest.approx(1 / math.sqrt(2) / 1.5, rel=1e-6)


@pytest.mark.core
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"degree": 0}, ValueError, "degree must be at least 1; got 0"),
        ({"degree": 1.0}, TypeError, "degree must be a whole number; got 1.0"),
        ({"sigmas": [0.1, 0.4]}, ValueError, "sigmas must decrease strictly"),
        ({"sigmas": []}, ValueError, "sigmas must hold at least one"),
        ({"ridge": -1e-9}, ValueError, r"ridge must be in \[0"),
        ({"weights": [1.0, -1.0]}, ValueError, "weights must be finite and not negative"),
        ({"weights": [1.0]}, ValueError, r"weights must have shape \(2,\); got \(1,\)"),
        ({"weights": [0.0, 0.0]}, ValueError, "weights must not all be zero"),
        ({"images": TWO * np.nan}, ValueError, "images holds NaN or infinite values"),
        ({"images": TWO[0]}, ValueError, "images must have shape"),
    ],
)
def test_bad_input(change, error, message):
    with pytest.raises(error, match=message):
        PolynomialDenoiser.fit(**{"images": TWO, "degree": 1, "sigmas": [0.4], **change})
