"""Random polynomial features against a float64 regression on the same draws."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdiff
from jdiff.denoisers import PatchPolynomialDenoiser, RandomPolynomialDenoiser, random_polynomial
from jdiff.denoisers.random_polynomial import FIT, draw_projection, features, noise_of
from jdiff.sampling.sampler import SAMPLE
from jdiff.training import TRAIN

call = jax.jit(lambda denoiser, y, sigma: denoiser(y, sigma))
SHAPE = (3, 5, 2)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
LEVELS = [2.0, 0.4, 0.0]
Y = jnp.asarray(np.random.default_rng(1).normal(size=(6, *SHAPE)), jnp.float32)
key = lambda: jax.random.key(3)


def draws_of(level: int, draw: int, num: int, d: int) -> np.ndarray:
    """The noise that a fit uses, [N, D]."""
    fit_key = jax.random.fold_in(key(), FIT)
    of_level = jax.random.fold_in(fit_key, level + 1)
    return np.asarray(noise_of(of_level, jnp.full(num, draw), jnp.arange(num), d), np.float64)


def regression(h, x, w, ridge):
    """Affine ridge regression, directly: A [m, D] and c [D]."""
    w = w / w.sum()
    hc, xc = h - w @ h, x - w @ x
    cov = (hc.T * w) @ hc
    a = np.linalg.solve(cov + ridge * np.trace(cov) / len(cov) * np.eye(len(cov)), (hc.T * w) @ xc)
    return a, w @ x - (w @ h) @ a


@pytest.mark.core
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_against_float64_on_the_same_draws(degree, weighted):
    weights = np.linspace(0, 2, 40) if weighted else np.ones(40)
    given = weights if weighted else None
    denoiser = RandomPolynomialDenoiser.fit(
        IMAGES, degree, LEVELS, key(), 12, given, num_draws=3, ridge=1e-3
    )
    x = IMAGES.reshape(40, -1) / 127.5 - 1
    r = np.asarray(denoiser.projection, np.float64)
    for t, sigma in enumerate(LEVELS[:-1]):
        y = np.concatenate([x + sigma * draws_of(t, draw, 40, 30) for draw in range(3)])
        h = y @ r.T
        h = (h / np.abs(h).max(1, keepdims=True)) ** degree
        a, c = regression(h, np.tile(x, (3, 1)), np.tile(weights, 3), 1e-3)
        flat = np.asarray(Y, np.float64).reshape(6, -1) @ r.T
        expected = (flat / np.abs(flat).max(1, keepdims=True)) ** degree @ a + c
        found = np.asarray(call(denoiser, Y, jnp.float32(sigma))).reshape(6, -1)
        # float32 sums of a covariance of condition 1e3 to 1e4.
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_the_projection_is_scaled_by_the_root_of_d():
    r = np.asarray(draw_projection(jax.random.key(0), 400, 100))
    # 40,000 normals of deviation 1/10: their rms has a relative standard error of 0.35 %.
    assert np.sqrt(np.mean(r**2)) == pytest.approx(0.1, rel=0.02)


@pytest.mark.core
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_of_degree_zero_in_scale_and_of_the_parity_of_the_degree(degree):
    denoiser = RandomPolynomialDenoiser.fit(IMAGES, degree, LEVELS, key(), 12, ridge=1e-3)
    at = lambda y: np.asarray(call(denoiser, y, jnp.float32(0.4)))
    np.testing.assert_allclose(at(7.5 * Y), at(Y), atol=1e-5)
    offset = np.asarray(denoiser.offset[1]).reshape(SHAPE)
    if degree % 2 == 0:
        np.testing.assert_allclose(at(-Y), at(Y), atol=1e-5)
    else:
        np.testing.assert_allclose(at(-Y) - offset, -(at(Y) - offset), atol=1e-5)
    # And it does depend on y.
    assert np.abs(at(Y)[0] - at(Y)[1]).max() > 0.01


def test_nothing_at_all_gives_the_offset():
    assert np.asarray(features(jnp.ones((3, 4)), jnp.zeros((2, 4)), 3)).tolist() == [[0.0] * 3] * 2


def test_the_answer_does_not_depend_on_the_blocks(monkeypatch):
    whole = RandomPolynomialDenoiser.fit(IMAGES, 3, LEVELS, key(), 12, num_draws=2, ridge=1e-3)
    shapes = []
    real = random_polynomial._block_sums

    def counted(projection, rows, *args, **options):
        shapes.append(rows.shape)
        return real(projection, rows, *args, **options)

    monkeypatch.setattr(random_polynomial, "_BLOCK", 7)
    monkeypatch.setattr(random_polynomial, "_block_sums", counted)
    parts = RandomPolynomialDenoiser.fit(IMAGES, 3, LEVELS, key(), 12, num_draws=2, ridge=1e-3)
    # Six blocks of seven, the last padded, for two levels and two draws: one shape whatever N is.
    assert shapes == [(7, 30)] * 24
    for sigma in LEVELS[:-1]:
        a, b = (call(d, Y, jnp.float32(sigma)) for d in (whole, parts))
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_uint8_and_floats_weights_and_repeats_are_the_same():
    fit = lambda x, **options: RandomPolynomialDenoiser.fit(
        x, 3, [0.4], key(), 8, ridge=1e-3, num_draws=2, **options
    )
    plain = call(fit(IMAGES), Y, jnp.float32(0.4))
    floats = IMAGES.astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(call(fit(floats), Y, jnp.float32(0.4)), plain, atol=1e-5)
    # Weight zero: the first 25 images alone, whose noise belongs to their numbers.
    few = call(fit(IMAGES[:25]), Y, jnp.float32(0.4))
    zeros = call(fit(IMAGES, weights=np.arange(40) < 25), Y, jnp.float32(0.4))
    np.testing.assert_allclose(zeros, few, atol=1e-4)
    assert np.abs(np.asarray(few) - np.asarray(plain)).max() > 1e-3


def test_a_level_a_row_and_levels_that_were_not_fitted():
    denoiser = RandomPolynomialDenoiser.fit(IMAGES, 3, LEVELS, key(), 8, ridge=1e-3)
    rows = call(denoiser, Y[:2], jnp.asarray([2.0, 0.4]))
    for i, sigma in enumerate((2.0, 0.4)):
        alone = call(denoiser, Y[i : i + 1], jnp.float32(sigma))[0]
        np.testing.assert_allclose(rows[i], alone, atol=1e-6)
    samples = jdiff.sample(denoiser, jax.random.key(0), 3)
    assert samples.shape == (3, *SHAPE)
    with pytest.raises(ValueError, match="sigmas asks for level 1, but this RandomPolynomial"):
        jdiff.sample(denoiser, jax.random.key(0), 3, sigmas=[1.0, 0.0])
    with pytest.raises(ValueError, match="labels must be None: RandomPolynomialDenoiser"):
        denoiser(Y, jnp.float32(0.4), jnp.zeros(6, int))


def test_two_fits_share_a_compilation():
    traces = []

    @jax.jit
    def counted(denoiser, y, sigma):
        traces.append(1)
        return denoiser(y, sigma)

    for seed in (0, 1):
        fitted = RandomPolynomialDenoiser.fit(IMAGES, 3, LEVELS, jax.random.key(seed), 8)
        counted(fitted, Y, jnp.float32(0.4))
    assert len(traces) == 1


def test_a_singular_gram_names_level_and_ridge():
    # 60 features of degree 1 of 30 values: their covariance has rank 30.
    with pytest.raises(ValueError, match=r"sigmas\[0\] = 2: .*60 features is singular") as error:
        RandomPolynomialDenoiser.fit(IMAGES, 1, LEVELS, key(), 60, ridge=0.0)
    assert "a larger ridge, for example 0.0001, or fewer features" in str(error.value)
    fitted = RandomPolynomialDenoiser.fit(IMAGES, 1, LEVELS, key(), 60, ridge=1e-3)
    assert bool(jnp.all(jnp.isfinite(fitted.coefficients)))


@pytest.mark.core
@pytest.mark.parametrize("fit", ["random", "patch"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"degree": 0}, ValueError, "degree must be at least 1; got 0"),
        ({"degree": 2.0}, TypeError, "degree must be a whole number"),
        ({"num_features": 0}, ValueError, "num_features.* must be at least 1; got 0"),
        ({"num_draws": 0}, ValueError, "num_draws must be at least 1; got 0"),
        ({"ridge": -1.0}, ValueError, r"ridge must be in \[0"),
        ({"key": 0}, TypeError, "key must be one typed key"),
        ({"sigmas": [0.1, 0.4]}, ValueError, "sigmas must decrease strictly"),
        ({"sigmas": [0.4, -0.1]}, ValueError, "sigmas must be positive noise levels"),
        ({"weights": -np.ones(40)}, ValueError, "weights must be finite and not negative"),
        ({"weights": np.ones(3)}, ValueError, r"weights must have shape \(40,\); got \(3,\)"),
        ({"weights": np.zeros(40)}, ValueError, "weights must not all be zero"),
        ({"images": np.full((40, *SHAPE), np.nan)}, ValueError, "images holds NaN"),
        ({"images": IMAGES.astype(int)}, TypeError, "images must be uint8, or float"),
    ],
)
def test_bad_input(fit, change, error, message):
    given = {"images": IMAGES, "degree": 3, "sigmas": [0.4], "key": key(), "num_features": 4}
    cls, more = RandomPolynomialDenoiser, {}
    if fit == "patch":
        cls, more = PatchPolynomialDenoiser, {"patch_sizes": (3,) * len(change.get("sigmas", [1]))}
    with pytest.raises(error, match=message):
        cls.fit(**{**given, **more, **change})


@pytest.mark.core
def test_images_of_weight_zero_are_not_counted_as_images():
    weights = np.arange(40) < 5
    few = RandomPolynomialDenoiser.fit(IMAGES[:5], 3, [0.4], key(), 8, ridge=1e-3)
    same = RandomPolynomialDenoiser.fit(IMAGES, 3, [0.4], key(), 8, weights, ridge=1e-3)
    # As many draws of the same noise: only the summation differs.
    np.testing.assert_allclose(
        call(same, Y, jnp.float32(0.4)), call(few, Y, jnp.float32(0.4)), atol=1e-4
    )


@pytest.mark.core
def test_one_key_never_gives_a_fit_and_sampling_or_training_the_same_noise():
    # A sample starts from fold(fold(fold(key, SAMPLE), i), 0), a fit draws from
    # fold(fold(fold(fold(key, FIT), level + 1), draw), number): without FIT these coincide.
    assert FIT not in (SAMPLE, TRAIN)
    fold = jax.random.fold_in
    start = [fold(fold(fold(key(), SAMPLE), i), 0) for i in range(4)]
    starts = np.stack([jax.random.normal(k, (30,)) for k in start])
    for level in range(2):
        drawn = np.concatenate([draws_of(level, draw, 2, 30) for draw in range(4)])
        assert np.abs(starts[:, None] - drawn).max(-1).min() > 0.1


def test_all_levels_share_a_compilation():
    compiled: Any = random_polynomial._block_sums
    compiled.clear_cache()
    RandomPolynomialDenoiser.fit(IMAGES, 3, [2.0, 0.9, 0.4, 0.1], key(), 11, ridge=1e-3)
    assert compiled._cache_size() == 1


@pytest.mark.parametrize("seed", range(4))
def test_one_feature_too_many_is_singular_too(seed):
    """31 features of degree 1 of 30 values: rank 30, the last direction only rounding."""
    with pytest.raises(ValueError, match="31 features is singular"):
        RandomPolynomialDenoiser.fit(IMAGES, 1, [2.0], jax.random.key(seed), 31, ridge=0.0)
