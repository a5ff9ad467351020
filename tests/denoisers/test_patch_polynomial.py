"""The windowed regression against float64 on the same draws, and against the whole-image one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdiff
from jdiff.denoisers import PatchPolynomialDenoiser, RandomPolynomialDenoiser, patch_polynomial
from jdiff.denoisers.patch_polynomial import PAPER_NUM_FEATURES, PAPER_PATCH_SIZES
from jdiff.denoisers.random_polynomial import FIT, noise_of

call = jax.jit(lambda denoiser, y, sigma: denoiser(y, sigma))
SHAPE = (4, 3, 2)
IMAGES = np.random.default_rng(0).integers(0, 256, (30, *SHAPE), dtype=np.uint8)
LEVELS = [2.0, 0.4, 0.0]
Y = jnp.asarray(np.random.default_rng(1).normal(size=(5, *SHAPE)), jnp.float32)
key = lambda: jax.random.key(3)
fit = lambda sides=(None, 3), features=6, **options: PatchPolynomialDenoiser.fit(
    IMAGES, 3, LEVELS, sides, key(), features, **{"ridge": 1e-3, "num_draws": 2, **options}
)


def window(y: np.ndarray, i: int, j: int, side: int) -> np.ndarray:
    """The window around (i, j) of images [n, H, W, C], zeros outside: [n, side * side * C]."""
    half = side // 2
    padded = np.pad(y, ((0, 0), (half, half), (half, half), (0, 0)))
    return padded[:, i : i + side, j : j + side].reshape(len(y), -1)


@pytest.mark.parametrize("side", [1, 3, 7])
def test_each_pixel_is_a_regression_on_its_window(side):
    denoiser = fit((None, side))
    x, sigma = IMAGES / 127.5 - 1, 0.4
    r = np.asarray(denoiser.projections[1], np.float64)
    of_level = jax.random.fold_in(jax.random.fold_in(key(), FIT), 2)
    noise = [
        np.asarray(noise_of(of_level, jnp.full(30, draw), jnp.arange(30), 24)).reshape(x.shape)
        for draw in range(2)
    ]
    y = np.concatenate([x + sigma * z for z in noise])
    found = np.asarray(call(denoiser, Y, jnp.float32(sigma)))

    def h(images, i, j):
        values = window(images, i, j, side) @ r.T
        return (values / np.abs(values).max(1, keepdims=True)) ** 3

    for i, j in ((0, 0), (1, 1), (3, 2)):
        hs, xs = h(y, i, j), np.tile(x[:, i, j], (2, 1))
        hc = hs - hs.mean(0)
        cov = hc.T @ hc / len(hs)
        cov += 1e-3 * np.trace(cov) / len(cov) * np.eye(len(cov))
        a = np.linalg.solve(cov, hc.T @ (xs - xs.mean(0)) / len(hs))
        expected = xs.mean(0) + (h(np.asarray(Y, np.float64), i, j) - hs.mean(0)) @ a
        # float32 sums of a covariance of condition up to 1e4.
        np.testing.assert_allclose(found[:, i, j], expected, atol=2e-3)


@pytest.mark.core
def test_a_level_of_the_whole_image_is_the_random_polynomial():
    whole = RandomPolynomialDenoiser.fit(IMAGES, 3, LEVELS, key(), 6, num_draws=2, ridge=1e-3)
    patches = fit((None, None))
    for sigma in LEVELS[:-1]:
        a, b = (call(d, Y, jnp.float32(sigma)) for d in (whole, patches))
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.core
def test_a_pixel_sees_its_window_and_nothing_else():
    denoiser = fit((None, 3))
    jacobian = jax.jit(jax.jacrev(lambda y, sigma: denoiser(y[None], sigma)[0]))
    at = lambda sigma: np.abs(np.asarray(jacobian(Y[0], jnp.float32(sigma)))).max((2, 5))
    reached, everything = at(0.4) > 0, at(2.0) > 0  # [H, W, H, W]
    i, j = np.indices(SHAPE[:2])
    near = (np.abs(i[..., None, None] - i) <= 1) & (np.abs(j[..., None, None] - j) <= 1)
    assert not np.any(reached & ~near)
    assert np.mean(reached[near]) > 0.9
    assert everything.all()


def test_the_answer_does_not_depend_on_the_blocks(monkeypatch):
    whole, shapes = fit(), set()
    real = patch_polynomial._window_sums

    def counted(projection, pixels, rows, *args, **options):
        shapes.add((pixels.shape[0], rows.shape[0]))
        return real(projection, pixels, rows, *args, **options)

    monkeypatch.setattr(patch_polynomial, "_ROOM", 6 * 36)  # Gram matrices of six pixels
    monkeypatch.setattr(patch_polynomial, "_window_sums", counted)
    parts = fit()
    # Five of the twelve pixels would be six here; one image at a time; one shape a level.
    assert shapes == {(1, 2), (6, 1)}
    for sigma in LEVELS[:-1]:
        a, b = (call(d, Y, jnp.float32(sigma)) for d in (whole, parts))
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_batches_levels_and_scale():
    denoiser = fit()
    together = call(denoiser, Y, jnp.float32(0.4))
    alone = jnp.concatenate([call(denoiser, Y[i : i + 1], jnp.float32(0.4)) for i in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(call(denoiser, 3 * Y, jnp.float32(0.4)), together, atol=1e-5)
    rows = call(denoiser, Y[:2], jnp.asarray([2.0, 0.4]))
    np.testing.assert_allclose(rows[0], call(denoiser, Y[:1], jnp.float32(2.0))[0], atol=1e-5)
    np.testing.assert_allclose(rows[1], together[1], atol=1e-5)
    assert jdiff.sample(denoiser, jax.random.key(0), 3).shape == (3, *SHAPE)
    with pytest.raises(ValueError, match="labels must be None: PatchPolynomialDenoiser"):
        denoiser(Y, jnp.float32(0.4), jnp.zeros(5, int))


def test_weights_of_zero():
    few = PatchPolynomialDenoiser.fit(
        IMAGES[:20], 3, LEVELS, (None, 3), key(), 6, ridge=1e-3, num_draws=2
    )
    zeros = fit(weights=np.arange(30) < 20)
    np.testing.assert_allclose(
        call(zeros, Y, jnp.float32(0.4)), call(few, Y, jnp.float32(0.4)), atol=1e-3
    )


@pytest.mark.core
def test_the_published_sizes():
    assert len(PAPER_PATCH_SIZES) == len(PAPER_NUM_FEATURES) == 10
    assert (PAPER_NUM_FEATURES[0], PAPER_NUM_FEATURES[-1]) == (1024, 8)
    ratios = np.diff(np.log(PAPER_NUM_FEATURES))
    np.testing.assert_allclose(ratios, ratios.mean(), atol=0.06)  # geometric, rounded


@pytest.mark.core
@pytest.mark.parametrize(
    ("sides", "features", "error", "message"),
    [
        ((None,), 4, ValueError, "patch_sizes must have one entry for each of the 2 levels; got 1"),
        ((None, 2), 4, ValueError, r"patch_sizes\[1\] must be odd, from 1 to 7, or None"),
        ((None, 9), 4, ValueError, r"patch_sizes\[1\] must be from 1 to 7; got 9"),
        ((None, 1.5), 4, TypeError, r"patch_sizes\[1\] must be a whole number"),
        (3, 4, TypeError, "patch_sizes must be a sequence, one entry a level; got 3"),
        ((None, 3), (4,), ValueError, "num_features must have one entry for each of the 2 levels"),
        ((None, 3), (4, 0), ValueError, r"num_features\[1\] must be at least 1; got 0"),
    ],
)
def test_windows_that_do_not_fit(sides, features, error, message):
    with pytest.raises(error, match=message):
        fit(sides, features)


def test_a_singular_gram_names_the_level():
    # Features of a single value to the first power, divided by the largest: signs, all alike.
    gray = IMAGES[..., :1]
    with pytest.raises(ValueError, match=r"sigmas\[0\] = 0.4: .*5 features is singular"):
        PatchPolynomialDenoiser.fit(gray, 1, [0.4], (1,), key(), 5, num_draws=2, ridge=0.0)


@pytest.mark.parametrize("degree", [1, 2])
def test_the_parity_of_the_degree_and_floats_for_uint8(degree):
    of = lambda images: PatchPolynomialDenoiser.fit(
        images, degree, LEVELS, (None, 3), key(), 6, ridge=1e-3, num_draws=2
    )
    denoiser, floats = of(IMAGES), of(IMAGES.astype(np.float32) / 127.5 - 1)
    for t, sigma in enumerate(LEVELS[:-1]):
        at = lambda d, y, sigma=sigma: np.asarray(call(d, y, jnp.float32(sigma)))
        offset = np.asarray(denoiser.offsets[t]).reshape(SHAPE)
        turned = at(denoiser, -Y)
        expected = at(denoiser, Y) if degree % 2 == 0 else 2 * offset - at(denoiser, Y)
        np.testing.assert_allclose(turned, expected, atol=1e-5)
        np.testing.assert_allclose(at(floats, Y), at(denoiser, Y), atol=1e-5)


def test_large_windows_put_no_tables_into_the_program():
    shape, side, m = (64, 64, 3), 55, 2
    denoiser = PatchPolynomialDenoiser(
        jnp.ones(1),
        (jnp.zeros((m, side * side * 3)),),
        (jnp.zeros((64 * 64, m, 3)),),
        (jnp.zeros(64 * 64 * 3),),
        3,
        (side,),
        shape,
    )
    # The places of all windows are 4096 x 9075 numbers: 148 MB, and twice that as text.
    text = call.lower(denoiser, jnp.zeros((1, *shape)), jnp.float32(1)).as_text()
    assert len(text) < 1e6


def test_bad_features_of_a_late_level_fail_before_anything_is_fitted(monkeypatch):
    monkeypatch.setattr(patch_polynomial, "_fit_level", lambda *_: pytest.fail("fitted"))
    with pytest.raises(ValueError, match=r"num_features\[1\] must be at least 1; got 0"):
        PatchPolynomialDenoiser.fit(IMAGES, 3, LEVELS, (None, 3), key(), (4, 0))
