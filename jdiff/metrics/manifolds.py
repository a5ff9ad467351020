"""Do the samples lie where the data lie, and everywhere there? By k-nearest-neighbour balls.

The ball of a point reaches to its k-th nearest other one in its own set. With n samples g and N
training points x,

    precision = share of g in the ball of some x        density  = mean of (balls of x around g) / k
    recall    = share of x in the ball of some g        coverage = share of balls of x that hold a g

precision and recall count a ball however large, so that one outlier covers a wide region; density
and coverage are their remedy, 1 and nearly 1 for real points. All depend on n: value and control
take the same, the smaller of the two. A point on the sphere is inside.
Sources: Kynkäänniemi et al. 2019, "Improved precision and recall metric for assessing generative
models"; Naeem et al. 2020, "Reliable fidelity and diversity metrics for generative models", whose
package leaves points on the sphere (copies of training points among them) outside.
"""

from typing import Any

import numpy as np

from jdiff import _check
from jdiff.metrics import inputs
from jdiff.metrics.balls import in_balls
from jdiff.metrics.draws import drawn, in_order
from jdiff.metrics.intervals import (
    NUM_PARTS,
    Interval,
    bootstrap_mean,
    left_out_interval,
    wilson,
)
from jdiff.metrics.measure import Measure
from jdiff.metrics.neighbors import nearest

NAMES = ("precision", "recall", "density", "coverage")


def ball_radii(train: Any, k: int = 5) -> np.ndarray:
    """Distance from each training point to its k-th nearest other one, float64 [N].

    Args:
      train: [N, H, W, C] uint8 or model units in [-1, 1], or [N, d] features.
      k: from 1 to N - 1; the point itself does not count, exact repeats of it do.

    Raises:
      TypeError: on a dtype that is neither uint8 nor floating.
      ValueError: on a wrong rank, non-finite values or a k out of range.
    """
    return _radii(inputs.real("train", train), k)


def prdc(
    generated: Any,
    train: Any,
    held_out: Any,
    k: int = 5,
    *,
    seed: int = 0,
    radii: np.ndarray | None = None,
) -> dict[str, Measure]:
    """precision, recall, density and coverage, which share their distances.

    Args:
      generated: images (uint8 or unclipped model units) or features, at least k + 1 and 10.
      train: N training images or features.
      held_out: real images or features that were not trained on, for the control; as many.
      k: which neighbour gives a ball its radius, from 1 to N - 1.
      seed: of density's bootstrap.
      radii: `ball_radii(train, k)`, if it is known.

    Returns:
      What the functions of these names return, by name.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, non-finite values, a k out of range, other radii or too few
        samples.

    Example:
      >>> x = np.arange(40.0)[:, None]
      >>> found = prdc(x[::2] + 0.25, x, x[1::2], k=1)
      >>> {name: measure.value for name, measure in found.items()}
      {'precision': 1.0, 'recall': 1.0, 'density': 2.0, 'coverage': 1.0}
    """
    return _measured(NAMES, generated, train, held_out, k, seed, radii)


def precision(
    generated: Any, train: Any, held_out: Any, k: int = 5, *, radii: np.ndarray | None = None
) -> Measure:
    """The share of samples inside the union of the training set's k-nearest-neighbour balls.

    Args:
      generated: images (uint8 or unclipped model units) or features.
      train: N training images or features.
      held_out: real images or features that were not trained on, for the control.
      k: which neighbour gives a ball its radius, from 1 to N - 1.
      radii: `ball_radii(train, k)`, if it is known.

    Returns:
      Measure with Wilson's intervals on n = min(generated, held out) of each (draws.py);
      `per_sample` holds 1 for inside and 0 for outside.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, non-finite values, a k out of range or other radii.

    References:
      Kynkäänniemi et al. 2019, eq. 1 and 2.
    """
    return _measured(("precision",), generated, train, held_out, k, 0, radii)["precision"]


def recall(generated: Any, train: Any, held_out: Any, k: int = 5) -> Measure:
    """The share of training points inside the union of the samples' k-nearest-neighbour balls.

    Args:
      generated: images (uint8 or unclipped model units) or features, at least k + 1 and 10.
      train: N training images or features.
      held_out: real images or features that were not trained on, for the control; as many.
      k: which neighbour gives a ball its radius.

    Returns:
      Measure on n = min(generated, held out) of each (draws.py); intervals as those of `coverage`.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, non-finite values, a k out of range or too few samples.

    References:
      Kynkäänniemi et al. 2019, eq. 1 and 2.
    """
    return _measured(("recall",), generated, train, held_out, k, 0, None)["recall"]


