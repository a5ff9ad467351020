import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import denoisers
from jdiff.metrics.jacobian import jacobian_eigen

KEY = lambda: jax.random.key(0)


def matrix(a: np.ndarray):
    """D(y) = A y on 6 x 6 images."""
    a32 = jnp.asarray(a, jnp.float32)
    times = lambda y: jnp.matmul(y.reshape(len(y), -1), a32.T, precision="highest")
    return lambda y, sigma: times(y).reshape(y.shape)


Y = np.random.default_rng(0).normal(size=(6, 6, 1))


def agrees(found, a: np.ndarray, k: int) -> None:
    """`found` are the k largest eigenpairs of (a + a^T)/2, and say how far a is from it."""
    symmetric = (a + a.T) / 2
    values = np.linalg.eigvalsh(symmetric)[::-1][:k]
    # Products are float32: 1e-6 of the largest eigenvalue; and |S u - l u| bounds the error.
    largest = np.abs(np.linalg.eigvalsh(symmetric)).max()
    np.testing.assert_allclose(found.values, values, atol=3e-4 * largest + 1e-12)
    u = found.vectors.reshape(k, -1).T
    np.testing.assert_allclose(u.T @ u, np.eye(k), atol=1e-10)
    residuals = np.linalg.norm(symmetric @ u - u * found.values, axis=0)
    np.testing.assert_allclose(found.residuals, residuals, atol=3e-6 * largest)
    assert np.all(residuals <= 2e-4 * largest)
    forward, backward = np.linalg.norm(a @ u, axis=0), np.linalg.norm(a.T @ u, axis=0)
    apart = np.linalg.norm(a @ u - a.T @ u, axis=0)
    expected = apart / np.maximum(np.maximum(forward, backward), 1e-30)
    clear = np.maximum(forward, backward) > 1e-3 * largest
    np.testing.assert_allclose(found.asymmetry[clear], expected[clear], atol=3e-3)


@pytest.mark.core
@pytest.mark.parametrize("k", [1, 4, 36])
def test_eigenpairs_of_a_matrix_that_is_not_symmetric(k, rng):
    a = rng.normal(size=(36, 36))
    found = jacobian_eigen(matrix(a), Y, 1.0, k, key=KEY())
    agrees(found, a, k)
    assert np.all(found.asymmetry[:1] > 0.1)


@pytest.mark.core
def test_eigenpairs_of_a_bent_denoiser_are_those_of_its_full_jacobian(rng):
    a = jnp.asarray(rng.normal(size=(36, 36)) / 6, jnp.float32)
    bent = lambda y, sigma: jnp.tanh(matrix(np.asarray(a))(y, sigma) * sigma) + 0.1 * y
    y = jnp.asarray(Y, jnp.float32)
    full = jax.jacobian(lambda y: bent(y[None], 0.7)[0])(y).reshape(36, 36)
    agrees(jacobian_eigen(bent, Y, 0.7, 3, key=KEY()), np.asarray(full, np.float64), 3)


@pytest.mark.parametrize(
    "spectrum",
    [
        np.zeros(36),
        np.ones(36),
        np.r_[0.9, np.zeros(35)],
        np.r_[0.9, 0.9, 0.9, np.linspace(0.5, 0, 33)],
        np.r_[0.2, np.zeros(34), -5.0],
        np.full(36, -1.0),
        np.r_[1e-12, 1e-13, np.zeros(34)],
    ],
    ids=["zero", "one", "rank 1", "repeated", "negative", "all negative", "tiny"],
)
def test_spectra_that_end_or_repeat(spectrum, rng):
    q = np.linalg.qr(rng.normal(size=(36, 36)))[0]
    a = (q * spectrum) @ q.T
    agrees(jacobian_eigen(matrix(a), Y, 1.0, 3, key=KEY()), a, 3)


@pytest.mark.core
@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_the_linear_denoisers_are_its_gains(sigma, digits):
    linear = denoisers.LinearDenoiser.fit(digits[0])
    y = digits[1][0] / 127.5 - 1
    found = jacobian_eigen(linear, y, sigma, 5, key=KEY())
    l = np.sort(np.asarray(linear.eigenvalues, np.float64))[::-1][:5]
    # The stop is at 1e-4 of the largest; eigenvalues are far nearer than that to the truth.
    np.testing.assert_allclose(found.values, l / (l + sigma**2), rtol=1e-4)
    assert np.all(found.asymmetry < 1e-5)


