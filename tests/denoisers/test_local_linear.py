"""The local affine denoiser against per-pixel least squares with a dense matrix, in float64."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff.denoisers import LinearDenoiser, LocalLinearDenoiser, axes, local_linear

call = jax.jit(lambda denoiser, y, sigma: denoiser(y, sigma))
window_weights = jax.jit(lambda denoiser, sigma: denoiser.window_weights(sigma))


def correlated(rng: np.random.Generator, num: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Images uint8 whose values are strongly and differently correlated, no two pixels alike."""
    d = int(np.prod(shape))
    x = rng.normal(size=(num, d)) @ rng.normal(size=(d, d)) / np.sqrt(d) + rng.normal(size=d)
    return np.rint((np.tanh(x / 2) + 1) * 127.5).astype(np.uint8).reshape(num, *shape)


def moments(images: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and covariance [D, D] in model units."""
    x = images.reshape(len(images), -1).astype(np.float64) / 127.5 - 1
    p = np.full(len(x), 1 / len(x)) if weights is None else weights / weights.sum()
    mu = p @ x
    return mu, (x - mu).T @ ((x - mu) * p[:, None])


def seen(shape: tuple[int, int, int], k: int) -> np.ndarray:
    """Which values [D] (columns) the output [D] (rows) may depend on."""
    place = np.stack([a.ravel() for a in np.indices(shape)])
    apart = np.abs(place[:2, :, None] - place[:2, None])
    return np.all(apart <= k // 2, 0)


def direct(s: np.ndarray, allowed: np.ndarray, sigma: float) -> np.ndarray:
    """W [D, D]: row by row the normal equations of x_p on x_win + sigma z."""
    w = np.zeros_like(s)
    for p, window in enumerate(allowed):
        noisy = s[np.ix_(window, window)] + sigma**2 * np.eye(window.sum())
        w[p, window] = np.linalg.solve(noisy, s[window, p])
    return w


def matrix(denoiser: LocalLinearDenoiser, sigma: float) -> np.ndarray:
    """W [D, D] of the denoiser itself, by pushing the basis vectors through it."""
    d = len(denoiser.mean)
    y = denoiser.mean[None] + jnp.eye(d)
    x_hat = call(denoiser, y.reshape(d, *denoiser.image_shape), jnp.float32(sigma))
    return np.asarray(x_hat.reshape(d, d) - denoiser.mean[None], np.float64).T


def loss(w: np.ndarray, s: np.ndarray, sigma: float) -> float:
    """E|x - W (x + sigma z)|^2 about the mean."""
    return float(np.trace(s - 2 * w @ s + w @ (s + sigma**2 * np.eye(len(s))) @ w.T))


@pytest.mark.core
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("shape", [(6, 4, 1), (4, 5, 3)], ids=["gray", "colour"])
@pytest.mark.parametrize("weighted", [False, True])
def test_against_least_squares_a_pixel(
    k: int, shape: tuple[int, int, int], weighted: bool, rng: np.random.Generator
) -> None:
    images = correlated(rng, 150, shape)
    weights = rng.uniform(0.1, 1, len(images)) if weighted else None
    denoiser = LocalLinearDenoiser.fit(images, patch_size=k, weights=weights)
    mu, s = moments(images, weights)
    for sigma in (50.0, 1.0, 0.02):
        y = rng.normal(size=(6, *shape)).astype(np.float32) * (1 + sigma)
        w = direct(s, seen(shape, k), sigma)
        expected = mu + (y.reshape(6, -1).astype(np.float64) - mu) @ w.T
        # Values up to a few hundred at sigma 50: float32 rounding of up to 75 products relative
        # to that.
        x_hat = call(denoiser, y, jnp.float32(sigma)).reshape(6, -1)
        np.testing.assert_allclose(x_hat, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_blocks", [1, 3])
@pytest.mark.parametrize(
    ("shape", "k"),
    [((4, 5, 2), 3), ((3, 7, 1), 5), ((2, 6, 2), 9), ((6, 2, 1), 5), ((3, 4, 1), 1)],
    ids=["inside", "higher than the image", "all rows", "wider than the image", "one pixel"],
)
def test_the_fitted_fields_are_the_windows_covariances(
    shape: tuple[int, int, int],
    k: int,
    num_blocks: int,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = correlated(rng, 60, shape)
    weights = rng.uniform(0.1, 1, 60)
    monkeypatch.setattr(axes, "_BLOCK", 60 // num_blocks)
    seen_rows, blocks = [], axes.blocks
    count = lambda *a: [seen_rows.append(len(x)) or (x, q) for x, q in blocks(*a)]
    monkeypatch.setattr(axes, "blocks", count)
    denoiser = LocalLinearDenoiser.fit(images, patch_size=k, weights=weights)
    assert seen_rows == [60 // num_blocks] * num_blocks * 2  # once for the mean
    mu, s = moments(images, weights)
    np.testing.assert_allclose(denoiser.mean, mu, atol=1e-6)
    basis, values = np.asarray(denoiser.basis), np.asarray(denoiser.eigenvalues)
    pixels, size, half = shape[0] * shape[1], k * k * shape[2], k // 2
    assert basis.shape == (pixels, size, size)
    assert values.shape == (pixels, size)
    assert values.min() >= 0
    assert (denoiser.patch_size, denoiser.image_shape, denoiser.sigmas) == (k, shape, None)
    # The image with a border of "nowhere": what is outside has covariance 0 with everything.
    place = np.arange(pixels * shape[2]).reshape(shape)
    place = np.pad(place, ((half, half), (half, half), (0, 0)), constant_values=-1)
    for p, (i, j) in enumerate(np.ndindex(shape[:2])):
        window = place[i : i + k, j : j + k].ravel()
        inside = window >= 0
        expected = np.where(np.outer(inside, inside), s[np.ix_(window, window)], 0)
        # float32 rounding of eigenpairs of covariances up to 1.
        np.testing.assert_allclose((basis[p] * values[p]) @ basis[p].T, expected, atol=2e-6)
        np.testing.assert_allclose(basis[p].T @ basis[p], np.eye(size), atol=2e-6)


@pytest.mark.core
@pytest.mark.parametrize("shape", [(5, 7, 1), (5, 4, 2)], ids=["gray", "colour"])
def test_the_window_is_cut_off_at_the_border(
    shape: tuple[int, int, int], rng: np.random.Generator
) -> None:
    k, channels = 3, shape[2]
    denoiser = LocalLinearDenoiser.fit(correlated(rng, 80, shape), patch_size=k)
    w = np.asarray(window_weights(denoiser, jnp.float32(0.3)))
    assert w.shape == (*shape[:2], k * k * channels, channels)
    w = w.reshape(*shape[:2], k, k, channels, channels)
    # A corner: the first row and column of offsets are outside, and exactly 0; the rest is not.
    assert not w[0, 0, 0].any()
    assert not w[0, 0, :, 0].any()
    assert w[0, 0, 1:, 1:].all()
    assert not w[-1, -1, -1].any()
    assert not w[-1, -1, :, -1].any()
    assert w[1:-1, 1:-1].all()
    y = jnp.asarray(rng.normal(size=shape), jnp.float32)
    jacobian = jax.jacobian(lambda y: denoiser(y[None], jnp.float32(0.3))[0])(y)
    d = y.size
    np.testing.assert_array_equal(np.asarray(jacobian).reshape(d, d) != 0, seen(shape, k))


@pytest.mark.parametrize("num", [100, 12], ids=["N > D", "N < D"])
@pytest.mark.parametrize("shape", [(3, 5, 1), (4, 3, 2)], ids=["gray", "colour"])
def test_a_window_of_the_whole_image_is_the_affine_denoiser(
    num: int, shape: tuple[int, int, int], rng: np.random.Generator
) -> None:
    images = correlated(rng, num, shape)
    weights = rng.uniform(0.1, 1, num)
    widest = 2 * max(shape) - 1
    denoiser = LocalLinearDenoiser.fit(images, patch_size=widest, weights=weights)
    whole = LinearDenoiser.fit(images, weights=weights)
    narrower = LocalLinearDenoiser.fit(images, patch_size=widest - 2, weights=weights)
    y = rng.normal(size=(4, *shape)).astype(np.float32)
    for sigma in (3.0, 0.1):
        expected = call(whole, y, jnp.float32(sigma))
        # The same matrix by two routes; float32 rounding of values near 1.
        np.testing.assert_allclose(call(denoiser, y, jnp.float32(sigma)), expected, atol=2e-5)
        assert np.abs(call(narrower, y, jnp.float32(sigma)) - expected).max() > 1e-3


def test_a_window_of_one_pixel_shrinks_every_pixel_by_itself(rng: np.random.Generator) -> None:
    images = correlated(rng, 50, (4, 3, 1))
    y = rng.normal(size=(2, 4, 3, 1)).astype(np.float32)
    x = images / 127.5 - 1
    mu, variance = x.mean(0), x.var(0)
    expected = mu + variance / (variance + 0.25) * (y - mu)
    denoiser = LocalLinearDenoiser.fit(images, patch_size=1)
    np.testing.assert_allclose(call(denoiser, y, jnp.float32(0.5)), expected, atol=1e-6)


def test_identical_images_are_returned() -> None:
    images = np.full((5, 3, 4, 1), 40, np.uint8)
    x_hat = LocalLinearDenoiser.fit(images, patch_size=3)(jnp.ones((2, 3, 4, 1)), jnp.float32(0.5))
    np.testing.assert_allclose(x_hat, np.full((2, 3, 4, 1), 40 / 127.5 - 1), atol=1e-6)


@pytest.mark.parametrize("sigma", [2.0, 0.1])
def test_no_other_filter_of_the_windows_has_a_smaller_loss(
    sigma: float, rng: np.random.Generator
) -> None:
    shape = (4, 4, 1)
    images = correlated(rng, 100, shape)
    _, s = moments(images)
    allowed = seen(shape, 3)
    best = matrix(LocalLinearDenoiser.fit(images, patch_size=3), sigma)
    for _ in range(20):
        change = 0.01 * rng.normal(size=best.shape) * allowed
        assert loss(best + change, s, sigma) > loss(best, s, sigma)
    # Twin: beyond the windows there are better ones, in the direction of the unbounded filter.
    whole = direct(s, np.ones_like(allowed), sigma)
    assert loss(best + 0.01 * (whole - best), s, sigma) < loss(best, s, sigma)
    # Every wider window has a smaller loss, down to the whole image.
    losses = [
        loss(matrix(LocalLinearDenoiser.fit(images, patch_size=k), sigma), s, sigma)
        for k in (1, 3, 5, 7)
    ]
    assert np.all(np.diff(losses) < 0)
    np.testing.assert_allclose(losses[-1], loss(whole, s, sigma), rtol=1e-5)


def test_a_shifted_image_is_not_denoised_to_the_shifted_answer(rng: np.random.Generator) -> None:
    denoiser = LocalLinearDenoiser.fit(correlated(rng, 100, (6, 6, 1)), patch_size=3)
    y = rng.normal(size=(1, 6, 6, 1)).astype(np.float32)
    shift = lambda a: np.roll(a, 2, axis=2)
    difference = call(denoiser, shift(y), jnp.float32(0.5)) - shift(
        call(denoiser, y, jnp.float32(0.5))
    )
    assert np.abs(difference).max() > 0.1


@pytest.mark.core
def test_a_different_sigma_a_row(rng: np.random.Generator) -> None:
    denoiser = LocalLinearDenoiser.fit(correlated(rng, 50, (4, 5, 3)), patch_size=3)
    y = rng.normal(size=(3, 4, 5, 3)).astype(np.float32)
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
    def counted(denoiser: LocalLinearDenoiser, y: jax.Array, sigma: jax.Array) -> jax.Array:
        traces.append(denoiser.patch_size)
        return denoiser(y, sigma)

    y = jnp.ones((2, 4, 4, 1))
    first, second = (correlated(rng, n, (4, 4, 1)) for n in (30, 40))
    counted(LocalLinearDenoiser.fit(first, patch_size=3), y, jnp.float32(1.0))
    counted(LocalLinearDenoiser.fit(second, patch_size=3), y, jnp.float32(2.0))
    assert traces == [3]
    counted(LocalLinearDenoiser.fit(second, patch_size=5), y, jnp.float32(2.0))
    assert traces == [3, 5]


def test_images_of_weight_zero_do_not_exist(rng: np.random.Generator) -> None:
    images = correlated(rng, 60, (4, 4, 1))
    few = LocalLinearDenoiser.fit(images[:40], patch_size=3)
    same = LocalLinearDenoiser.fit(images, patch_size=3, weights=np.repeat([2.0, 0.0], [40, 20]))
    y = rng.normal(size=(3, 4, 4, 1)).astype(np.float32)
    np.testing.assert_allclose(
        call(same, y, jnp.float32(0.5)), call(few, y, jnp.float32(0.5)), atol=1e-5
    )


def test_floats_are_taken_in_model_units(rng: np.random.Generator) -> None:
    images = correlated(rng, 40, (3, 4, 1))
    as_floats = LocalLinearDenoiser.fit(images.astype(np.float32) / 127.5 - 1, patch_size=3)
    y = rng.normal(size=(3, 3, 4, 1)).astype(np.float32)
    expected = call(LocalLinearDenoiser.fit(images, patch_size=3), y, jnp.float32(0.5))
    np.testing.assert_allclose(call(as_floats, y, jnp.float32(0.5)), expected, atol=1e-5)


def test_small_windows_need_no_square_matrix(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (20, 64, 64, 1), dtype=np.uint8)
    tracemalloc.start()
    denoiser = LocalLinearDenoiser.fit(images, patch_size=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert denoiser.basis.shape == (4096, 9, 9)
    # 4096 x 4096 float64 values are 134 MB; those of three image rows 6 MB, the basis 1.3 MB.
    assert peak < 20e6


def test_a_basis_beyond_the_stated_memory_is_refused_with_its_size(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = rng.integers(0, 256, (3, 64, 64, 1), dtype=np.uint8)
    message = (
        "patch_size 63 makes 4,096 windows of 3,969 values, whose basis would take 240.4 GiB, more "
        "than 16 GiB; a smaller window"
    )
    with pytest.raises(ValueError, match=message):
        LocalLinearDenoiser.fit(images, patch_size=63)
    small = images[:, :4, :4]
    monkeypatch.setattr(local_linear, "MAX_BYTES", 4 * 16 * 9**2)
    assert LocalLinearDenoiser.fit(small, patch_size=3).basis.nbytes == local_linear.MAX_BYTES
    monkeypatch.setattr(local_linear, "MAX_BYTES", 4 * 16 * 9**2 - 1)
    with pytest.raises(ValueError, match="patch_size 3 makes 16 windows of 9 values"):
        LocalLinearDenoiser.fit(small, patch_size=3)


def test_only_a_long_fit_shows_a_bar(
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = rng.integers(0, 256, (3, 4, 4, 1), dtype=np.uint8)
    LocalLinearDenoiser.fit(images, patch_size=3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(local_linear, "_QUIET", 0)
    LocalLinearDenoiser.fit(images, patch_size=3)
    assert "LocalLinearDenoiser.fit: windows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("patch_size", "error", "message"),
    [
        (4, ValueError, "patch_size must be odd, from 1 to 9; got 4"),
        (11, ValueError, "patch_size must be from 1 to 9; got 11"),
        (0, ValueError, "patch_size must be from 1 to 9; got 0"),
        (-3, ValueError, "patch_size must be from 1 to 9; got -3"),
        (3.0, TypeError, "patch_size must be a whole number; got 3.0"),
        (None, TypeError, "patch_size must be a whole number; got None"),
    ],
)
def test_bad_patch_size(
    patch_size: object, error: type, message: str, rng: np.random.Generator
) -> None:
    images = rng.integers(0, 256, (5, 3, 5, 1), dtype=np.uint8)
    with pytest.raises(error, match=message):
        LocalLinearDenoiser.fit(images, patch_size=patch_size)  # pyright: ignore[reportArgumentType]


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
        LocalLinearDenoiser.fit(images, patch_size=3, weights=weights)


def test_bad_calls(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (5, 4, 4, 1), dtype=np.uint8)
    denoiser = LocalLinearDenoiser.fit(images, patch_size=3)
    y, one = jnp.zeros((2, 4, 4, 1)), jnp.float32(1.0)
    with pytest.raises(ValueError, match="labels must be None: LocalLinearDenoiser has no classes"):
        denoiser(y, one, jnp.zeros(2, int))
    with pytest.raises(ValueError, match=r"y must be a float array \[B, 4, 4, 1\]; got float32"):
        denoiser(y[:, :3], one)
    with pytest.raises(ValueError, match=r"sigma must be a scalar or \[2\]; got shape \(3,\)"):
        denoiser(y, jnp.ones(3))
    with pytest.raises(ValueError, match=r"sigma must be a scalar; got shape \(2,\)"):
        denoiser.window_weights(jnp.ones(2))
