import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import denoisers
from jdiff.metrics import denoising, locality
from jdiff.metrics.locality import locality_profile

SIGMAS = [2.0, 0.5]
Arrays = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def arrays(rng) -> Arrays:
    train = rng.integers(0, 256, (10, 12, 10, 2), dtype=np.uint8)
    return train, rng.integers(0, 256, (8, 12, 10, 2), dtype=np.uint8)


def windowed(k: int):
    """The mean of a k x k window, cut off at the border; all of its weights are equal."""

    def filtered(y, sigma):
        padded = jnp.pad(y, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
        cut = lambda a, b: padded[:, a : a + y.shape[1], b : b + y.shape[2]]
        return sum(cut(a, b) for a in range(k) for b in range(k)) / k**2 / (1 + sigma)

    return filtered


def test_side_of_a_share(rng):
    inside = np.array([[1.0, 3.0, 4.0], [0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    np.testing.assert_array_equal(locality._side(inside, 0.25), [1, 0, 5])
    np.testing.assert_array_equal(locality._side(inside, 0.26), [3, 0, 5])
    np.testing.assert_array_equal(locality._side(inside, 0.75), [3, 0, 5])
    np.testing.assert_array_equal(locality._side(inside, 0.76), [5, 0, 5])


@pytest.mark.core
@pytest.mark.parametrize("k", [1, 3, 5])
def test_a_filter_has_exactly_its_own_side(k, arrays: Arrays):
    # Pixels are at least 2 from the border (10 // 4), so that 5 x 5 squares are whole. Squares of
    # sides 1, 3, 5 hold (1, 9, 25) / k^2 of the filter.
    found = locality_profile(
        windowed(k), *arrays, SIGMAS, key=jax.random.key(0), q=(0.05, 0.3, 0.5, 0.95)
    )
    for measure, q in zip(found, (0.05, 0.3, 0.5, 0.95), strict=True):
        side = min(s for s in (1, 3, 5) if s**2 >= q * k**2)
        np.testing.assert_array_equal(measure.value, [side, side])
        np.testing.assert_array_equal(measure.control, [side, side])
        np.testing.assert_array_equal(np.asarray(measure.interval), side)
        np.testing.assert_array_equal(np.asarray(measure.per_sample), side)
        assert measure.constants["q"] == q
        assert (measure.name, measure.n) == ("locality_profile", 8)


@pytest.mark.core
def test_is_that_of_a_full_jacobian(arrays: Arrays):
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(12, 10, 2, 3, 3, 2)), jnp.float32)

    def curved(y, sigma):  # a filter a pixel, then a bend: gradients depend on y and sigma
        padded = jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))
        total = jnp.zeros_like(y)
        for a in range(3):
            for b in range(3):
                x = padded[:, a : a + 12, b : b + 10, None, :]
                total += (weights[None, :, :, :, a, b] * x).sum(axis=-1)
        far = jnp.roll(y, 4, axis=1)
        return jnp.tanh(total / 10) + far * jnp.exp(-sigma)

    key = jax.random.key(5)
    shares = (0.3, 0.6, 0.9)
    found = locality_profile(curved, *arrays, SIGMAS, key=key, q=shares, num_images=3, num_pixels=4)
    given = denoising.arguments(curved, *arrays, SIGMAS, key, 3, default=3)
    pixels = np.array([(i, j) for i in range(3, 9) for j in range(2, 8)])
    pick = jax.random.permutation(jax.random.fold_in(given.key, locality.PIXELS), 36)[:4]
    jacobian = jax.jacobian(lambda y, sigma: curved(y[None], sigma)[0])
    for values, noisy in (("value", given.train), ("control", given.held_out)):
        for t, sigma in enumerate(SIGMAS):
            mass = np.zeros(12)
            for i, image in zip(noisy.indices, noisy.images, strict=True):
                z = jax.random.normal(jax.random.fold_in(noisy.key, i), (12, 10, 2))
                y = image / 127.5 - 1 + sigma * np.asarray(z)
                gradients = np.abs(np.asarray(jacobian(jnp.asarray(y, jnp.float32), sigma)))
                for p, q in pixels[np.asarray(pick)]:
                    for a, b in np.ndindex(12, 10):
                        mass[max(abs(a - p), abs(b - q))] += gradients[p, q, :, a, b].sum()
            inside = np.cumsum(mass) / mass.sum()
            expected = [2 * np.flatnonzero(inside >= share)[0] + 1 for share in shares]
            assert [getattr(measure, values)[t] for measure in found] == expected
            assert len(set(expected)) > 1


def test_closed_forms_see_their_windows(digits):
    train, held_out = digits
    local = denoisers.LocalLinearDenoiser.fit(train, patch_size=3)
    widest = lambda d: locality_profile(
        d, train, held_out, [1.0], key=jax.random.key(0), q=(0.999,), num_images=4
    )[0].value[0]
    assert widest(local) == 3
    assert widest(denoisers.LinearDenoiser.fit(train)) > 7
    assert widest(denoisers.OptimalDenoiser.fit(train)) > 7


def test_an_answer_that_does_not_depend_on_y_has_side_0(arrays: Arrays):
    constant = lambda y, sigma: jnp.zeros_like(y)
    (found,) = locality_profile(constant, *arrays, SIGMAS, key=jax.random.key(0), q=(0.9,))
    np.testing.assert_array_equal(found.value, 0)
    np.testing.assert_array_equal(np.asarray(found.interval), 0)


def test_one_compilation_serves_all_images_and_levels(arrays: Arrays):
    traced = []

    def counting(y, sigma):
        traced.append(y.shape)
        return y * sigma

    locality_profile(counting, *arrays, [2.0, 1.0, 0.5, 0.1], key=jax.random.key(0))
    assert traced == [(1, 12, 10, 2)] * 2  # one to look for convolutions


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"q": ()}, "q must hold at least one share"),
        ({"q": (0.5, 1.0)}, r"q\[1\] must be in \(0, 1\); got 1.0"),
        ({"num_pixels": 37}, "num_pixels must be from 1 to 36; got 37"),
        ({"num_images": 9}, "num_images must be from 2 to 8; got 9"),
    ],
)
def test_refuses(options, words, arrays: Arrays):
    with pytest.raises(ValueError, match=words):
        locality_profile(windowed(3), *arrays, SIGMAS, key=jax.random.key(0), **options)


def test_refuses_gradients_that_are_not_finite(arrays: Arrays):
    kink = lambda y, sigma: jnp.sqrt(jnp.where(y > 0, 0.0, 0.0) * y)
    with pytest.raises(ValueError, match="finite values at every level; it does not at sigma = 2"):
        locality_profile(kink, *arrays, SIGMAS, key=jax.random.key(0))
