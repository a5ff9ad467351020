"""The regression surface of a bottleneck against quadrature and against the real sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import jdiff
from jdiff import noise
from jdiff.denoisers import BottleneckDenoiser, wrap
from jdiff.theory import RegressionLaw

WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[-0.8, 0.3], [0.2, -0.5], [0.9, 0.6]])
COVARIANCES = np.array(
    [[[0.04, 0.01], [0.01, 0.02]], [[0.02, 0.0], [0.0, 0.05]], [[0.03, -0.02], [-0.02, 0.04]]]
)
AXIS = np.array([[0.8], [0.6]])
TARGET = RegressionLaw(WEIGHTS, MEANS, COVARIANCES, AXIS, (1, 1, 2))


@pytest.mark.core
@pytest.mark.parametrize("u", [-1.0, -0.2, 0.4, 1.3])
def test_the_curve_is_the_conditional_mean(u):
    """E[x | V^T x = u] by integrating the density along the line V^T x = u."""
    across = np.array([-0.6, 0.8])
    density = lambda t: sum(
        w * stats.multivariate_normal(m, c).pdf(u * AXIS[:, 0] + t * across)
        for w, m, c in zip(WEIGHTS, MEANS, COVARIANCES, strict=True)
    )
    total, first = (
        integrate.quad(lambda t, n=n: t**n * density(t), -4, 4, limit=200)[0] for n in (0, 1)
    )
    expected = u * AXIS[:, 0] + first / total * across
    np.testing.assert_allclose(TARGET.curve(np.array([[u]]))[0], expected, atol=1e-7)


def test_the_surface_in_more_dimensions(rng):
    """With V the whole space the surface is every point; its law the target."""
    d = 3
    a = rng.normal(size=(2, d, d)) * 0.2
    covariances = a @ a.transpose(0, 2, 1) + 0.01 * np.eye(d)
    whole = RegressionLaw([1, 1], rng.normal(size=(2, d)), covariances, np.eye(d), (1, 1, d))
    u = rng.normal(size=(6, d))
    np.testing.assert_allclose(whole.curve(u), u, atol=1e-10)
    assert whole.residual < 1e-10


def test_samples_of_the_best_bottleneck_denoiser_obey():
    """The exact denoiser E[x | V^T y] of the mixture through the real sampler."""
    weights, means = jnp.asarray(WEIGHTS, jnp.float32), jnp.asarray(MEANS, jnp.float32)
    covariances, axis = jnp.asarray(COVARIANCES, jnp.float32), jnp.asarray(AXIS[:, 0], jnp.float32)
    spread = jnp.einsum("d,kde,e->k", axis, covariances, axis)
    gain = jnp.einsum("kde,e->kd", covariances, axis)

    def denoise(y, sigma):
        u = y.reshape(-1, 2) @ axis
        off = u[:, None] - (means @ axis)[None]
        noisy = (spread + sigma**2)[None]
        p = jax.nn.softmax(jnp.log(weights)[None] - 0.5 * (off**2 / noisy + jnp.log(noisy)), 1)
        each = means[None] + gain[None] * (off / noisy)[..., None]
        return jnp.sum(p[..., None] * each, 1).reshape(y.shape)

    grid = noise.karras(200, sigma_min=0.002, sigma_max=80.0)
    samples = jdiff.sample(wrap(denoise, (1, 1, 2)), jax.random.key(0), 2000, sigmas=grid,
                           solver="heun")  # fmt: skip
    found = TARGET.check(samples)
    assert found.passed, str(found)
    y = np.asarray(samples).reshape(-1, 2)[:5]
    np.testing.assert_allclose(
        TARGET.denoise(y, 0.3).astype(np.float32),
        np.asarray(denoise(jnp.asarray(y.reshape(-1, 1, 1, 2)), jnp.float32(0.3))).reshape(-1, 2),
        atol=1e-5,
    )
    # The target itself is no curve, and a line is not this curve.
    target = TARGET._target(jax.random.key(1), 2000).reshape(-1, 1, 1, 2)
    assert TARGET.check(target).failed == ("on surface",)
    line = np.linspace(-1, 1, 2000)[:, None] * AXIS[:, 0]
    line = line.reshape(-1, 1, 1, 2)
    assert set(TARGET.check(line).failed) == {"on surface", "codes"}


def test_codes_of_two_numbers_must_fall_together_as_the_targets_do(rng):
    a = rng.normal(size=(3, 3, 3)) * 0.3
    covariances = a @ a.transpose(0, 2, 1) + 0.02 * np.eye(3)
    basis = np.linalg.qr(rng.normal(size=(3, 2)))[0]
    predicted = RegressionLaw([1, 2, 1], rng.normal(size=(3, 3)), covariances, basis, (1, 1, 3))
    samples = np.asarray(predicted.sample(jax.random.key(8), 1000), np.float64)
    found = predicted.check(samples.astype(np.float32))
    assert found.passed, str(found)
    # Each number of the code as predicted, on the surface, but the two drawn independently.
    u = samples.reshape(-1, 3) @ basis
    shuffled = np.stack([u[:, 0], rng.permutation(u[:, 1])], 1)
    wrong = predicted.curve(shuffled).reshape(-1, 1, 1, 3)
    assert predicted.check(wrong).failed == ("codes",)
    # Not at the conditional mean: the best linear guess instead.
    slope = np.linalg.lstsq(u - u.mean(0), samples.reshape(-1, 3) - samples.reshape(-1, 3).mean(0))
    flat = samples.reshape(-1, 3).mean(0) + (u - u.mean(0)) @ slope[0]
    assert "on surface" in predicted.check(flat.reshape(-1, 1, 1, 3)).failed


@pytest.mark.optimized  # 20,000 points, 300 samples: runs longer than it compiles
def test_many_training_points_come_near_the_curve():
    """A finite set stopped at a last sigma that smooths over its points: kernel regression."""
    points = TARGET._target(jax.random.key(2), 20_000).astype(np.float32).reshape(-1, 1, 1, 2)
    denoiser = BottleneckDenoiser.fit(points, 1, decoder="posterior")
    fitted = RegressionLaw(WEIGHTS, MEANS, COVARIANCES, np.asarray(denoiser.basis), (1, 1, 2))
    grid = noise.karras(40, sigma_min=0.02, sigma_max=80.0)
    samples = jdiff.sample(denoiser, jax.random.key(0), 300, sigmas=grid, solver="heun")
    found = fitted.check(samples)
    # Smoothed by 0.02 and by 20,000 points: a tenth of the target's own distance, not 5 %.
    assert found.row("on surface").statistic < 0.15
    linear = jdiff.sample(BottleneckDenoiser.fit(points, 1), jax.random.key(0), 300, sigmas=grid)
    assert fitted.check(linear).row("on surface").statistic > 0.4


def test_moments(rng):
    draws = np.asarray(TARGET.sample(jax.random.key(5), 50_000), np.float64).reshape(-1, 2)
    np.testing.assert_allclose(draws.mean(0), TARGET.mean.reshape(-1), atol=0.012)
    np.testing.assert_allclose(np.cov(draws.T), TARGET.covariance, atol=0.02)
    assert TARGET.eigenvalues[0] >= TARGET.eigenvalues[1] >= 0


@pytest.mark.core
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [1, -1, 1]}, "weights must be finite and not negative"),
        ({"means": MEANS[:, :1]}, r"means must have shape \(3, 2\); got \(3, 1\)"),
        ({"covariances": COVARIANCES[:2]}, r"covariances must have shape \(3, 2, 2\)"),
        ({"basis": np.ones((2, 1))}, "basis must have orthonormal columns"),
        ({"basis": np.ones((3, 1))}, r"basis must have shape \(2, r\); got \(3, 1\)"),
        ({"covariances": 0 * COVARIANCES}, "covariances must be positive definite along"),
    ],
)
def test_bad_targets(change, message):
    given = {"weights": WEIGHTS, "means": MEANS, "covariances": COVARIANCES, "basis": AXIS}
    with pytest.raises(ValueError, match=message):
        RegressionLaw(**{**given, **change}, image_shape=(1, 1, 2))
