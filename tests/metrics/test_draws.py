"""Equally many samples, and tenths of them, whatever order they come in."""

import numpy as np
import pytest

from jdiff.metrics.draws import drawn, in_order


@pytest.mark.core
def test_the_same_points_in_another_order_give_the_same_draw(rng):
    points = rng.normal(size=(90, 3)).astype(np.float32)
    points[40:60] = points[0]  # repeats
    order = rng.permutation(90)
    a, b = points[drawn(points, 37)], points[order][drawn(points[order], 37)]
    np.testing.assert_array_equal(a, b)
    assert len(set(drawn(points, 37))) == 37
    assert sorted(drawn(points, 90)) == list(range(90))


def test_a_draw_of_sorted_points_holds_every_kind(rng):
    """100 points of each of ten classes, in rows: of 200 drawn each class has about 20."""
    points = np.repeat(np.arange(10.0), 100)[:, None] + rng.uniform(0, 0.5, (1000, 1))
    classes = np.bincount(points[drawn(points, 200), 0].astype(int), minlength=10)
    # Hypergeometric: 20 with a deviation of 3.8; five deviations of ten classes have p = 6e-6.
    assert classes.min() > 20 - 5 * 3.8
    assert classes.max() < 20 + 5 * 3.8
    # Repeats are scattered over the tenths.
    repeats = np.flatnonzero(drawn(np.r_[np.zeros((50, 1)), np.arange(1.0, 51)[:, None]], 100) < 50)
    tenths = np.bincount(repeats // 10, minlength=10)
    assert tenths.max() < 10


@pytest.mark.core
def test_in_order_undoes_the_draw(rng):
    points = rng.normal(size=(50, 2)).astype(np.float32)
    chosen = drawn(points, 20)
    values = points[chosen, 0] * 2
    np.testing.assert_array_equal(in_order(values, chosen), points[np.sort(chosen), 0] * 2)
