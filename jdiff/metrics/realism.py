"""Do the samples look like data? Two moments of the whole set against the training set's.

frechet_distance: |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)) between Gaussian fits. It depends on
the number of points, so value and control take the same n, the smaller of the two.
Source: Heusel et al. 2017 (FID; on pixels it is no FID, and is not called so).
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jdiff.metrics import inputs
from jdiff.metrics.draws import drawn
from jdiff.metrics.intervals import NUM_PARTS, parts_interval
from jdiff.metrics.measure import Measure

ROWS = 4096  # converted to float64 at a time


class Moments(NamedTuple):
    """Mean, covariance and its root of a set of points, float64; computed once for many sets.

    Attributes:
      mean: [d].
      trace: of the covariance (divided by n - 1).
      root: [d, d], the symmetric square root of the covariance.
      n: the number of points.
    """

    mean: np.ndarray
    trace: float
    root: np.ndarray
    n: int


def moments(train: Any) -> Moments:
    """The Gaussian fit of a set of at least two images (on [0, 1]) or features.

    Args:
      train: [N, H, W, C] uint8 or model units in [-1, 1], or [N, d] features.

    Raises:
      TypeError: on a dtype that is neither uint8 nor floating.
      ValueError: on a wrong rank, non-finite values or fewer than two points.
    """
    train = inputs.real("train", train)
    inputs.at_least(2, train=train)
    n = len(train)
    dim = math.prod(train.shape[1:])
    mean, covariance = np.zeros(dim), np.zeros((dim, dim))
    for rows in _float64(train):
        mean += rows.sum(axis=0) / n
    for rows in _float64(train):
        covariance += (rows - mean).T @ (rows - mean) / (n - 1)
    values, vectors = np.linalg.eigh(covariance)
    # A covariance has no negative eigenvalue; those of a deficient one are rounding.
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return Moments(mean, float(np.trace(covariance)), root, n)


def frechet_distance(
    generated: Any, train: Any, held_out: Any, *, train_moments: Moments | None = None
) -> Measure:
    """Fréchet distance between the Gaussian fits of the samples and of the training set.

    |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)), covariances divided by n - 1.

    With fewer points than features it is computed all the same, and said in `constants`. A value
    below the control means that two moments agree better than those of so many real images do, and
    not that the samples look real: N(m, S) itself scores best.

    Args:
      generated: images (uint8 or unclipped model units) or features, at least 20.
      train: training images or features, at least 2.
      held_out: real images or features that were not trained on, at least 20, for the control.
      train_moments: `moments(train)`, if it is known.

    Returns:
      Measure on n = min(generated, held out) of each (draws.py); intervals from 10 disjoint parts
      of part_size points, +- 2.26 sd / sqrt(10).

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, non-finite values, too few points or other moments.

    References:
      Dowson & Landau 1982; Heusel et al. 2017.
    """
    given = inputs.check(generated, train, held_out)
    least = 2 * NUM_PARTS  # a part needs two points
    inputs.at_least(least, generated=given.generated, held_out=given.held_out)
    dim = math.prod(given.train.shape[1:])
    fit = train_moments if train_moments is not None else moments(given.train)
    if fit.mean.shape != (dim,) or fit.n != len(given.train):
        raise ValueError(
            f"train_moments must be moments(train), of {len(given.train)} points with {dim} "
            f"values; got those of {fit.n} points with {len(fit.mean)}."
        )
    n = min(len(given.generated), len(given.held_out))
    size = n // NUM_PARTS

    def measured(points: np.ndarray) -> tuple[float, tuple[float, float]]:
        points = np.concatenate(list(_float64(points[drawn(points, n)])))
        parts = [_frechet(points[i * size : (i + 1) * size], fit) for i in range(NUM_PARTS)]
        value = _frechet(points, fit)
        return value, parts_interval(value, parts)

    value, interval = measured(given.generated)
    control, control_interval = measured(given.held_out)
    return Measure(
        "frechet_distance",
        value,
        interval,
        control,
        control_interval,
        n,
        given.features,
        {
            "part_size": size,
            "num_train": len(given.train),
            "num_features": dim,
            "fewer_points_than_features": min(n, len(given.train)) < dim,
        },
    )


def _frechet(points: np.ndarray, fit: Moments) -> float:
    """The distance of float64 points [n, d] from a fit, without forming their covariance."""
    mean = points.mean(axis=0)
    a = (points - mean) / math.sqrt(len(points) - 1)
    # S1 = a^T a, and Tr(S1 S2)^(1/2) is the sum of the singular values of a S2^(1/2): no complex
    # root, no root of an eigenvalue that is rounding, and cheap for few points.
    cross = np.linalg.svd(a @ fit.root, compute_uv=False).sum()
    distance = np.square(mean - fit.mean).sum() + np.square(a).sum() + fit.trace - 2 * cross
    return max(0.0, float(distance))  # it is not negative but for rounding


def _float64(points: np.ndarray) -> Iterator[np.ndarray]:
    """[0, 1] pixels or features as float64 rows, a few thousand at a time."""
    for start in range(0, len(points), ROWS):
        yield inputs.flat(points[start : start + ROWS]).astype(np.float64)
