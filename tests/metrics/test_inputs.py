import numpy as np
import pytest

from jdiff.metrics import inputs

IMAGES = np.zeros((3, 4, 4, 1), np.uint8)
FEATURES = np.zeros((3, 5))


def floats(value: float) -> np.ndarray:
    return np.full((3, 4, 4, 1), value, np.float32)


@pytest.mark.core
def test_flat_converts_images_to_unit_range_and_leaves_features():
    np.testing.assert_array_equal(
        inputs.flat(np.full((2, 1, 3, 1), 255, np.uint8)), np.ones((2, 3))
    )
    np.testing.assert_array_equal(inputs.flat(np.full((2, 1, 3, 1), -1.0)), np.zeros((2, 3)))
    np.testing.assert_array_equal(inputs.flat(np.full((2, 3), -1.0)), np.full((2, 3), -1.0))


def test_generated_may_leave_the_range_and_real_images_may_not():
    given = inputs.check(floats(-7.0), IMAGES, IMAGES)
    assert given.generated.min() == -7.0
    with pytest.raises(ValueError, match=r"held_out must lie in \[-1, 1\]"):
        inputs.check(IMAGES, IMAGES, floats(-7.0))


def test_names_the_space():
    assert inputs.check(IMAGES, IMAGES, IMAGES).features == "pixels"
    assert inputs.check(FEATURES, FEATURES, FEATURES).features == "features"


def test_features_become_float32():
    assert inputs.check(FEATURES, FEATURES, FEATURES).train.dtype == np.float32


BAD = np.zeros((3, 4, 4, 1))
BAD[0, 0], BAD[2, 1, 1] = np.nan, -np.inf


@pytest.mark.parametrize(
    ("generated", "train", "held_out", "error", "words"),
    [
        pytest.param(
            BAD, IMAGES, IMAGES, ValueError, "generated must be finite .* 2 of 3", id="nan"
        ),
        pytest.param(
            np.full((3, 5), 1e300), FEATURES, FEATURES, ValueError,
            "generated must be finite in float32; 3 of 3", id="float32 overflow",
        ),
        pytest.param(
            IMAGES, BAD, IMAGES, ValueError, "train holds NaN or infinite", id="nan in train"
        ),
        pytest.param(
            FEATURES, FEATURES, np.full((3, 5), np.nan), ValueError,
            "held_out must be finite", id="nan in features",
        ),
        pytest.param(
            np.linspace(0, 255, 48).reshape(3, 4, 4, 1), IMAGES, IMAGES, ValueError,
            r"generated must be in model units .* got \[0, 255\]. Pass 0..255 as uint8",
            id="0..255",
        ),
        pytest.param(
            IMAGES, floats(200.0), IMAGES, ValueError, r"train must lie in \[-1, 1\]",
            id="0..255 train",
        ),
        pytest.param(
            FEATURES, IMAGES, IMAGES, ValueError,
            r"generated must have the trailing shape of train, \(4, 4, 1\); got \(5,\)", id="ranks",
        ),
        pytest.param(
            IMAGES, IMAGES, IMAGES[:, :2], ValueError,
            r"held_out must have the trailing shape of train, \(4, 4, 1\); got \(2, 4, 1\)",
            id="shapes",
        ),
        pytest.param(
            IMAGES[0], IMAGES, IMAGES, ValueError,
            r"generated must be images .* or features .*; got shape \(4, 4, 1\)", id="rank 3",
        ),
        pytest.param(
            IMAGES[:0], IMAGES, IMAGES, ValueError, "generated must hold at least one", id="empty"
        ),
        pytest.param(
            IMAGES.astype(np.int32), IMAGES, IMAGES, TypeError,
            "generated must be uint8, or float in model units; got dtype int32", id="int images",
        ),
        pytest.param(
            FEATURES, FEATURES.astype(np.uint8), FEATURES, TypeError,
            "train must be float features; got dtype uint8", id="uint8 features",
        ),
    ],
)  # fmt: skip
def test_refuses(generated, train, held_out, error, words):
    with pytest.raises(error, match=words):
        inputs.check(generated, train, held_out)


def test_toy_points_have_no_range():
    points = np.linspace(0, 30, 6).reshape(3, 1, 1, 2)
    assert inputs.check(points, points, points).features == "pixels"
