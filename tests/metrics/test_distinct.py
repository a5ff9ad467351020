import numpy as np

from jdiff.metrics import distinct


def test_distinct_compares_what_is_measured():
    # In float32 (x + 1) / 2 does not tell 1e-9 from 2e-9; their distance is 0.
    x = np.array([1e-9, 2e-9, 0.5], np.float32).reshape(3, 1, 1, 1)
    np.testing.assert_array_equal(distinct(x), [0, 2])
    np.testing.assert_array_equal(distinct(x.reshape(3, 1)), [0, 1, 2])


def test_distinct_keeps_the_first_of_each(rng):
    images_ = rng.integers(0, 2, (200, 2, 3, 1), dtype=np.uint8)
    expected = np.sort(np.unique(images_.reshape(200, -1), axis=0, return_index=True)[1])
    np.testing.assert_array_equal(distinct(images_), expected)
    assert 1 < len(expected) < 200


def test_distinct_knows_that_minus_zero_is_zero():
    np.testing.assert_array_equal(
        distinct(np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, -1.0]])), [0, 2]
    )
