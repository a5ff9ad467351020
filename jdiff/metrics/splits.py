"""From copying to generalising: what several networks, trained on other sets, say together.

effective_memorization: the largest training size N at which a network still copies, over a sweep.
two_split_agreement: two networks trained on disjoint halves, sampled from the same noise, draw
the same images once they generalise; while they memorize, each draws those of its own half.
Sources: Gu et al. 2023, "On memorization in diffusion models"; Kadkhodaie et al. 2024,
"Generalization in diffusion models arises from geometry-adaptive harmonic representations".
"""

import dataclasses
from typing import Any

import numpy as np

from jdiff import _check
from jdiff.metrics import inputs
from jdiff.metrics.agreement import pearson_r
from jdiff.metrics.distinct import repeats
from jdiff.metrics.measure import Measure
from jdiff.metrics.neighbors import nearest_cosine

ROWS = 1024  # converted to float64 at a time


def effective_memorization(
    sizes: Any, fractions: Any, eps: float = 0.1, *, features: str = "pixels"
) -> Measure:
    """The largest training size in a sweep whose memorized_fraction is at least 1 - eps.

    Of the sizes tried only: the true one lies between `value` and `next_size`, the next larger
    one, so that a sweep is best geometric. It is the largest even if a smaller size fails.

    Args:
      sizes: [T] training sizes, positive whole numbers, all different, in any order.
      fractions: [T] the memorized_fraction at each, in [0, 1]; of several seeds their mean.
      eps: the share that need not be copied, in [0, 1).
      features: the space the fractions were measured in.

    Returns:
      Measure without interval and control, n = T. Its constants hold `next_size` where there is a
      larger one, and three flags: `below_smallest` (no size reaches 1 - eps, and the value is 0),
      `beyond_largest` (the largest does, and the value is a lower bound), `smaller_size_fails`
      (the fractions cross 1 - eps more than once).

    Raises:
      TypeError: on sizes that are not whole numbers.
      ValueError: on other lengths, sizes that repeat or are not positive, fractions or an eps out
        of range.

    Example:
      >>> print(effective_memorization([100, 200, 400], [1.0, 0.95, 0.2]))
      effective_memorization (pixels) = 200; n = 3; eps = 0.1, next_size = 400

    References:
      Gu et al. 2023 (eps = 0.1).
    """
    sizes, fractions = np.asarray(sizes), np.asarray(fractions, np.float64)
    if sizes.ndim != 1 or not len(sizes) or sizes.shape != fractions.shape:
        raise ValueError(
            "sizes and fractions must be lists of one length; got shapes "
            f"{sizes.shape} and {fractions.shape}."
        )
    if not np.issubdtype(sizes.dtype, np.integer):
        raise TypeError(f"sizes must be whole numbers; got dtype {sizes.dtype}.")
    if sizes.min() < 1 or len(np.unique(sizes)) < len(sizes):
        raise ValueError(f"sizes must be positive and all different; got {sizes.tolist()}.")
    if not np.all((fractions >= 0) & (fractions <= 1)):
        raise ValueError(f"fractions must be in [0, 1]; got {fractions.tolist()}.")
    eps = _check.number("eps", eps, above=0.0, below=1.0, closed="[")
    order = np.argsort(sizes)
    sizes = sizes[order]
    # A fraction k/n that equals 1 - eps may lie a rounding below it.
    copies = fractions[order] >= 1 - eps - 1e-12
    last = int(np.flatnonzero(copies)[-1]) if copies.any() else -1
    constants: dict[str, Any] = {"eps": eps}
    if last + 1 < len(sizes):
        constants["next_size"] = int(sizes[last + 1])
    constants["below_smallest"] = last < 0
    constants["beyond_largest"] = last + 1 == len(sizes)
    constants["smaller_size_fails"] = not bool(copies[: last + 1].all())
    value = float(sizes[last]) if last >= 0 else 0.0
    return Measure(
        "effective_memorization", value, None, None, None, len(sizes), features, constants
    )


def two_split_agreement(
    generated_a: Any, generated_b: Any, train_a: Any, train_b: Any, *, seed: int = 0
) -> Measure:
    """Mean Pearson correlation between samples of two networks trained on disjoint halves.

    r_i = corr(a_i, b_i) over an image's values, each image's mean removed; samples i of both come
    from the same noise. Beside it, in `constants`, stand the medians over samples of the largest
    correlation with any image of the network's own half: near 1 for networks that memorize.

    Args:
      generated_a: n >= 2 samples of the one network, images (uint8 or unclipped model units) or
        features.
      generated_b: n samples of the other, from the same noise in the same order.
      train_a: the images or features that the one was trained on.
      train_b: those of the other, of the same dtype; none may be in train_a.
      seed: of the bootstrap.

    Returns:
      Measure with a bootstrap interval and no control; `per_sample` holds r_i in [-1, 1].

    Raises:
      TypeError: on a wrong dtype, or halves of different ones.
      ValueError: on shapes that differ, non-finite values, fewer than two samples, constant
        images, whose correlation is not defined, or halves that share images (with their number).

    References:
      Kadkhodaie et al. 2024.
    """
    train_a, train_b = inputs.real("train_a", train_a), inputs.real("train_b", train_b)
    a = inputs.samples("generated_a", generated_a)
    b = inputs.samples("generated_b", generated_b)
    inputs.same_shape("train_a", train_a, train_b=train_b, generated_a=a, generated_b=b)
    inputs.at_least(2, generated_a=a)
    if len(a) != len(b):
        raise ValueError(f"generated_b must hold {len(a)} samples, as generated_a; got {len(b)}.")
    _disjoint(train_a, train_b)
    x, y = _centred("generated_a", a), _centred("generated_b", b)
    own_a = nearest_cosine(x, _centred("train_a", train_a), 1).cosines
    own_b = nearest_cosine(y, _centred("train_b", train_b), 1).cosines
    constants = {
        "own_a": float(np.median(own_a)),
        "own_b": float(np.median(own_b)),
        "num_train_a": len(train_a),
        "num_train_b": len(train_b),
        "seed": seed,
    }
    agreement = pearson_r(a, b, seed=seed)
    return dataclasses.replace(agreement, name="two_split_agreement", constants=constants)


def _disjoint(train_a: np.ndarray, train_b: np.ndarray) -> None:
    if train_a.dtype != train_b.dtype:
        raise TypeError(
            "train_b must have the dtype of train_a, or images in both could not be told; got "
            f"{train_b.dtype} and {train_a.dtype}."
        )
    shared = repeats(train_b, train_a)
    if shared:
        raise ValueError(
            f"train_a and train_b must share no image; {shared} of the {len(train_b)} in train_b "
            "are in train_a."
        )


def _centred(name: str, array: np.ndarray) -> np.ndarray:
    """Rows without their mean, whose cosines are correlations; float32 [n, d]."""
    centred, constant = [], []
    for start in range(0, len(array), ROWS):
        x = inputs.flat(array[start : start + ROWS]).astype(np.float64)
        # A spread of a few float32 roundings is that of a constant image, its direction noise.
        spread, size = np.ptp(x, axis=1), np.abs(x).max(axis=1)
        constant.append(spread <= 4 * np.finfo(np.float32).eps * size)
        centred.append((x - x.mean(axis=1, keepdims=True)).astype(np.float32))
    bad = np.concatenate(constant)
    if np.any(bad):
        raise ValueError(
            f"{name} must not hold constant images, whose correlation is not defined; got "
            f"{int(bad.sum())} of {len(bad)}, the first at {int(np.argmax(bad))}."
        )
    return np.concatenate(centred)
