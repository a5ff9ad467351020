import numpy as np
import pytest

from jdiff.metrics import mse, pearson_r


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
