"""Does a set of samples lie closer to the training set than unseen real images do? C_T.

The training set is cut into k-means cells. In each, the distances of the generated samples and of
the held-out images to their nearest training image are compared by their ranks:

  U = #{generated farther than held-out} + #{equal} / 2,   z = (U - mn/2) / sd(U),
  C_T = sum_i p_i z_i,   p_i the held-out share of cell i among the cells kept.

C_T << 0: copies. C_T >> 0: nowhere near the data. If both sets are drawn from one distribution,
each z has mean 0 and deviation 1 given the cells' counts, and C_T the deviation sqrt(sum p_i^2).
Source: Meehan, Chaudhuri & Dasgupta 2020, "A non-parametric test to detect data-copying in
generative models". Other than there, the nearest training image may lie in another cell.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from jdiff import _check
from jdiff.metrics import inputs
from jdiff.metrics.distinct import digests
from jdiff.metrics.intervals import Z_95
from jdiff.metrics.measure import Measure
from jdiff.metrics.memorization import NearestTwo, known_two

STARTS: Any = 10  # of k-means, the best of which is kept; Any, as its type is guessed from "auto"
LEAST = 20  # generated samples in a cell, or it is left out
ROWS = 4096  # converted to float64 at a time


def copying_z(
    generated: Any,
    train: Any,
    held_out: Any,
    cells: int = 3,
    dim: int = 64,
    *,
    seed: int = 0,
    neighbors: NearestTwo | None = None,
    held_out_neighbors: NearestTwo | None = None,
) -> Measure:
    """C_T, the z-score by which samples lie closer to the training set than held-out images do.

    Cells come from k-means (the best of 10 seeded starts) on the first principal components of
    the training set; distances are taken in the given space. A cell with fewer than 20 generated
    samples, or without held-out images, is left out. Equal distances have mid-ranks, and sd(U) is
    corrected for them; a cell where all are equal has z = 0. There is no continuity correction.

    Args:
      generated: m images (uint8 or unclipped model units) or features.
      train: training images or features.
      held_out: real images or features that were not trained on. The measure is a contrast with
        them and has no control.
      cells: how many, from 1 to the number of distinct training images.
      dim: principal components that cells are found in; all of them where there are fewer.
      seed: of k-means.
      neighbors: `nearest_two(generated, train)`, if it is known.
      held_out_neighbors: `nearest_two(held_out, train)`, if it is known.

    Returns:
      Measure; `constants` holds `null_deviation` = sqrt(sum p_i^2), how many cells were kept, and
      how many generated samples lie in the others; `per_sample` holds the distances of the
      generated samples. The interval is value +- 1.96 null_deviation: of samples of the
      distribution that held-out images come from, 95 % hold 0. It is the width of chance where
      nothing is copied; where something is, the value's own spread may be smaller or larger.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, non-finite values, fewer than 20 generated samples or two
        distinct training images, too many cells, neighbours of other arrays, or if no cell can be
        kept.

    References:
      Meehan et al. 2020 (3 cells, tau = 20/m).
    """
    given = inputs.check(generated, train, held_out)
    m, n = len(given.generated), len(given.held_out)
    inputs.at_least(LEAST, generated=given.generated)
    cells, dim = _check.integer("cells", cells), _check.integer("dim", dim)
    seed = _check.integer("seed", seed, minimum=0, maximum=2**32 - 1)
    two = known_two("neighbors", neighbors, given.generated, given.train)
    held_out_two = known_two("held_out_neighbors", held_out_neighbors, given.held_out, given.train)
    distances, control = two.d1, held_out_two.d1
    if cells > two.num_distinct:
        raise ValueError(
            f"cells must be at most {two.num_distinct}, the number of distinct images in train; "
            f"got {cells}."
        )
    dim = min(dim, math.prod(given.train.shape[1:]))
    cell, control_cell = _cells(given, cells, dim, seed)

    counts, control_counts = (np.bincount(c, minlength=cells) for c in (cell, control_cell))
    kept = np.flatnonzero((counts >= LEAST) & (control_counts > 0))
    if not len(kept):
        raise ValueError(
            f"one of {cells} cells must hold at least {LEAST} generated samples and one held-out "
            f"image; got {counts.tolist()} and {control_counts.tolist()}. Pass fewer cells."
        )
    z = [mann_whitney_z(distances[cell == i], control[control_cell == i]) for i in kept]
    p = control_counts[kept] / control_counts[kept].sum()
    value, null = float(p @ z), float(np.sqrt(p @ p))
    return Measure(
        "copying_z",
        value,
        (value - Z_95 * null, value + Z_95 * null),
        None,
        None,
        m,
        given.features,
        {
            "cells": cells,
            "kept": len(kept),
            "left_out": m - int(counts[kept].sum()),
            "dim": dim,
            "null_deviation": null,
            "num_train": len(given.train),
            "num_held_out": n,
            "seed": seed,
        },
        distances,
    )


def mann_whitney_z(a: np.ndarray, b: np.ndarray) -> float:
    """(U - mn/2) / sd(U) of two sets of numbers, negative where those of `a` are smaller.

    sd(U)^2 = mn/12 (N + 1 - sum (t^3 - t) / (N (N - 1))), N = m + n, over groups of t equal ones.

    Args:
      a: [m] finite numbers, m >= 1.
      b: [n] finite numbers, n >= 1.

    Returns:
      The z-score; 0 where all N are equal.

    Example:
      >>> round(mann_whitney_z(np.array([1.0, 2.0]), np.array([2.0, 3.0])), 3)
      -1.225
    """
    m, n = len(a), len(b)
    total = m + n
    _, group, ties = np.unique(np.concatenate([a, b]), return_inverse=True, return_counts=True)
    if len(ties) == 1:
        return 0.0
    middle = np.cumsum(ties) - (ties - 1) / 2  # the mean rank of each group
    u = middle[group[:m]].sum() - m * (m + 1) / 2
    t = ties.astype(np.float64)
    correction = np.sum(t**3 - t) / (total * (total - 1))
    return float((u - m * n / 2) / math.sqrt(m * n / 12 * (total + 1 - correction)))


def _cells(given: inputs.Inputs, cells: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which cell each generated sample and each held-out image lies in."""
    from sklearn.cluster import KMeans  # a second that `import jdiff` need not take
    from threadpoolctl import threadpool_limits  # scikit-learn's own dependency

    # Sorted by content: the seeded starts pick rows by number, and the order of a set says nothing.
    marks = [mark for rows in _float64(given.train) for mark in digests(rows)]
    train = given.train[sorted(range(len(marks)), key=marks.__getitem__)]
    mean, axes = _principal_axes(train, dim)
    project = lambda array: np.concatenate([(rows - mean) @ axes for rows in _float64(array)])
    points, *others = (project(array) for array in (train, given.generated, given.held_out))
    # One thread: its sums have one order, and where cores are shared scikit-learn's threads wait
    # for each other (600 rows of 64 took 4 s on two busy cores instead of 0.05).
    with threadpool_limits(1):
        means = KMeans(cells, n_init=STARTS, random_state=seed).fit(points)
        generated, held_out = (np.asarray(means.predict(other)) for other in others)
    return generated, held_out


def _principal_axes(train: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean [d] and the `dim` eigenvectors [d, dim] of largest variance, float64."""
    import scipy.linalg  # a tenth of a second that `import jdiff` need not take

    size = math.prod(train.shape[1:])
    mean, scatter = np.zeros(size), np.zeros((size, size))
    for rows in _float64(train):
        mean += rows.sum(axis=0) / len(train)
    for rows in _float64(train):
        scatter += (rows - mean).T @ (rows - mean)
    _, axes = scipy.linalg.eigh(scatter, subset_by_index=[size - dim, size - 1])
    return mean, axes


def _float64(points: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(points), ROWS):
        yield inputs.flat(points[start : start + ROWS]).astype(np.float64)
