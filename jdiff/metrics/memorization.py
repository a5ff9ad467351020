"""Are the samples copies? From d1 <= d2, the distances to the two nearest training images.

A copy lies far closer to its original than to anything else: memorized_fraction is the share with
d1/d2 < c. Exact repeats in the training set count once (else d1 = d2 hides a copy).
Sources: Yoon et al. 2023, "Diffusion probabilistic models generalize when they fail to memorize";
Gu et al. 2023, "On memorization in diffusion models".
"""

import dataclasses
import math
from typing import Any

import numpy as np

from jdiff import _check
from jdiff.metrics import inputs
from jdiff.metrics.intervals import bootstrap_mean, wilson
from jdiff.metrics.measure import Measure
from jdiff.metrics.neighbors import distinct, nearest


@dataclasses.dataclass(frozen=True)
class NearestTwo:
    """Each sample's two nearest distinct training images; computed once, used by every measure.

    Attributes:
      d1: float64 [n], distance to the nearest.
      d2: float64 [n], distance to the second nearest.
      index: int [n], which training image is nearest.
      second_index: int [n], which is second.
      num_train: the size of the training set.
      num_distinct: its size without exact repeats.
    """

    d1: np.ndarray
    d2: np.ndarray
    index: np.ndarray
    second_index: np.ndarray
    num_train: int
    num_distinct: int

    @property
    def ratio(self) -> np.ndarray:
        """d1/d2, float64 [n], in [0, 1]: near 0 for a copy, near 1 for a stranger."""
        return self.d1 / self.d2


def nearest_two(generated: Any, train: Any) -> NearestTwo:
    """The two nearest distinct training images of each sample.

    Args:
      generated: [n, H, W, C] uint8 or unclipped model units, or [n, d] features.
      train: [N, H, W, C] uint8 or model units in [-1, 1], or [N, d] features.

    Raises:
      TypeError: on a dtype that is neither uint8 nor floating.
      ValueError: on shapes that differ, non-finite values, or fewer than two distinct training
        images, where d2 does not exist.
    """
    train = inputs.real("train", train)
    generated = inputs.samples("generated", generated)
    inputs.same_shape("train", train, generated=generated)
    firsts = distinct(train)
    if len(firsts) < 2:
        raise ValueError(
            "train must hold at least two distinct images, or d2 does not exist; got "
            f"{len(train)} images of which {len(firsts)} is distinct."
        )
    found = nearest(generated, train, 2, among=firsts)
    (d1, d2), (index, second) = found.distances.T, found.indices.T
    return NearestTwo(d1, d2, index, second, len(train), len(firsts))


def memorized_fraction(
    generated: Any,
    train: Any,
    held_out: Any,
    c: float = 1 / 3,
    *,
    neighbors: NearestTwo | None = None,
    held_out_neighbors: NearestTwo | None = None,
) -> Measure:
    """The share of samples with d1/d2 < c.

    Args:
      generated: n images (uint8 or unclipped model units) or features.
      train: N training images or features.
      held_out: real images or features that were not trained on, for the control.
      c: the threshold, in (0, 1].
      neighbors: `nearest_two(generated, train)`, if it is known.
      held_out_neighbors: `nearest_two(held_out, train)`, if it is known.

    Returns:
      Measure with Wilson's intervals; `per_sample` holds d1/d2.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, non-finite values, a c out of range, neighbours of other
        arrays, or fewer than two distinct training images.

    References:
      Yoon et al. 2023; Gu et al. 2023.
    """
    given = inputs.check(generated, train, held_out)
    c = _check.number("c", c, above=0.0, below=1.0, closed="]")
    two = _known("neighbors", neighbors, given.generated, given.train)
    control = _known("held_out_neighbors", held_out_neighbors, given.held_out, given.train)
    copies, control_copies = (int(np.sum(x.ratio < c)) for x in (two, control))
    n, m = len(two.d1), len(control.d1)
    return Measure(
        "memorized_fraction",
        copies / n,
        wilson(copies, n),
        control_copies / m,
        wilson(control_copies, m),
        n,
        given.features,
        {
            "c": c,
            "num_train": two.num_train,
            "num_distinct": two.num_distinct,
            "num_held_out": m,
        },
        two.ratio,
    )


def nearest_rms(
    generated: Any,
    train: Any,
    held_out: Any,
    *,
    seed: int = 0,
    neighbors: NearestTwo | None = None,
    held_out_neighbors: NearestTwo | None = None,
) -> Measure:
    """Mean root-mean-square difference to the nearest training image, d1 / sqrt(d).

    Args:
      generated: n >= 2 images (uint8 or unclipped model units) or features, d values each.
      train: N training images or features.
      held_out: at least 2 real images or features that were not trained on, for the control.
      seed: of the bootstrap, whose neighbours are held fixed.
      neighbors: `nearest_two(generated, train)`, if it is known.
      held_out_neighbors: `nearest_two(held_out, train)`, if it is known.

    Returns:
      Measure with bootstrap intervals; `per_sample` holds d1 / sqrt(d). On pixels 1 is the
      distance from black to white.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, non-finite values, neighbours of other arrays, or fewer
        than two samples.

    References:
      Gu et al. 2023.
    """
    given = inputs.check(generated, train, held_out)
    inputs.at_least(2, generated=given.generated, held_out=given.held_out)
    dim = math.prod(given.train.shape[1:])

    def rms(name: str, known: NearestTwo | None, points: np.ndarray) -> np.ndarray:
        if known is None:  # one neighbour, and so one training image, is enough
            return nearest(points, given.train, 1).distances[:, 0] / math.sqrt(dim)
        return _known(name, known, points, given.train).d1 / math.sqrt(dim)

    values = rms("neighbors", neighbors, given.generated)
    control = rms("held_out_neighbors", held_out_neighbors, given.held_out)
    return Measure(
        "nearest_rms",
        float(values.mean()),
        bootstrap_mean(values, seed),
        float(control.mean()),
        bootstrap_mean(control, seed),
        len(values),
        given.features,
        {"d": dim, "num_train": len(given.train), "num_held_out": len(control), "seed": seed},
        values,
    )


def _known(
    name: str, known: NearestTwo | None, points: np.ndarray, train: np.ndarray
) -> NearestTwo:
    if known is None:
        return nearest_two(points, train)
    if len(known.d1) != len(points) or known.num_train != len(train):
        raise ValueError(
            f"{name} must be nearest_two of these {len(points)} samples and {len(train)} training "
            f"images; got that of {len(known.d1)} and {known.num_train}."
        )
    return known
