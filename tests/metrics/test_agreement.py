import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import denoisers
from jdiff.metrics import denoising, mse, pearson_r
from jdiff.metrics.agreement import agreements, cosine, determination, explained_by, r_squared


@pytest.mark.core
def test_pearson_r_is_numpys(rng):
    a = rng.normal(size=(40, 5, 4, 3))
    b = 0.5 * a + rng.normal(size=a.shape)
    found = pearson_r(a, b)
    expected = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(np.asarray(found.per_sample), expected, atol=1e-6)  # float32 inputs
    assert found.value == pytest.approx(np.mean(expected), abs=1e-6)
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]
    assert (found.control, found.control_interval) == (None, None)
    assert (found.n, found.features) == (40, "pixels")


def test_pearson_r_sees_neither_level_nor_contrast(rng):
    a = rng.normal(size=(9, 8, 8, 1))
    level, contrast = rng.normal(size=(2, 9, 1, 1, 1))
    for b, r in ((a * np.exp(contrast) + level, 1), (level - a, -1)):
        np.testing.assert_allclose(np.asarray(pearson_r(a, b).per_sample), r, atol=1e-6)


def test_mse_is_on_the_unit_range():
    a = np.zeros((2, 2, 2, 1))
    b = a.copy()
    b[1, 0, 0] = 1.0  # half a range on one pixel of four
    found = mse(a, b)
    np.testing.assert_allclose(np.asarray(found.per_sample), [0, 0.0625])
    assert found.value == 0.03125
    grey = np.full((2, 2, 2, 1), 51, np.uint8)
    assert mse(grey, grey + np.uint8(51)).value == pytest.approx(0.04, rel=1e-6)
    assert mse(a.reshape(2, 4), b.reshape(2, 4)).value == 0.125  # features as they are