def density(
    generated: Any,
    train: Any,
    held_out: Any,
    k: int = 5,
    *,
    seed: int = 0,
    radii: np.ndarray | None = None,
) -> Measure:
    """Mean number of training balls around a sample, divided by k; above 1 where data are dense.

    Args:
      generated: at least 2 images (uint8 or unclipped model units) or features.
      train: N training images or features.
      held_out: real images or features that were not trained on, for the control; as many.
      k: which neighbour gives a ball its radius, from 1 to N - 1.
      seed: of the bootstrap, whose balls are held fixed.
      radii: `ball_radii(train, k)`, if it is known.

    Returns:
      Measure with bootstrap intervals on n = min(generated, held out) of each (draws.py);
      `per_sample` holds each sample's number of balls, divided by k.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, non-finite values, a k out of range, other radii or too few
        samples.

    References:
      Naeem et al. 2020, eq. 3.
    """
    return _measured(("density",), generated, train, held_out, k, seed, radii)["density"]


def coverage(
    generated: Any, train: Any, held_out: Any, k: int = 5, *, radii: np.ndarray | None = None
) -> Measure:
    """The share of the training set's k-nearest-neighbour balls that hold a sample.

    Of n samples and N training points from one continuous law it is expected to be
    1 - (N - 1) .. (N - k) / ((N + n - 1) .. (N + n - k)), whatever the law.

    Args:
      generated: at least 10 images (uint8 or unclipped model units) or features.
      train: N training images or features.
      held_out: real images or features that were not trained on, for the control; as many.
      k: which neighbour gives a ball its radius, from 1 to N - 1.
      radii: `ball_radii(train, k)`, if it is known.

    Returns:
      Measure on n = min(generated, held out) of each (draws.py). Neighbouring balls hold the same
      samples, so that Wilson's interval over the N balls alone is too narrow (it held the expected
      value in 79 to 96 % of repetitions): the intervals come from leaving out tenths of the samples
      (`left_out_interval`), balls held fixed, and are never narrower than Wilson's.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, non-finite values, a k out of range, other radii or too few
        samples.

    References:
      Naeem et al. 2020, eq. 4 and lemma 2.
    """
    return _measured(("coverage",), generated, train, held_out, k, 0, radii)["coverage"]


def _measured(
    names: tuple[str, ...],
    generated: Any,
    train: Any,
    held_out: Any,
    k: int,
    seed: int,
    radii: np.ndarray | None,
) -> dict[str, Measure]:
    """Every public function above: one pass over all distances, and what is asked of it."""
    given = inputs.check(generated, train, held_out)
    recalls = "recall" in names
    if names == ("recall",):  # no balls around training points
        k = _check.integer("k", k)
    else:
        k = _check.integer("k", k, maximum=max(1, len(given.train) - 1))
        radii = _radii(given.train, k) if radii is None else radii
    parts = recalls or "coverage" in names
    least = max(k + 1 if recalls else 1, NUM_PARTS if parts else 1, 2 if "density" in names else 1)
    inputs.at_least(least, generated=given.generated, held_out=given.held_out)
    n, num = min(len(given.generated), len(given.held_out)), len(given.train)

    def share(seen: np.ndarray) -> tuple[float, Interval, None]:
        """The share of training points that some sample sees, from seen [parts, N]."""
        successes = int(seen.any(axis=0).sum())
        left_out = [np.delete(seen, part, axis=0).any(axis=0).mean() for part in range(NUM_PARTS)]
        ends = left_out_interval(successes / num, left_out)
        # Near 0 and 1 leaving out may change nothing: never narrower than Wilson's.
        narrow = wilson(successes, num)
        interval = min(narrow[0], max(0.0, ends[0])), max(narrow[1], min(1.0, ends[1]))
        return successes / num, interval, None

    def measured(points: np.ndarray) -> dict[str, tuple[float, Interval, np.ndarray | None]]:
        chosen = drawn(points, n)
        points = points[chosen]
        found = in_balls(
            points,
            given.train,
            radii=radii,
            # Flat: as references, float images that leave [-1, 1] are refused.
            query_radii=_radii(inputs.flat(points), k) if recalls else None,
            num_parts=NUM_PARTS if parts else 1,
        )
        inside, balls = (
            in_order(x, chosen) for x in ((found.inside > 0).astype(np.float64), found.inside / k)
        )
        results = {
            "precision": lambda: (inside.mean(), wilson(int(inside.sum()), n), inside),
            "recall": lambda: share(found.reached),
            "density": lambda: (balls.mean(), bootstrap_mean(balls, seed), balls),
            "coverage": lambda: share(found.hit),
        }
        return {name: results[name]() for name in names}

    values, controls = measured(given.generated), measured(given.held_out)
    more = {
        "precision": {},
        "recall": {"part_size": n // NUM_PARTS},
        "density": {"seed": seed},
        "coverage": {"part_size": n // NUM_PARTS},
    }
    return {
        name: Measure(
            name,
            float(values[name][0]),
            values[name][1],
            float(controls[name][0]),
            controls[name][1],
            n,
            given.features,
            {"k": k, "num_train": num, **more[name]},
            values[name][2],
        )
        for name in names
    }


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    return nearest(points, points, k, exclude_self=True).distances[:, -1]
