"""The affine denoiser against the formula with a D x D inverse, in float64."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff.denoisers import LinearDenoiser

call = jax.jit(lambda denoiser, y, sigma: denoiser(y, sigma))


def direct(
    images: np.ndarray, y: np.ndarray, sigma: float, p: np.ndarray, rank: int | None
) -> np.ndarray:
    """mu + S (S + sigma^2 I)^-1 (y - mu), S cut to its leading eigenpairs."""
    x = images.reshape(len(images), -1).astype(np.float64) / 127.5 - 1
    mu = p @ x
    s = (x - mu).T @ ((x - mu) * p[:, None])
    values, vectors = np.linalg.eigh(s)
    if rank is not None:
        s = (vectors[:, -rank:] * values[-rank:]) @ vectors[:, -rank:].T
    w = s @ np.linalg.inv(s + sigma**2 * np.eye(len(s)))
    flat = y.reshape(len(y), -1).astype(np.float64)
    return (mu + (flat - mu) @ w.T).reshape(y.shape)


@pytest.mark.core
@pytest.mark.parametrize("num", [200, 20], ids=["N > D", "N < D"])
@pytest.mark.parametrize("rank", [None, 1, 7])
@pytest.mark.parametrize("sigma", [50.0, 1.0, 0.02])
@pytest.mark.parametrize("weighted", [False, True])
def test_against_the_direct_formula(
    num: int, rank: int | None, sigma: float, weighted: bool, rng: np.random.Generator
) -> None:
    images = rng.integers(0, 256, (num, 4, 5, 3), dtype=np.uint8)
    weights = rng.uniform(0.1, 1, num) if weighted else np.ones(num)
    y = rng.normal(size=(6, 4, 5, 3)).astype(np.float32) * (1 + sigma)
    denoiser = LinearDenoiser.fit(images, rank=rank, weights=weights if weighted else None)
    expected = direct(images, y, sigma, weights / weights.sum(), rank)
    # Values up to a few hundred at sigma 50: relative to that, float32 rounding of two products.
    np.testing.assert_allclose(
        call(denoiser, y, jnp.float32(sigma)), expected, rtol=1e-4, atol=1e-4
    )


def test_a_different_sigma_a_row(rng: np.random.Generator) -> None:
    denoiser = LinearDenoiser.fit(rng.integers(0, 256, (50, 4, 4, 1), dtype=np.uint8))
    y = rng.normal(size=(2, 4, 4, 1)).astype(np.float32)
    both = call(denoiser, y, jnp.asarray([0.1, 5.0]))
    for i, sigma in enumerate((0.1, 5.0)):
        np.testing.assert_allclose(
            both[i], call(denoiser, y[i : i + 1], jnp.float32(sigma))[0], atol=1e-5
        )


def test_full_rank_limits(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (300, 4, 4, 1), dtype=np.uint8)
    denoiser = LinearDenoiser.fit(images)
    y = rng.normal(size=(5, 4, 4, 1)).astype(np.float32)
    np.testing.assert_allclose(call(denoiser, y, jnp.float32(1e-3)), y, atol=1e-3)
    mean = (images.astype(np.float64) / 127.5 - 1).mean(0)
    np.testing.assert_allclose(call(denoiser, y, jnp.float32(1e4))[0], mean, atol=1e-4)


def test_identical_images_are_returned() -> None:
    images = np.full((5, 3, 3, 1), 40, np.uint8)
    x_hat = LinearDenoiser.fit(images)(jnp.ones((2, 3, 3, 1)), jnp.float32(0.5))
    np.testing.assert_allclose(x_hat, np.full((2, 3, 3, 1), 40 / 127.5 - 1), atol=1e-6)


def test_basis_is_orthonormal_and_eigenvalues_decrease(rng: np.random.Generator) -> None:
    denoiser = LinearDenoiser.fit(rng.integers(0, 256, (12, 6, 6, 1), dtype=np.uint8))
    basis, values = np.asarray(denoiser.basis), np.asarray(denoiser.eigenvalues)
    # Centring N = 12 images leaves rank 11.
    assert basis.shape == (36, 11)
    np.testing.assert_allclose(basis.T @ basis, np.eye(11), atol=1e-5)
    assert np.all(np.diff(values) <= 1e-6)
    assert values[10] > 1e-3


def test_images_of_weight_zero_do_not_exist(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (60, 6, 6, 1), dtype=np.uint8)
    few = LinearDenoiser.fit(images[:5])
    same = LinearDenoiser.fit(images, weights=np.repeat([1.0, 0.0], [5, 55]))
    assert same.basis.shape == few.basis.shape == (36, 4)
    y = rng.normal(size=(3, 6, 6, 1)).astype(np.float32)
    # The same four axes, found the same way: float32 rounding of values near 1.
    np.testing.assert_allclose(
        call(same, y, jnp.float32(0.5)), call(few, y, jnp.float32(0.5)), atol=1e-6
    )
    with pytest.raises(ValueError, match="rank must be from 1 to 4; got 5"):
        LinearDenoiser.fit(images, rank=5, weights=np.repeat([1.0, 0.0], [5, 55]))


def test_more_values_than_images_needs_no_square_matrix(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    tracemalloc.start()
    denoiser = LinearDenoiser.fit(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert denoiser.basis.shape == (12_288, 39)
    # 12,288 x 12,288 float64 values are 1.2 GB; what is needed is a few times N x D.
    assert peak < 50e6


@pytest.mark.parametrize(
    ("rank", "error", "message"),
    [
        (0, ValueError, "rank must be from 1 to 4; got 0"),
        (5, ValueError, "rank must be from 1 to 4; got 5"),
        (2.5, TypeError, "rank must be a whole number; got 2.5"),
    ],
)
def test_bad_rank(rank: object, error: type, message: str, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (5, 4, 4, 1), dtype=np.uint8)
    with pytest.raises(error, match=message):
        LinearDenoiser.fit(images, rank=rank)  # pyright: ignore[reportArgumentType]


def test_labels_are_refused(rng: np.random.Generator) -> None:
    denoiser = LinearDenoiser.fit(rng.integers(0, 256, (5, 4, 4, 1), dtype=np.uint8))
    with pytest.raises(ValueError, match="labels must be None: LinearDenoiser has no classes"):
        denoiser(jnp.zeros((1, 4, 4, 1)), jnp.float32(1.0), jnp.zeros(1, int))
