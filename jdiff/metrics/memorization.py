"""Are the samples copies? From d1 <= d2 <= ..., the distances to the nearest training images.

A copy lies far closer to its original than to anything else:
memorized_fraction: the share with d1/d2 < c. nearest_rms: mean d1/sqrt(d).
calibrated_distance: the share with d1/(alpha mean(d1 .. dn)) <= 1.
copy_rate: the share whose largest cosine with a training row exceeds tau.
authenticity: the share with d1 > the distance from the nearest training image to its own nearest.
Where several distances are compared, exact repeats in the training set count once (else d1 = d2
hides a copy).
Sources: Yoon et al. 2023, "Diffusion probabilistic models generalize when they fail to memorize";
Gu et al. 2023, "On memorization in diffusion models"; Carlini et al. 2023, "Extracting training
data from diffusion models"; Somepalli et al. 2023, "Diffusion art or digital forgery?"; Alaa et
al. 2022, "How faithful is your synthetic data?".
"""

import dataclasses
import math
from typing import Any

import numpy as np

from jdiff import _check
from jdiff.metrics import inputs
from jdiff.metrics.distinct import distinct
from jdiff.metrics.intervals import bootstrap_mean, wilson
from jdiff.metrics.measure import Measure
from jdiff.metrics.neighbors import (
    CosineNeighbors,
    Neighbors,
    nearest,
    nearest_cosine,
)


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

    @classmethod
    def of(cls, found: Neighbors, num_train: int, num_distinct: int) -> "NearestTwo":
        """The first two of the nearest distinct training images."""
        (d1, d2), (index, second) = found.distances[:, :2].T, found.indices[:, :2].T
        return cls(d1, d2, index, second, num_train, num_distinct)

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
    return NearestTwo.of(found, len(train), len(firsts))


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
    two = known_two("neighbors", neighbors, given.generated, given.train)
    control = known_two("held_out_neighbors", held_out_neighbors, given.held_out, given.train)
    constants = {"c": c, "num_train": two.num_train, "num_distinct": two.num_distinct}
    copies, control_copies = two.ratio < c, control.ratio < c
    return _share(
        "memorized_fraction", copies, control_copies, given.features, constants, two.ratio
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
        return known_two(name, known, points, given.train).d1 / math.sqrt(dim)

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


def calibrated_distance(
    generated: Any,
    train: Any,
    held_out: Any,
    n: int = 50,
    alpha: float = 0.5,
    *,
    neighbors: Neighbors | None = None,
    held_out_neighbors: Neighbors | None = None,
) -> Measure:
    """The share of copies by the calibrated distance: l <= 1, l = d1 / (alpha mean(d1 .. dn)).

    The value is the share of copies, a proportion; the calibrated distances l themselves are in
    `per_sample`, and their median in `constants`. l does not exceed 1/alpha.

    Args:
      generated: images (uint8 or unclipped model units) or features.
      train: N training images or features, of which exact repeats count once.
      held_out: real images or features that were not trained on, for the control.
      n: how many nearest training images calibrate, from 2 to the number of distinct ones.
      alpha: the share of their mean distance at which a copy begins, in (0, 1].
      neighbors: `nearest(generated, train, n, among=distinct(train))`, if it is known; one made
        for a larger n serves too.
      held_out_neighbors: the same of `held_out`.

    Returns:
      Measure with Wilson's intervals.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, non-finite values, an n or alpha out of range, neighbours
        of other arrays, or a sample at no distance from all its n neighbours.

    Example:
      >>> train = np.array([[0.0], [4.0], [8.0]])
      >>> found = calibrated_distance(np.array([[0.5], [2.0]]), train, train, n=2)
      >>> found.value, found.per_sample  # 0.5 / (0.5 * 2) and 2 / (0.5 * 2)
      (0.5, array([0.5, 2. ]))

    References:
      Carlini et al. 2023 (n = 50, alpha = 0.5).
    """
    given = inputs.check(generated, train, held_out)
    alpha = _check.number("alpha", alpha, above=0.0, below=1.0, closed="]")
    firsts = distinct(given.train)
    n = _check.integer("n", n, minimum=2)
    if n > len(firsts):
        raise ValueError(
            f"n must be at most {len(firsts)}, the number of distinct images in train; got {n}."
        )

    def calibrated(name: str, known: Neighbors | None, points: np.ndarray) -> np.ndarray:
        if known is None:
            known = nearest(points, given.train, n, among=firsts)
        _same_arrays(name, known.indices, points, given.train, n, "nearest")
        mean = known.distances[:, :n].mean(axis=1)
        if not np.all(mean > 0):
            raise ValueError(
                f"train must hold images apart from each other; {int(np.sum(mean == 0))} samples "
                f"are at no distance from {n} of them."
            )
        return known.distances[:, 0] / (alpha * mean)

    values = calibrated("neighbors", neighbors, given.generated)
    control = calibrated("held_out_neighbors", held_out_neighbors, given.held_out)
    constants = {
        "n": n,
        "alpha": alpha,
        "median": float(np.median(values)),
        "num_train": len(given.train),
        "num_distinct": len(firsts),
    }
    copies = values <= 1, control <= 1
    return _share("calibrated_distance", *copies, given.features, constants, values)


def copy_rate(
    generated: Any,
    train: Any,
    held_out: Any,
    tau: float = 0.5,
    *,
    neighbors: CosineNeighbors | None = None,
    held_out_neighbors: CosineNeighbors | None = None,
) -> Measure:
    """The share of samples whose largest cosine with a training row exceeds tau.

    Meant for the features of an encoder made to tell copies apart. Images are taken as their
    pixels on [0, 1], none of which are negative: there the cosine is near 1 for most pairs, and
    only a comparison with the control says anything.

    Args:
      generated: images (uint8 or unclipped model units) or features.
      train: N training images or features.
      held_out: real images or features that were not trained on, for the control.
      tau: the threshold, in (-1, 1); 0.5 and 0.6 are usual.
      neighbors: `nearest_cosine(generated, train, 1)`, if it is known: then a second tau is free.
      held_out_neighbors: `nearest_cosine(held_out, train, 1)`, if it is known.

    Returns:
      Measure with Wilson's intervals; `per_sample` holds the largest cosines, in [-1, 1].

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, non-finite values, rows of zeros, a tau out of range or
        neighbours of other arrays.

    References:
      Somepalli et al. 2023.
    """
    given = inputs.check(generated, train, held_out)
    tau = _check.number("tau", tau, above=-1.0, below=1.0)

    def largest(name: str, known: CosineNeighbors | None, points: np.ndarray) -> np.ndarray:
        if known is None:
            known = nearest_cosine(points, given.train, 1)
        _same_arrays(name, known.indices, points, given.train, 1, "nearest_cosine")
        return known.cosines[:, 0]

    values = largest("neighbors", neighbors, given.generated)
    control = largest("held_out_neighbors", held_out_neighbors, given.held_out)
    constants = {"tau": tau, "num_train": len(given.train)}
    copies = values > tau, control > tau
    return _share("copy_rate", *copies, given.features, constants, values)


def authenticity(
    generated: Any,
    train: Any,
    held_out: Any,
    *,
    neighbors: NearestTwo | None = None,
    held_out_neighbors: NearestTwo | None = None,
) -> Measure:
    """The share of samples that are farther from their nearest training image than that has room.

    With t the training image nearest to x, x is a copy if |x - t| <= the distance from t to the
    nearest other training image; authenticity is 1 - the share of copies. Independent samples of
    the training distribution have about one half, so read it beside the control.

    Args:
      generated: images (uint8 or unclipped model units) or features.
      train: N training images or features, of which exact repeats count once.
      held_out: real images or features that were not trained on, for the control.
      neighbors: `nearest_two(generated, train)`, if it is known.
      held_out_neighbors: `nearest_two(held_out, train)`, if it is known.

    Returns:
      Measure with Wilson's intervals; `per_sample` holds 1 for authentic and 0 for a copy.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, non-finite values, neighbours of other arrays, or fewer
        than two distinct training images.

    References:
      Alaa et al. 2022. (Some published programs look for t the wrong way round, from train to x.)
    """
    given = inputs.check(generated, train, held_out)
    two = known_two("neighbors", neighbors, given.generated, given.train)
    control = known_two("held_out_neighbors", held_out_neighbors, given.held_out, given.train)
    # Room is asked only of training images that are nearest to something. Each is among the
    # distinct ones, and so its own nearest, at 0; the second is the nearest other.
    used, place = np.unique(np.concatenate([two.index, control.index]), return_inverse=True)
    room = nearest_two(given.train[used], given.train).d2[place]
    authentic = two.d1 > room[: len(two.d1)]
    control_authentic = control.d1 > room[len(two.d1) :]
    constants = {"num_train": two.num_train, "num_distinct": two.num_distinct}
    values = authentic.astype(np.float64)
    return _share("authenticity", authentic, control_authentic, given.features, constants, values)


def _share(
    name: str,
    counted: np.ndarray,
    control: np.ndarray,
    features: str,
    constants: dict[str, Any],
    per_sample: np.ndarray,
) -> Measure:
    """The share of samples counted (bool [n]), beside the same share of held-out images."""
    n, m = len(counted), len(control)
    k, j = int(counted.sum()), int(control.sum())
    constants = {**constants, "num_held_out": m}
    return Measure(
        name, k / n, wilson(k, n), j / m, wilson(j, m), n, features, constants, per_sample
    )


def _same_arrays(
    name: str, indices: np.ndarray, points: np.ndarray, train: np.ndarray, k: int, function: str
) -> None:
    """Refuses neighbours, given as their indices, that cannot be those of `points` in `train`."""
    fits = indices.ndim == 2 and len(indices) == len(points) and indices.shape[1] >= k
    if not fits or indices.max() >= len(train):
        raise ValueError(
            f"{name} must be the {k} or more neighbours that {function} found of these "
            f"{len(points)} samples in {len(train)} training images; got indices of shape "
            f"{indices.shape} up to {indices.max()}."
        )


def known_two(
    name: str, known: NearestTwo | None, points: np.ndarray, train: np.ndarray
) -> NearestTwo:
    """`known`, given as the argument `name`, or else `nearest_two(points, train)`."""
    if known is None:
        return nearest_two(points, train)
    if len(known.d1) != len(points) or known.num_train != len(train):
        raise ValueError(
            f"{name} must be nearest_two of these {len(points)} samples and {len(train)} training "
            f"images; got that of {len(known.d1)} and {known.num_train}."
        )
    return known
