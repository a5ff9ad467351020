"""How many different things are among the samples? No reference, only the samples themselves.

    vendi = exp(-sum_i l_i log l_i),  l the eigenvalues of K / n,  K_ij = cos(x_i, x_j):

1 if all point the same way, n if all are orthogonal. X^T X and X X^T share the eigenvalues that are
not 0, so the smaller of the two is taken, in float64 on the host. On pixels ([0, 1]) all cosines
are near 1, and the number says little: give features. It grows with n: value and control take the
same, the smaller of the two.
Source: Friedman & Dieng 2022, "The Vendi score: a diversity evaluation metric for machine
learning".
"""

from typing import Any

import numpy as np

from jdiff.metrics import inputs
from jdiff.metrics.draws import drawn
from jdiff.metrics.intervals import NUM_PARTS, Interval, left_out_interval, part_of
from jdiff.metrics.measure import Measure


def vendi(generated: Any, train: Any, held_out: Any) -> Measure:
    """Vendi score: the effective number of different samples.

    Args:
      generated: at least 20 images (uint8 or unclipped model units) or features.
      train: training images or features; only their shape is read.
      held_out: real images or features that were not trained on, at least 20, for the control.

    Returns:
      Measure on n = min(generated, held out) of each (draws.py); intervals from leaving out tenths
      of them (`left_out_interval`), which takes the eigenvalues of 11 matrices of min(n, d) rows
      for each set: minutes where that is 2,048.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, non-finite values, too few points, or points that are 0
        everywhere (black images), which have no cosine.

    References:
      Friedman & Dieng 2022, definition 1.
    """
    given = inputs.check(generated, train, held_out)
    inputs.at_least(2 * NUM_PARTS, generated=given.generated, held_out=given.held_out)
    n = min(len(given.generated), len(given.held_out))

    def measured(name: str, points: np.ndarray) -> tuple[float, Interval]:
        x = _directions(name, points[drawn(points, n)])
        part = part_of(n)
        if x.shape[1] < n:
            gram = x.T @ x
            without = lambda p: gram - x[part == p].T @ x[part == p]
        else:
            gram = x @ x.T
            without = lambda p: gram[np.ix_(part != p, part != p)]
        value = _score(gram / n)
        left_out = [_score(without(p) / np.sum(part != p)) for p in range(NUM_PARTS)]
        return value, left_out_interval(value, left_out)

    value, interval = measured("generated", given.generated)
    control, control_interval = measured("held_out", given.held_out)
    return Measure(
        "vendi",
        value,
        interval,
        control,
        control_interval,
        n,
        given.features,
        {"part_size": n // NUM_PARTS},
    )


def _score(kernel: np.ndarray) -> float:
    values = np.linalg.eigvalsh(kernel)
    values = values[values > 0]  # none is negative but for rounding, and 0 log 0 = 0
    return float(np.exp(-np.sum(values * np.log(values))))


def _directions(name: str, points: np.ndarray) -> np.ndarray:
    """x / |x|, float64 [n, d]."""
    x = inputs.flat(points).astype(np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    zeros = int(np.sum(norms == 0))
    if zeros:
        raise ValueError(
            f"{name} must hold no sample that is 0 everywhere (a black image): it has no cosine "
            f"with others; got {zeros} among the first {len(points)}."
        )
    return x / norms