CONSTANT = np.random.default_rng(0).normal(size=(5, 4, 4, 1))
CONSTANT[2], CONSTANT[4] = 0.3, 0.3 + 1e-8 * CONSTANT[4]
FINE = np.random.default_rng(1).normal(size=(5, 4, 4, 1))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: pearson_r(FINE, CONSTANT),
            "b must not hold constant images, .* not defined; got 2 of 5, the first at 2",
        ),
        (lambda: pearson_r(CONSTANT, FINE), "a must not hold constant images"),
        (lambda: pearson_r(FINE, FINE[:4]), r"b must have the shape of a, \(5, 4, 4, 1\); got"),
        (lambda: mse(FINE, FINE.reshape(5, 16)), "b must have the shape of a"),
        (lambda: mse(FINE[:1], FINE[:1]), "a must hold at least 2 samples; got 1"),
        (lambda: mse(FINE, FINE * np.nan), "b must be finite .* 5 of 5"),
    ],
)
def test_refuses(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.core
def test_five_numbers_are_their_definitions(rng):
    a = rng.normal(size=(30, 5, 4, 3))
    b = 0.5 * a + 0.3 * rng.normal(size=a.shape) + 0.2
    found = agreements(a, b)
    assert list(found) == ["pearson_r", "r_squared", "determination", "cosine", "mse"]
    unit = lambda x: (x.reshape(len(x), -1) + 1) / 2
    for i, (x, y) in enumerate(zip(unit(a), unit(b), strict=True)):
        r = np.corrcoef(x, y)[0, 1]
        expected = {
            "pearson_r": r,
            "r_squared": r**2,
            "determination": 1 - np.square(x - y).sum() / np.square(x - x.mean()).sum(),
            "cosine": x @ y / np.sqrt((x @ x) * (y @ y)),
            "mse": np.square(x - y).mean(),
        }
        for name, number in expected.items():
            values = np.asarray(found[name].per_sample)
            assert values[i] == pytest.approx(number, abs=2e-6)  # float32 inputs
    for name, measure in found.items():
        assert measure.name == name
        assert measure.value == pytest.approx(np.mean(np.asarray(measure.per_sample)), abs=1e-12)
        assert measure.control is None
    assert determination(a, b).value == found["determination"].value
    assert determination(b, a).value != found["determination"].value
    assert (r_squared(a, b), cosine(a, b)) == (found["r_squared"], found["cosine"])


def test_five_numbers_of_equal_and_opposite_images(rng):
    a = rng.normal(size=(9, 8, 8, 1))
    value = lambda name, b: agreements(a, b)[name].value
    for name, equal, negative in (
        ("pearson_r", 1, -1),
        ("r_squared", 1, 1),
        ("cosine", 1, None),
        ("mse", 0, None),
    ):
        assert value(name, a) == pytest.approx(equal, abs=1e-6)
        if negative is not None:
            assert value(name, -a) == pytest.approx(negative, abs=1e-6)
    assert value("determination", a) == 1
    mean = np.broadcast_to(a.mean(axis=(1, 2, 3), keepdims=True), a.shape)
    assert determination(a, mean).value == pytest.approx(0, abs=1e-6)  # constant b has an R2
    with pytest.raises(ValueError, match="a must not hold constant images"):
        determination(mean, a)
    # About a's mean level: 1 - |2 a|^2 / |a|^2.
    assert determination(a - mean, mean - a).value == pytest.approx(-3, abs=1e-5)


def test_cosine_is_taken_from_black(rng):
    features = np.array([[3.0, 4.0], [1.0, 0.0]])
    assert cosine(features, np.array([[4.0, 3.0], [0.0, 2.0]])).value == pytest.approx(0.48)
    white, grey = np.ones((2, 4, 4, 1)), np.zeros((2, 4, 4, 1))
    assert cosine(white, grey).value == pytest.approx(1)
    for black, count in ((-white, 2), (np.concatenate([grey[:1], -white[:1] + 1e-8]), 1)):
        with pytest.raises(ValueError, match=rf"b must not hold images that are black .* {count}"):
            cosine(white, black)
    with pytest.raises(ValueError, match="a must not hold images that are black"):
        cosine(features * 0, features)


SIGMAS = [2.0, 0.5, 0.0]
Arrays = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def arrays(rng) -> Arrays:
    train = rng.integers(0, 256, (30, 4, 5, 2), dtype=np.uint8)
    return train, rng.integers(0, 256, (20, 4, 5, 2), dtype=np.uint8)


def shrink(y, sigma):
    return y / (1 + sigma**2)


@pytest.mark.core
def test_explained_by_compares_answers_to_the_same_noisy_images(arrays: Arrays):
    other = lambda y, sigma: jnp.roll(y, 1, axis=1) * 0.3 + y * sigma
    key = jax.random.key(4)
    found = explained_by(
        shrink, {"itself": shrink, "other": other}, *arrays, SIGMAS, key=key, num_images=12
    )
    assert list(found) == ["itself", "other"]
    given = denoising.arguments(shrink, *arrays, SIGMAS, jax.random.key(4), 12, default=12)
    for attribute, noisy in (("value", given.train), ("control", given.held_out)):
        z = [jax.random.normal(jax.random.fold_in(noisy.key, i), (4, 5, 2)) for i in noisy.indices]
        for t, sigma in enumerate(SIGMAS[:-1]):
            y = jnp.asarray(noisy.images / 127.5 - 1 + sigma * np.asarray(z), jnp.float32)
            expected = agreements(*(np.asarray(d(y, sigma)) for d in (shrink, other)))
            for name, measure in expected.items():
                values = getattr(found["other"][name], attribute)
                # Compiled and eager float32 answers differ by 1e-7 of a range of 8.
                assert values[t] == pytest.approx(measure.value, abs=1e-5)
    for name, equal in (("pearson_r", 1), ("determination", 1), ("cosine", 1), ("mse", 0)):
        np.testing.assert_allclose(found["itself"][name].value, equal, atol=1e-6)
    r = found["other"]["r_squared"]
    assert (r.name, r.n, r.features) == ("r_squared", 12, "pixels")
    assert r.constants["reference"] == "other"
    assert np.asarray(r.per_sample).shape == (12, 2)
    assert r.interval is not None
    assert r.control is not None
    assert r.control_interval is not None
    assert np.all((r.interval[0] < r.value) & (r.value < r.interval[1]))
    assert np.all((r.control_interval[0] < r.control) & (r.control < r.control_interval[1]))


def test_a_local_denoiser_is_explained_by_its_own_kind(digits):
    train, held_out = digits
    fit = denoisers.LocalLinearDenoiser.fit
    half, local = (fit(x, patch_size=3) for x in (train[::2], train))
    references = {"local": local, "optimal": denoisers.OptimalDenoiser.fit(train)}
    found = explained_by(
        half, references, train, held_out, [0.5], key=jax.random.key(0), num_images=40
    )
    assert found["local"]["determination"].value[0] > 0.99
    assert found["optimal"]["determination"].value[0] < 0.95


@pytest.mark.parametrize(
    ("references", "words"),
    [
        ({}, "references must hold at least one denoiser"),
        (
            {"fitted": denoisers.wrap(shrink, (4, 5, 2), sigmas=[2.0])},
            r"references\['fitted'\]: sigmas asks for level 0.5",
        ),
        (
            {"grey": lambda y, sigma: jnp.zeros_like(y)},
            "grey's answers must not hold constant images.*got 20 of 20",
        ),
        ({"bad": lambda y, sigma: y * jnp.nan}, "denoiser must give finite values"),
    ],
)
def test_explained_by_refuses(references, words, arrays: Arrays):
    with pytest.raises(ValueError, match=words):
        explained_by(shrink, references, *arrays, SIGMAS, key=jax.random.key(0))


def test_explained_by_refuses_what_is_no_denoiser(arrays: Arrays):
    with pytest.raises(TypeError, match=r"references\['x'\] must be a callable; got int"):
        explained_by(shrink, {"x": 3}, *arrays, SIGMAS, key=jax.random.key(0))  # type: ignore
