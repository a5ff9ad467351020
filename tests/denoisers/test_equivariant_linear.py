"""The circular filter against least squares over explicitly shifted images, in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdiff
from jdiff.denoisers import EquivariantLinearDenoiser, LinearDenoiser

call = jax.jit(lambda denoiser, y, sigma: denoiser(y, sigma))
transfer = jax.jit(lambda denoiser, sigma: denoiser.transfer(sigma))


def correlated(rng: np.random.Generator, num: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Images uint8 whose values are strongly and differently correlated.

    The channels differ and are shifted against each other, so that a filter turned round is wrong.
    """
    d = int(np.prod(shape))
    x = rng.normal(size=(num, d)) @ rng.normal(size=(d, d)) / np.sqrt(d)
    x = x.reshape(num, *shape)
    x = x + np.roll(x, 1, (2, 3)) + np.arange(shape[2]) / 2
    return np.rint((np.tanh(x / 2) + 1) * 127.5).astype(np.uint8)


def centered(
    images: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The channels' means [C], x - mu [N, H, W, C] in model units and p [N]."""
    x = images.astype(np.float64) / 127.5 - 1
    p = np.full(len(x), 1 / len(x)) if weights is None else weights / weights.sum()
    mu = np.tensordot(p, x.mean((1, 2)), 1)
    return mu, x - mu, p


def offsets(shape: tuple[int, int, int], k: int | None) -> list[tuple[int, int]]:
    """The taps, the centre among them: k x k about (0, 0), or every place of the torus."""
    if k is None:
        return list(itertools.product(range(shape[0]), range(shape[1])))
    side = range(-(k // 2), k // 2 + 1)
    return list(itertools.product(side, side))


def ahead(x: np.ndarray, taps: list[tuple[int, int]]) -> np.ndarray:
    """What position p sees: x_{p+d} for all taps d, [N, H, W, taps * C]."""
    return np.concatenate([np.roll(x, (-a, -b), (1, 2)) for a, b in taps], -1)


def direct(
    x: np.ndarray, p: np.ndarray, k: int | None, sigma: float
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The filter [taps * C, C] of the normal equations over all images and positions."""
    taps = offsets(x.shape[1:], k)
    windows = ahead(x, taps)
    scale = p[:, None, None, None] / (x.shape[1] * x.shape[2])
    gram = np.einsum("nijk,nijl->kl", windows, windows * scale, optimize=True)
    cross = np.einsum("nijk,nijc->kc", windows, x * scale, optimize=True)
    return np.linalg.solve(gram + sigma**2 * np.eye(len(gram)), cross), taps


def matrix(denoiser: EquivariantLinearDenoiser, sigma: float) -> np.ndarray:
    """W [D, D] of the denoiser itself, by pushing the basis vectors through it."""
    shape = denoiser.image_shape
    mean = denoiser.mean[None, None, None]
    d = int(np.prod(shape))
    x_hat = call(denoiser, mean + jnp.eye(d).reshape(d, *shape), jnp.float32(sigma)) - mean
    return np.asarray(x_hat, np.float64).reshape(d, d).T


def loss(w: np.ndarray, s: np.ndarray, sigma: float) -> float:
    """E|x - W (x + sigma z)|^2, x about the constant, S its second moments."""
    return float(np.trace(s - 2 * w @ s + w @ (s + sigma**2 * np.eye(len(s))) @ w.T))


GRAY, COLOUR = (6, 5, 1), (5, 4, 3)


@pytest.mark.core
@pytest.mark.parametrize(
    ("shape", "k"), [(GRAY, None), (GRAY, 1), (GRAY, 5), (COLOUR, None), (COLOUR, 1), (COLOUR, 3)]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_against_least_squares_over_shifted_images(
    shape: tuple[int, int, int], k: int | None, weighted: bool, rng: np.random.Generator
) -> None:
    images = correlated(rng, 20, shape)
    weights = rng.uniform(0.1, 1, len(images)) if weighted else None
    denoiser = EquivariantLinearDenoiser.fit(images, patch_size=k, weights=weights)
    mu, x, p = centered(images, weights)
    np.testing.assert_allclose(denoiser.mean, mu, atol=1e-6)
    for sigma in (50.0, 1.0, 0.02):
        y = rng.normal(size=(4, *shape)).astype(np.float32) * (1 + sigma)
        w, taps = direct(x, p, k, sigma)
        expected = mu + ahead(y - mu, taps) @ w
        # Values up to a few hundred at sigma 50: float32 rounding of two transforms relative to
        # that.
        np.testing.assert_allclose(
            call(denoiser, y, jnp.float32(sigma)), expected, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("shape", [(6, 4, 2), (5, 4, 3), (3, 3, 1), (1, 6, 2)])
def test_the_spectral_fields(shape: tuple[int, int, int], rng: np.random.Generator) -> None:
    images = correlated(rng, 12, shape)
    denoiser = EquivariantLinearDenoiser.fit(images)
    u, l = np.asarray(denoiser.basis), np.asarray(denoiser.eigenvalues)
    height, width, channels = shape
    assert u.shape == (height, width, channels, channels)
    assert u.dtype == np.complex64
    assert l.shape == shape
    assert l.min() >= 0
    assert (denoiser.patch_size, denoiser.image_shape, denoiser.sigmas) == (None, shape, None)
    # The mean power by two matrices of the unitary DFT.
    _, x, p = centered(images)
    rows, columns = (
        np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) / np.sqrt(n)
        for n in (height, width)
    )
    f = np.einsum("ai,bj,nijc->nabc", rows, columns, x)
    power = np.einsum("n,nabc,nabd->abcd", p, f, f.conj())
    np.testing.assert_allclose(
        (u * l[..., None, :]) @ np.conj(u.swapaxes(-1, -2)), power, atol=1e-5
    )
    np.testing.assert_allclose(l.sum(), np.mean(np.sum(x**2, (1, 2, 3))), rtol=1e-5)
    # Conjugates at f and -f, exactly; so at f = -f they are real.
    for a, b in np.ndindex(height, width):
        np.testing.assert_array_equal(u[-a % height, -b % width], u[a, b].conj())
        np.testing.assert_array_equal(l[-a % height, -b % width], l[a, b])
    assert not u[0, 0].imag.any()


def test_the_autocovariance_fields(rng: np.random.Generator) -> None:
    images = correlated(rng, 12, (4, 6, 2))
    denoiser = EquivariantLinearDenoiser.fit(images, patch_size=3)
    basis, values = np.asarray(denoiser.basis), np.asarray(denoiser.eigenvalues)
    assert basis.shape == (18, 18)
    assert basis.dtype == np.float32
    assert values.shape == (18,)
    assert values.min() >= 0
    assert denoiser.patch_size == 3
    # From the definition, in the order (row offset, column offset, channel), by loops.
    _, x, _ = centered(images)
    entries = [(a, b, c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (0, 1)]
    place = lambda i, j, e: (slice(None), (i + e[0]) % 4, (j + e[1]) % 6, e[2])
    r = [
        [
            np.mean([x[place(i, j, e)] * x[place(i, j, f)] for i, j in np.ndindex(4, 6)])
            for f in entries
        ]
        for e in entries
    ]
    np.testing.assert_allclose((basis * values) @ basis.T, r, atol=1e-6)
    np.testing.assert_allclose(basis.T @ basis, np.eye(18), atol=1e-6)


@pytest.mark.core
@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("shape", [GRAY, COLOUR], ids=["gray", "colour"])
def test_a_shifted_image_is_denoised_to_the_shifted_answer(
    k: int | None, shape: tuple[int, int, int], rng: np.random.Generator
) -> None:
    denoiser = EquivariantLinearDenoiser.fit(correlated(rng, 30, shape), patch_size=k)
    y = rng.normal(size=(2, *shape)).astype(np.float32)
    x_hat = np.asarray(call(denoiser, y, jnp.float32(0.5)))
    # The filter did something, and its answer is no constant.
    assert np.abs(x_hat - y).max() > 0.1
    assert np.ptp(x_hat[0, ..., 0]) > 0.1
    for shift in ((1, 0), (0, 1), (3, 2), (-1, 3)):
        moved = np.roll(y, shift, (1, 2))
        # float32 rounding of two transforms of values near 1.
        np.testing.assert_allclose(
            call(denoiser, moved, jnp.float32(0.5)), np.roll(x_hat, shift, (1, 2)), atol=3e-6
        )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_filter_of_the_image_s_size_is_the_spectral_one(
    channels: int, rng: np.random.Generator
) -> None:
    images = correlated(rng, 20, (5, 5, channels))
    y = rng.normal(size=(3, 5, 5, channels)).astype(np.float32)
    fit = lambda k: EquivariantLinearDenoiser.fit(images, patch_size=k)
    for sigma in (2.0, 0.1):
        expected = call(fit(None), y, jnp.float32(sigma))
        np.testing.assert_allclose(call(fit(5), y, jnp.float32(sigma)), expected, atol=1e-5)
        assert np.abs(call(fit(3), y, jnp.float32(sigma)) - expected).max() > 1e-3


@pytest.mark.parametrize("k", [None, 1])
def test_an_image_of_one_pixel_has_the_affine_denoiser(
    k: int | None, rng: np.random.Generator
) -> None:
    points = rng.normal(size=(50, 1, 1, 3)) @ rng.normal(size=(3, 3))
    weights = rng.uniform(0.1, 1, 50)
    denoiser = EquivariantLinearDenoiser.fit(points, patch_size=k, weights=weights)
    affine = LinearDenoiser.fit(points, weights=weights)
    y = rng.normal(size=(4, 1, 1, 3)).astype(np.float32)
    np.testing.assert_allclose(
        call(denoiser, y, jnp.float32(0.5)), call(affine, y, jnp.float32(0.5)), atol=1e-5
    )


def test_a_filter_of_one_tap_shrinks_towards_the_constant(rng: np.random.Generator) -> None:
    images = correlated(rng, 30, (4, 5, 1))
    y = rng.normal(size=(2, 4, 5, 1)).astype(np.float32)
    x = images / 127.5 - 1
    expected = x.mean() + x.var() / (x.var() + 0.25) * (y - x.mean())
    denoiser = EquivariantLinearDenoiser.fit(images, patch_size=1)
    np.testing.assert_allclose(call(denoiser, y, jnp.float32(0.5)), expected, atol=1e-6)


@pytest.mark.parametrize("k", [None, 3])
def test_identical_constant_images_are_returned(k: int | None) -> None:
    images = np.full((5, 3, 4, 1), 40, np.uint8)
    denoiser = EquivariantLinearDenoiser.fit(images, patch_size=k)
    x_hat = denoiser(jnp.ones((2, 3, 4, 1)), jnp.float32(0.5))
    np.testing.assert_allclose(x_hat, np.full((2, 3, 4, 1), 40 / 127.5 - 1), atol=1e-6)


@pytest.mark.core
def test_the_power_of_the_digits() -> None:
    data = jdiff.data.load("digits")
    images = np.concatenate([data.images, data.held_out])
    x = images.astype(np.float64) / 127.5 - 1
    power = np.asarray(EquivariantLinearDenoiser.fit(images).eigenvalues, np.float64).sum()
    variance = np.asarray(LinearDenoiser.fit(images).eigenvalues, np.float64).sum()
    # theory.md, section 2, of all 1,797 images: 36.2 about the constant, 18.8 about the mean image.
    assert len(images) == 1797
    assert round(power, 1) == 36.2
    assert round(variance, 1) == 18.8
    np.testing.assert_allclose(power, 64 * x.var(), rtol=1e-5)
    np.testing.assert_allclose(variance, x.var(0).sum(), rtol=1e-5)


@pytest.mark.parametrize("sigma", [2.0, 0.1])
@pytest.mark.parametrize("channels", [1, 2])
def test_no_other_filter_has_a_smaller_loss(
    sigma: float, channels: int, rng: np.random.Generator
) -> None:
    shape = (5, 5, channels)
    images = correlated(rng, 30, shape)
    _, x, p = centered(images)
    flat = x.reshape(len(x), -1)
    s = flat.T @ (flat * p[:, None])
    losses = []
    for k in (1, 3, None):
        best = matrix(EquivariantLinearDenoiser.fit(images, patch_size=k), sigma)
        losses.append(loss(best, s, sigma))
        taps = offsets(shape, k)
        unit = np.eye(len(s)).reshape(len(s), *shape)
        for _ in range(10):
            w = 0.01 * rng.normal(size=(len(taps) * channels, channels))
            change = (ahead(unit, taps) @ w).reshape(len(s), -1).T
            assert loss(best + change, s, sigma) > losses[-1]
    # Every larger filter is better, and a filter a pixel (the twin: not equivariant) still more.
    affine = s @ np.linalg.inv(s + sigma**2 * np.eye(len(s)))
    assert np.all(np.diff([*losses, loss(affine, s, sigma)]) < 0)


@pytest.mark.parametrize(("shape", "k"), [(GRAY, None), (GRAY, 3), (COLOUR, None), (COLOUR, 3)])
def test_the_transfer_is_the_spectrum_of_the_impulse_response(
    shape: tuple[int, int, int], k: int | None, rng: np.random.Generator
) -> None:
    denoiser = EquivariantLinearDenoiser.fit(correlated(rng, 20, shape), patch_size=k)
    t = np.asarray(transfer(denoiser, jnp.float32(0.5)))
    height, width, channels = shape
    assert t.shape == (height, width // 2 + 1, channels, channels)
    assert t.dtype == np.complex64
    # Column c: the response to an impulse of channel c at the origin.
    response = matrix(denoiser, 0.5)[:, :channels].reshape(height, width, channels, channels)
    np.testing.assert_allclose(t, np.fft.rfft2(response, axes=(0, 1)), atol=1e-5)
    if k is not None:
        # No response further away than k // 2 on the torus.
        far = np.ones((height, width), bool)
        for a, b in offsets(shape, k):
            far[a, b] = False
        assert far.any()
        np.testing.assert_allclose(response[far], 0, atol=1e-6)


@pytest.mark.core
@pytest.mark.parametrize("k", [None, 3])
def test_a_different_sigma_a_row(k: int | None, rng: np.random.Generator) -> None:
    denoiser = EquivariantLinearDenoiser.fit(correlated(rng, 20, COLOUR), patch_size=k)
    y = rng.normal(size=(3, *COLOUR)).astype(np.float32)
    together = call(denoiser, y, jnp.asarray([0.1, 5.0, 0.5]))
    for i, sigma in enumerate((0.1, 5.0, 0.5)):
        alone = call(denoiser, y, jnp.float32(sigma))[i]
        np.testing.assert_allclose(together[i], alone, atol=1e-5)
    assert np.abs(together - call(denoiser, y, jnp.float32(0.1))).max() > 0.1
    # Eager agrees with jitted.
    np.testing.assert_allclose(
        denoiser(jnp.asarray(y), jnp.float32(5.0))[1], together[1], atol=1e-5
    )


def test_two_fits_share_one_compilation(rng: np.random.Generator) -> None:
    traces = []

    @jax.jit
    def counted(denoiser: EquivariantLinearDenoiser, y: jax.Array, sigma: jax.Array) -> jax.Array:
        traces.append(denoiser.patch_size)
        return denoiser(y, sigma)

    y = jnp.ones((2, 4, 4, 1))
    first, second = (correlated(rng, n, (4, 4, 1)) for n in (30, 40))
    for k in (None, 3):
        counted(EquivariantLinearDenoiser.fit(first, patch_size=k), y, jnp.float32(1.0))
        counted(EquivariantLinearDenoiser.fit(second, patch_size=k), y, jnp.float32(2.0))
    assert traces == [None, 3]


@pytest.mark.parametrize("k", [None, 3])
def test_images_of_weight_zero_do_not_exist(k: int | None, rng: np.random.Generator) -> None:
    images = correlated(rng, 30, GRAY)
    few = EquivariantLinearDenoiser.fit(images[:20], patch_size=k)
    weights = np.repeat([2.0, 0.0], [20, 10])
    same = EquivariantLinearDenoiser.fit(images, patch_size=k, weights=weights)
    y = rng.normal(size=(3, *GRAY)).astype(np.float32)
    np.testing.assert_allclose(
        call(same, y, jnp.float32(0.5)), call(few, y, jnp.float32(0.5)), atol=1e-5
    )


@pytest.mark.parametrize(
    ("patch_size", "error", "message"),
    [
        (2, ValueError, "patch_size must be odd, from 1 to 4; got 2"),
        (5, ValueError, "patch_size must be from 1 to 4; got 5"),
        (0, ValueError, "patch_size must be from 1 to 4; got 0"),
        (3.0, TypeError, "patch_size must be a whole number; got 3.0"),
    ],
)
def test_bad_patch_size(
    patch_size: object, error: type, message: str, rng: np.random.Generator
) -> None:
    images = rng.integers(0, 256, (5, 4, 6, 1), dtype=np.uint8)
    with pytest.raises(error, match=message):
        EquivariantLinearDenoiser.fit(images, patch_size=patch_size)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("images", "weights", "error", "message"),
    [
        (np.zeros((4, 3, 3), np.uint8), None, ValueError, "images must have shape"),
        (np.zeros((4, 3, 3, 1), int), None, TypeError, "images must be uint8, or float"),
        (np.full((4, 3, 3, 1), np.nan), None, ValueError, "images holds NaN"),
        (np.full((4, 3, 3, 1), 2.0), None, ValueError, r"images must lie in \[-1, 1\]"),
        (np.zeros((4, 3, 3, 1), np.uint8), np.ones(3), ValueError, "weights must have shape"),
        (np.zeros((4, 3, 3, 1), np.uint8), [1, 1, 1, -1], ValueError, "weights must be finite"),
        (np.zeros((4, 3, 3, 1), np.uint8), np.zeros(4), ValueError, "weights must not all be"),
    ],
)
def test_bad_training_set(images: np.ndarray, weights: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        EquivariantLinearDenoiser.fit(images, weights=weights)


def test_bad_calls(rng: np.random.Generator) -> None:
    denoiser = EquivariantLinearDenoiser.fit(rng.integers(0, 256, (5, 4, 4, 1), dtype=np.uint8))
    y, one = jnp.zeros((2, 4, 4, 1)), jnp.float32(1.0)
    with pytest.raises(ValueError, match="labels must be None: EquivariantLinearDenoiser has no"):
        denoiser(y, one, jnp.zeros(2, int))
    with pytest.raises(ValueError, match=r"y must be a float array \[B, 4, 4, 1\]; got float32"):
        denoiser(y[:, :3], one)
    with pytest.raises(ValueError, match=r"sigma must be a scalar or \[2\]; got shape \(3,\)"):
        denoiser(y, jnp.ones(3))
    with pytest.raises(ValueError, match=r"sigma must be a scalar; got shape \(2,\)"):
        denoiser.transfer(jnp.ones(2))
