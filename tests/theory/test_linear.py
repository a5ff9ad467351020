"""The law of local windows against dense products in float64, and what it refuses."""

import itertools

import numpy as np
import pytest

from jdiff import noise
from jdiff.denoisers import LocalLinearDenoiser, PolynomialDenoiser
from jdiff.theory import law, linear

GRID = noise.karras(4, sigma_min=0.05, sigma_max=10.0)


def fitted(shape, k):
    rng = np.random.default_rng(1)
    return LocalLinearDenoiser.fit(rng.integers(0, 256, (40, *shape), dtype=np.uint8), patch_size=k)


def window_matrix(denoiser, sigma):
    """W_sigma [D, D], value by value."""
    height, width, channels = denoiser.image_shape
    k = denoiser.patch_size
    u, l = (np.asarray(a, np.float64) for a in (denoiser.basis, denoiser.eigenvalues))
    w = np.zeros((height, width, channels, height, width, channels))
    for i, j, c in np.ndindex(height, width, channels):
        p, own = i * width + j, (k * k // 2) * channels + c
        row = (u[p] * (l[p] / (l[p] + sigma**2))) @ u[p][own]
        for value, (a, b, e) in zip(row, np.ndindex(k, k, channels), strict=True):
            x, y = i + a - k // 2, j + b - k // 2
            if 0 <= x < height and 0 <= y < width:
                w[i, j, c, x, y, e] = value
    return w.reshape(height * width * channels, -1)


def covariance(matrix, sigmas, solver):
    """sigma_0^2 G G^T of dense steps, and the mean's G."""
    d = len(matrix(1.0))
    g, total, one = np.eye(d), float(sigmas[0]) ** 2 * np.eye(d), np.eye(d)
    for s, s_next in itertools.pairwise(sigmas.astype(np.float64)):
        w, r = matrix(s), s_next / s
        if s_next == 0:
            a, added = w, 0.0
        elif solver == "ddpm":
            a, added = w + r**2 * (one - w), s_next**2 * (1 - r**2)
        else:
            a, added = w + r * (one - w), 0.0
            if solver == "heun":
                slopes = (one - w) / s + (one - matrix(s_next)) @ a / s_next
                a = one + (s_next - s) / 2 * slopes
        g, total = a @ g, a @ total @ a.T + added * one
    return total, g


@pytest.mark.core
@pytest.mark.parametrize("solver", ["ddim", "heun", "ddpm"])
@pytest.mark.parametrize(("shape", "k"), [((6, 5, 1), 3), ((3, 4, 2), 5)], ids=["gray", "colour"])
def test_against_dense_products_however_sparse_the_way(shape, k, solver, monkeypatch):
    denoiser = fitted(shape, k)
    expected, g = covariance(lambda s: window_matrix(denoiser, s), GRID, solver)
    mu = np.asarray(denoiser.mean, np.float64)
    kinds, real = [], linear._filled
    monkeypatch.setattr(
        linear, "_filled", lambda a: kinds.append(isinstance(real(a), np.ndarray)) or real(a)
    )
    shares = {}
    for sparse in (0.0, 0.4, 1.0):
        kinds.clear()
        monkeypatch.setattr(linear, "_SPARSE", sparse)
        # One window at a time, too.
        monkeypatch.setattr(linear, "_BLOCK", 1 if sparse else 2**24)
        predicted = law(denoiser, GRID, solver)
        # The same float64 numbers in another order; variances up to 1.
        np.testing.assert_allclose(predicted.covariance, expected, atol=1e-12)
        np.testing.assert_allclose(predicted.mean.ravel(), mu - g @ mu, atol=1e-12)
        shares[sparse] = np.mean(kinds)
    assert shares[0.0] == 1  # arrays all the way
    assert shares[1.0] == 0  # sparse to the end
    assert shape[2] == 2 or 0 < shares[0.4] < 1


def test_one_pixel_for_itself_stays_diagonal():
    denoiser = fitted((4, 3, 1), 1)
    predicted = law(denoiser, GRID)
    l = np.asarray(denoiser.eigenvalues, np.float64).ravel()
    s = GRID.astype(np.float64)
    gain = np.prod([(l + a * b) / (l + a**2) for a, b in itertools.pairwise(s)], axis=0)
    np.testing.assert_allclose(predicted.covariance, np.diag((s[0] * gain) ** 2), atol=1e-14)


@pytest.mark.parametrize("solver", ["ddim", "heun", "ddpm"])
def test_degree_one_against_dense_products(solver):
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (40, 3, 2, 2), dtype=np.uint8)
    denoiser = PolynomialDenoiser.fit(images, 1, GRID)
    c, scale = (np.asarray(a, np.float64) for a in (denoiser.coefficients, denoiser.scale))

    def matrix(sigma):
        t = int(np.argmin(np.abs(GRID[:-1] - sigma)))
        return (c[t, 1:] / scale[t][:, None]).T

    expected, _ = covariance(matrix, GRID, solver)
    np.testing.assert_allclose(law(denoiser, GRID, solver).covariance, expected, atol=1e-12)


def test_images_too_large_for_full_matrices_are_refused_at_once():
    denoiser = fitted((160, 128, 1), 1)
    message = (
        "the law of LocalLinearDenoiser on images of 20,480 values takes full matrices and window "
        "weights of 18.8 GiB together, more than 16 GiB; smaller images"
    )
    with pytest.raises(ValueError, match=message):
        law(denoiser, GRID)


def test_the_windows_weights_count_too(monkeypatch):
    denoiser = fitted((6, 6, 1), 3)
    needed = 6 * 8 * 36**2 + 8 * 4 * 36 * 9
    monkeypatch.setattr(linear, "MAX_BYTES", needed)
    law(denoiser, GRID)
    monkeypatch.setattr(linear, "MAX_BYTES", needed - 1)
    with pytest.raises(ValueError, match="the law of LocalLinearDenoiser on images of 36 values"):
        law(denoiser, GRID)