def test_sigma_squared_j_of_the_optimal_denoiser_is_the_posterior_covariance(digits):
    train, sigma = digits[0][:40], 1.0
    optimal = denoisers.OptimalDenoiser.fit(train)
    y = train[3] / 127.5 - 1 + sigma * np.random.default_rng(1).normal(size=(8, 8, 1))
    x = (train / 127.5 - 1).reshape(40, -1)
    logits = -np.square(x - y.ravel()).sum(axis=1) / (2 * sigma**2)
    p = np.exp(logits - logits.max())
    p /= p.sum()
    centred = x - p @ x
    j = (centred * p[:, None]).T @ centred / sigma**2
    agrees(jacobian_eigen(optimal, y, sigma, 4, key=KEY()), j, 4)


def test_large_images_take_few_products():
    def blurred(y, sigma):  # 3,072 values, gains from 1 down; circular
        gains = 1 / (1 + 400 * (np.fft.fftfreq(32)[:, None] ** 2 + np.fft.rfftfreq(32) ** 2))
        spectrum = jnp.fft.rfft2(y, axes=(1, 2)) * jnp.asarray(gains[None, :, :, None], jnp.float32)
        return jnp.fft.irfft2(spectrum, axes=(1, 2))

    y = np.zeros((32, 32, 3))
    found = jacobian_eigen(blurred, y, 1.0, 5, key=KEY())
    # Each frequency once a channel, and each but 0 in four directions: 3 ones, then a 12-fold one.
    second = 1 / (1 + 400 / 32**2)
    np.testing.assert_allclose(found.values, [1, 1, 1, second, second], atol=1e-4)
    assert found.num_products < 200


def test_the_start_does_not_matter(rng):
    a = rng.normal(size=(36, 36))
    one, other = (jacobian_eigen(matrix(a), Y, 1.0, 2, key=jax.random.key(s)) for s in (1, 2))
    np.testing.assert_allclose(one.values, other.values, atol=1e-3)
    assert not np.array_equal(one.vectors, other.vectors)


DIGIT = np.zeros((8, 8, 1))
half = lambda y, sigma: y / 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: jacobian_eigen(half, DIGIT[None], 1.0, 2, key=KEY()), "y must be one image"),
        (lambda: jacobian_eigen(half, DIGIT * np.nan, 1.0, 2, key=KEY()), "y must be finite"),
        (lambda: jacobian_eigen(half, DIGIT, 0.0, 2, key=KEY()), "sigma must be in"),
        (lambda: jacobian_eigen(half, DIGIT, 1.0, 65, key=KEY()), "k must be from 1 to 64; got 65"),
        (
            lambda: jacobian_eigen(half, DIGIT, 1.0, 4, key=KEY(), max_products=3),
            "max_products must be at least 4",
        ),
        (
            lambda: jacobian_eigen(
                denoisers.wrap(half, (8, 8, 1), sigmas=[2.0]), DIGIT, 1.0, 2, key=KEY()
            ),
            "sigmas asks for level 1, but",
        ),
        (
            lambda: jacobian_eigen(denoisers.wrap(half, (4, 8, 1)), DIGIT, 1.0, 2, key=KEY()),
            r"y must be one image of shape \(4, 8, 1\)",
        ),
        (
            lambda: jacobian_eigen(lambda y, s: jnp.sqrt(y), DIGIT, 1.0, 2, key=KEY()),
            "finite derivatives",
        ),
    ],
)
def test_refuses(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_refuses_other_types():
    with pytest.raises(TypeError, match="denoiser must be a callable"):
        jacobian_eigen(None, DIGIT, 1.0, 2, key=KEY())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="y must be a noisy image, float"):
        jacobian_eigen(half, DIGIT.astype(np.uint8), 1.0, 2, key=KEY())


def test_says_when_it_did_not_converge(rng):
    a = rng.normal(size=(36, 36))
    with pytest.raises(RuntimeError, match=r"after 8 products \|S u - l u\| is .* max_products"):
        jacobian_eigen(matrix(a), Y, 1.0, 2, key=KEY(), max_products=8)
