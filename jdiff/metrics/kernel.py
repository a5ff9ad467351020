"""Do the samples look like data? By the mean of a polynomial kernel, with no fit in between.

    MMD^2 = mean k(g, g') + mean k(x, x') - 2 mean k(g, x),  k(u, v) = (u.v / d + 1)^3,

means over different points (g is not g'), so that its expectation is 0 for equal laws whatever the
number of points, and it may be negative. The kernel distance (KID) is its mean over random subsets.
It sees three moments. Everything is float64 on the host: two sets that agree to a thousandth leave
a difference of terms near 1 to 8, and a subset is small.
Source: Bińkowski et al. 2018, "Demystifying MMD GANs".
"""

import math
from typing import Any

import numpy as np

from jdiff import _check
from jdiff.metrics import inputs
from jdiff.metrics.draws import drawn
from jdiff.metrics.intervals import Z_95, Interval
from jdiff.metrics.measure import Measure

SUBSETS = 100
LARGEST = 1000  # points in a subset


def kernel_distance(generated: Any, train: Any, held_out: Any, *, seed: int = 0) -> Measure:
    """Kernel distance: MMD^2 of the cubic kernel, mean over 100 random subsets.

    Each takes m = min(1000, n // 2) of the first n = min(generated, held out) samples and as many
    training points, all of them where there are fewer. Subsets are drawn from points sorted by
    their contents: the order they come in does not matter.

    Args:
      generated: at least 4 images (uint8 or unclipped model units) or features, d values each.
      train: at least 2 training images or features.
      held_out: real images or features that were not trained on, for the control; as many.
      seed: of the subsets.

    Returns:
      Measure; `constants` holds the standard deviation over subsets, s. Subsets of m of n points
      overlap: their spread is the delete-(n - m) jackknife's, and the interval
      value +- 1.96 s sqrt(m / (n - m) + 1/100).

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, non-finite values or too few points.

    References:
      Bińkowski et al. 2018, section 4; Shao & Wu 1989, "A general theory for jackknife variance
      estimation".
    """
    given = inputs.check(generated, train, held_out)
    inputs.at_least(4, generated=given.generated, held_out=given.held_out)  # m is 2 or more
    inputs.at_least(2, train=given.train)
    seed = _check.integer("seed", seed, minimum=0)
    n, num = min(len(given.generated), len(given.held_out)), len(given.train)
    m, m_train = min(LARGEST, n // 2), min(LARGEST, n // 2, num)
    train = given.train[drawn(given.train, num)]
    sets = [points[drawn(points, n)] for points in (given.generated, given.held_out)]
    rng = np.random.default_rng(seed)
    distances = np.empty((len(sets), SUBSETS))
    for subset in range(SUBSETS):
        chosen = rng.permutation(n)[:m]
        x = _float64(train[rng.permutation(num)[:m_train]])
        own = _mean_off_diagonal(x)
        for i, points in enumerate(sets):
            g = _float64(points[chosen])
            distances[i, subset] = _mean_off_diagonal(g) + own - 2 * _kernel(g, x).mean()

    def measured(values: np.ndarray) -> tuple[float, float, Interval]:
        value, deviation = float(values.mean()), float(values.std(ddof=1))
        half = Z_95 * deviation * math.sqrt(m / (n - m) + 1 / SUBSETS)
        return value, deviation, (value - half, value + half)

    value, deviation, interval = measured(distances[0])
    control, _, control_interval = measured(distances[1])
    return Measure(
        "kernel_distance",
        value,
        interval,
        control,
        control_interval,
        n,
        given.features,
        {
            "subsets": SUBSETS,
            "subset_size": m,
            "train_subset_size": m_train,
            "subset_sd": deviation,
            "num_train": num,
            "seed": seed,
        },
    )


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # the Measure refuses what is not finite
        k = a @ b.T / a.shape[1] + 1
        return k * k * k


def _mean_off_diagonal(a: np.ndarray) -> float:
    k = _kernel(a, a)
    return float(k.sum() - np.trace(k)) / (len(a) * (len(a) - 1))


def _float64(points: np.ndarray) -> np.ndarray:
    return inputs.flat(points).astype(np.float64)
