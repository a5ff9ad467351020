from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import _flops, denoisers, training
from jdiff.denoisers import random_polynomial
from jdiff.metrics import denoising, explained_by
from jdiff.metrics.denoising import equivariance_error, in_batches, psnr_gap
from jdiff.sampling import sampler

SIGMAS = [2.0, 0.5, 0.1, 0.0]  # the closing 0 is left off
Arrays = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def arrays(rng) -> Arrays:
    train = rng.integers(0, 256, (30, 6, 8, 2), dtype=np.uint8)
    return train, rng.integers(0, 256, (20, 6, 8, 2), dtype=np.uint8)


def shrink(y, sigma):
    return y / (1 + sigma**2)


def noisy_images(arrays: Arrays, seed: int, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The images that measures choose and their noise: (x, z) of either set, float64."""
    given = denoising.arguments(
        shrink, *arrays, SIGMAS, jax.random.key(seed), num_images=n, default=n
    )
    found = []
    for noisy in given[:2]:
        keys = [jax.random.fold_in(noisy.key, i) for i in noisy.indices]
        z = [jax.random.normal(key, noisy.images.shape[1:]) for key in keys]
        found.append((noisy.images / 127.5 - 1, np.asarray(z, np.float64)))
    return found


@pytest.mark.core
def test_psnr_gap_is_that_of_a_brute_force(arrays: Arrays):
    found = psnr_gap(shrink, *arrays, SIGMAS, key=jax.random.key(3), num_images=12)
    psnr = np.zeros((2, 12, 3))
    for s, (x, z) in enumerate(noisy_images(arrays, 3, 12)):
        for t, sigma in enumerate(SIGMAS[:-1]):
            error = ((x + sigma * z) / (1 + sigma**2) - x) / 2  # on [0, 1]
            psnr[s, :, t] = -10 * np.log10(np.square(error).mean(axis=(1, 2, 3)))
    # A float32 mean of squares is right to 1e-6, which is 4e-6 dB.
    np.testing.assert_allclose(np.asarray(found.per_sample), psnr, atol=1e-4)
    np.testing.assert_allclose(found.value, psnr[0].mean(0) - psnr[1].mean(0), atol=1e-4)
    np.testing.assert_allclose(found.constants["psnr_held_out"], psnr[1].mean(0), atol=1e-4)
    assert found.interval is not None
    low, high = found.interval
    assert np.all((low < found.value) & (found.value < high))
    assert (found.n, found.control, found.control_interval) == (12, None, None)
    np.testing.assert_allclose(found.constants["sigmas"], SIGMAS[:-1], rtol=1e-6)


def test_the_interval_of_the_gap_is_that_of_two_independent_means(rng):
    # D(y) = y: the PSNR of an image is that of its noise, of deviation s over images.
    sets = rng.integers(0, 256, (2, 400, 4, 4, 1), dtype=np.uint8)
    same = lambda y, sigma: y
    found = psnr_gap(same, sets[0], sets[1], [1.0], key=jax.random.key(0), num_images=400)
    assert found.interval is not None
    low, high = found.interval
    deviations = np.asarray(found.per_sample)[..., 0].std(axis=1)
    expected = 2 * 1.96 * np.sqrt(np.square(deviations).sum() / 400)
    # 1,000 resamples give a quantile's distance to 5 % or so.
    np.testing.assert_allclose(high - low, expected, rtol=0.15)


@pytest.mark.core
def test_the_optimal_denoiser_knows_its_training_set_and_the_linear_one_hardly(digits):
    train, held_out = digits
    fits = denoisers.OptimalDenoiser.fit(train), denoisers.LinearDenoiser.fit(train)
    key = jax.random.key(0)
    optimal, linear = (psnr_gap(d, train, held_out, key=key, num_images=50) for d in fits)
    assert len(optimal.value) == 9
    # At sigma = 0.02 its answer is the training image itself: 100 dB is where PSNR ends.
    assert optimal.constants["psnr_train"][-1] == pytest.approx(100)
    assert optimal.value[-1] > 50
    assert np.abs(linear.value).max() < 1.5


def test_values_depend_on_image_and_level_alone(arrays: Arrays, monkeypatch):
    sizes = []

    def recording(y, sigma):
        sizes.append(len(y))
        return shrink(y, sigma)

    measured = lambda sigmas: psnr_gap(recording, *arrays, sigmas, key=jax.random.key(1))
    all_levels = np.asarray(measured(SIGMAS).per_sample)
    assert sizes[-1] == 20  # the smaller set, in one batch
    np.testing.assert_allclose(
        np.asarray(measured([0.5]).per_sample)[..., 0], all_levels[..., 1], rtol=1e-6
    )
    given = denoising.arguments(
        recording, *arrays, SIGMAS, jax.random.key(1), num_images=None, default=256
    )
    ask = lambda denoise, x, y: jnp.mean(((denoise(y) - x) / 2) ** 2, axis=(1, 2, 3))
    for batch in (1, 7, 20):
        sizes.clear()
        found = np.concatenate(
            list(in_batches(ask, recording, given.train, given.sigmas, batch_size=batch))
        )
        assert set(sizes) <= {1, batch}  # 1: to look for convolutions
        assert batch == 20 or batch in sizes
        np.testing.assert_allclose(-10 * np.log10(found), all_levels[0], rtol=1e-5)


def test_one_compilation_serves_all_levels_batches_and_sets(arrays: Arrays):
    traced = []

    def counting(y, sigma):
        traced.append(y.shape)
        return shrink(y, sigma)

    given = denoising.arguments(
        counting, *arrays, np.geomspace(2, 0.1, 7), jax.random.key(1), 18, default=0
    )
    ask = lambda denoise, x, y: denoise(y)
    for noisy in given[:2]:
        list(in_batches(ask, counting, noisy, given.sigmas, batch_size=4))
    assert traced == [(1, 6, 8, 2), (4, 6, 8, 2)]


def test_measures_that_need_no_more_than_answers_share_one_compilation(arrays: Arrays):
    traced = []

    def counting(y, sigma):
        traced.append(y.shape)
        return shrink(y, sigma)

    given: Any = {"key": jax.random.key(1), "num_images": 18}
    psnr_gap(counting, *arrays, SIGMAS, **given)
    equivariance_error(counting, *arrays, SIGMAS, levels=2, **given)
    explained_by(counting, {"itself": counting}, *arrays, SIGMAS, **given)
    assert traced == [(1, 6, 8, 2), (18, 6, 8, 2)]  # the first: to look for convolutions


def test_noise_differs_between_images_and_sets(arrays: Arrays):
    (_, a), (_, b) = noisy_images(arrays, 0, 20)
    assert len(np.unique(np.concatenate([a, b]), axis=0)) == 40
    _, (other, _) = noisy_images(arrays, 1, 20)
    assert not np.any(other == b)


def test_keys_of_measures_are_not_those_of_other_rooms():
    purposes = [training.TRAIN, sampler.SAMPLE, random_polynomial.FIT, denoising.MEASURE]
    assert len(set(purposes)) == 4


def test_equal_sets_have_no_gap_but_for_noise(digits):
    train, _ = digits
    found = psnr_gap(shrink, train, train, SIGMAS, key=jax.random.key(0), num_images=300)
    assert found.interval is not None
    assert np.all((found.interval[0] < 0) & (found.interval[1] > 0))


def test_own_levels_are_the_default(arrays: Arrays):
    fitted = denoisers.wrap(shrink, (6, 8, 2), sigmas=[3.0, 0.3])
    found = psnr_gap(fitted, *arrays, key=jax.random.key(0))
    np.testing.assert_allclose(found.constants["sigmas"], [3.0, 0.3], rtol=1e-6)
    free = psnr_gap(denoisers.wrap(shrink, (6, 8, 2)), *arrays, key=jax.random.key(0))
    np.testing.assert_allclose(free.constants["sigmas"], np.geomspace(2, 0.02, 9), rtol=1e-6)


# Equivariance.

KERNEL = np.random.default_rng(7).normal(size=(3, 3)) / 3


def convolution(padding: str):
    """A 3 x 3 filter, the same on every channel, by NumPy's or jax's roll or pad."""

    def filtered(y, sigma):
        padded = jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=padding)
        cut = lambda a, b: padded[:, a : a + y.shape[1], b : b + y.shape[2]]
        return sum(KERNEL[a, b] * cut(a, b) for a in range(3) for b in range(3)) / (1 + sigma)

    return filtered


@pytest.mark.core
def test_a_circular_convolution_is_equivariant_and_a_padded_one_is_not(arrays: Arrays):
    key = jax.random.key(2)
    for found in equivariance_error(convolution("wrap"), *arrays, SIGMAS, key=key, num_images=9):
        both = np.array([found.value, found.control])
        assert np.all(both < 1e-6)  # a few float32 roundings
    padded = equivariance_error(
        convolution("constant"), *arrays, SIGMAS, key=key, levels=2, num_images=9
    )
    assert [found.constants["step"] for found in padded] == [1, 4]
    x_hat_of = lambda y, sigma: np.asarray(
        (convolution("constant")(jnp.asarray(y, jnp.float32), sigma) + 1) / 2, np.float64
    )
    size = lambda x: np.sqrt(np.square(x).sum(axis=(1, 2, 3)))
    for found, step in zip(padded, (1, 4), strict=True):
        both = np.array([found.value, found.control])
        for values, (x, z) in zip(both, noisy_images(arrays, 2, 9), strict=True):
            for t, sigma in enumerate(SIGMAS[:-1]):
                y = x + sigma * z
                x_hat = x_hat_of(y, sigma)
                errors = [
                    size(x_hat_of(np.roll(y, step, axis), sigma) - np.roll(x_hat, step, axis))
                    for axis in (1, 2)
                ]
                expected = np.mean(np.mean(errors, axis=0) / size(x_hat))
                assert expected > 0.05
                # Eager and compiled float32 differ in the last places.
                assert values[t] == pytest.approx(expected, rel=1e-4)


def test_library_convolutions_are_seen_and_measured(arrays: Arrays):
    def library(y, sigma):
        kernel = jnp.asarray(np.kron(np.eye(2), KERNEL[..., None, None]), jnp.float32)
        dimensions = ("NHWC", "HWIO", "NHWC")
        convolve = jax.lax.conv_general_dilated
        x_hat = convolve(y, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
        return x_hat / (1 + sigma)

    by_hand = convolution("constant")
    tree = denoising.as_argument
    assert _flops.denoiser_has_convolution(tree(library), (6, 8, 2))
    assert not _flops.denoiser_has_convolution(tree(by_hand), (6, 8, 2))
    one, other = (
        psnr_gap(d, *arrays, SIGMAS, key=jax.random.key(0), num_images=5).per_sample
        for d in (library, by_hand)
    )
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-3)


def test_a_denoiser_that_halves_its_grid_is_equivariant_to_its_own_steps(arrays: Arrays):
    def blocks(y, sigma):  # means of 2 x 2 pixels
        b, h, w, c = y.shape
        means = y.reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))
        return means.repeat(2, 1).repeat(2, 2)

    one, two = equivariance_error(blocks, *arrays, SIGMAS, key=jax.random.key(0))
    assert np.all(one.value > 0.1)
    assert np.all(two.value < 1e-6)
    assert one.name == two.name == "equivariance_error"
    assert np.asarray(one.per_sample).shape == (20, 3)
    assert one.interval is not None
    low, high = one.interval
    assert np.all((low < one.value) & (one.value < high))


# What is refused.

DIGITS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)


def asked(
    denoiser: Any = shrink,
    train: Any = DIGITS,
    held_out: Any = DIGITS,
    sigmas: Any = SIGMAS,
    **options,
):
    return psnr_gap(denoiser, train, held_out, sigmas, key=jax.random.key(0), **options)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: asked(held_out=DIGITS[:, :4]), "held_out must have the trailing shape of train"),
        (lambda: asked(train=DIGITS[:1]), "train must hold at least 2 samples; got 1"),
        (lambda: asked(num_images=7), "num_images must be from 2 to 6; got 7"),
        (lambda: asked(num_images=1), "num_images must be from 2 to 6; got 1"),
        (lambda: asked(sigmas=[0.1, 0.5]), "sigmas must decrease"),
        (lambda: asked(sigmas=[0.5, -1.0]), "sigmas must be positive"),
        (lambda: asked(train=DIGITS * 1.0), r"train must lie in \[-1, 1\]"),
        (lambda: asked(lambda y, s: y * jnp.where(s > 1, 1, jnp.nan)), r"finite .* sigma = 0.5"),
        (
            lambda: asked(denoisers.wrap(shrink, (8, 8, 1), sigmas=[2.0, 0.4])),
            "sigmas asks for level 0.5, but this FunctionDenoiser is defined only at",
        ),
        (lambda: asked(denoisers.wrap(shrink, (4, 8, 1))), "train must be images of the denoiser"),
        (
            lambda: equivariance_error(shrink, DIGITS, DIGITS, None, key=jax.random.key(0)),
            "sigmas must be given",
        ),
        (
            lambda: equivariance_error(
                shrink, DIGITS, DIGITS, [1.0], key=jax.random.key(0), levels=3
            ),
            "levels must be from 1 to 2; got 3",
        ),
        (
            lambda: equivariance_error(
                lambda y, s: -jnp.ones_like(y), DIGITS, DIGITS, [1.0], key=jax.random.key(0)
            ),
            "all black",
        ),
        (
            lambda: equivariance_error(
                shrink, DIGITS[:, :2], DIGITS[:, :2], [1.0], key=jax.random.key(0)
            ),
            "at least 3 x 3 pixels; got 2",
        ),
    ],
)
def test_refuses(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_refuses_what_is_no_denoiser_or_key():
    with pytest.raises(TypeError, match="denoiser must be a callable .* got int"):
        psnr_gap(3, DIGITS, DIGITS, SIGMAS, key=jax.random.key(0))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="key must be one typed key"):
        psnr_gap(shrink, DIGITS, DIGITS, SIGMAS, key=0)  # type: ignore[arg-type]
