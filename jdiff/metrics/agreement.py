"""How alike two sets of images are, image by image: pearson_r and mse.

For samples of two networks from the same noise, or of a network and a closed form. Both are
contrasts: there is no control.
Source: Kadkhodaie et al. 2024, "Generalization in diffusion models arises from geometry-adaptive
harmonic representations" (agreement of networks trained on disjoint halves).
"""

from typing import Any

import numpy as np

from jdiff.metrics import inputs
from jdiff.metrics.intervals import bootstrap_mean
from jdiff.metrics.measure import Measure


def pearson_r(a: Any, b: Any, *, seed: int = 0) -> Measure:
    """Mean over images of the Pearson correlation of their values, each image's mean removed.

    r = sum (a - mean a)(b - mean b) / (|a - mean a| |b - mean b|)

    Args:
      a: n >= 2 images (uint8 or unclipped model units) or features.
      b: as many of the same shape; image i is compared with a's image i.
      seed: of the bootstrap.

    Returns:
      Measure with a bootstrap interval; `per_sample` holds r in [-1, 1].

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, fewer than two images, non-finite values, or constant
        images, whose correlation is not defined (with their count).
    """
    a, b = _pair(a, b)
    x, y = _centred("a", a), _centred("b", b)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    r = np.einsum("nd,nd->n", x, y) / norms
    return _mean("pearson_r", r, inputs.space(a), seed)


def mse(a: Any, b: Any, *, seed: int = 0) -> Measure:
    """Mean squared difference of the values of two sets, images on [0, 1].

    Args:
      a: n >= 2 images (uint8 or unclipped model units) or features.
      b: as many of the same shape; image i is compared with a's image i.
      seed: of the bootstrap.

    Returns:
      Measure with a bootstrap interval; `per_sample` holds each image's.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, fewer than two images or non-finite values.

    Example:
      >>> mse(np.full((2, 8, 8, 1), -1.0), np.full((2, 8, 8, 1), 1.0)).value
      1.0
    """
    a, b = _pair(a, b)
    x, y = inputs.flat(a).astype(np.float64), inputs.flat(b).astype(np.float64)
    return _mean("mse", np.square(x - y).mean(axis=1), inputs.space(a), seed)


def _pair(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = inputs.samples("a", a), inputs.samples("b", b)
    if a.shape != b.shape:
        raise ValueError(f"b must have the shape of a, {a.shape}; got {b.shape}.")
    inputs.at_least(2, a=a)
    return a, b


def _centred(name: str, array: np.ndarray) -> np.ndarray:
    x = inputs.flat(array).astype(np.float64)
    # A spread of a few float32 roundings is that of a constant image, and its direction is noise.
    spread, size = np.ptp(x, axis=1), np.abs(x).max(axis=1)
    constant = spread <= 4 * np.finfo(np.float32).eps * size
    if np.any(constant):
        raise ValueError(
            f"{name} must not hold constant images, whose correlation is not defined; got "
            f"{int(constant.sum())} of {len(x)}, the first at {int(np.argmax(constant))}."
        )
    return x - x.mean(axis=1, keepdims=True)


def _mean(name: str, values: np.ndarray, features: str, seed: int) -> Measure:
    interval = bootstrap_mean(values, seed)
    constants = {"seed": seed}
    return Measure(
        name, float(values.mean()), interval, None, None, len(values), features, constants, values
    )
