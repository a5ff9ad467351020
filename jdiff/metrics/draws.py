"""Some of the samples, and tenths of them, whatever order they come in.

A measure of a set depends on its size, so that value and control take equally many; its interval
takes disjoint parts. Samples and held-out images are often sorted by class: the first n of them are
not n of their kind, and a tenth in a row is one class.
"""

import numpy as np

from jdiff.metrics import inputs
from jdiff.metrics.distinct import digests


def drawn(points: np.ndarray, n: int) -> np.ndarray:
    """Which n of the points are taken, int [n], in an order without meaning.

    It is that of a seeded permutation of the points sorted by the hashes of their values: the same
    points in another order give the same draw, and repeats are scattered.

    Args:
      points: images or features, N of them.
      n: how many, from 1 to N.
    """
    keys = digests(inputs.flat(points).astype(np.float32, copy=False))
    by_content = np.asarray(sorted(range(len(points)), key=keys.__getitem__))
    return by_content[np.random.default_rng(0).permutation(len(points))[:n]]


def in_order(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Values of the points drawn, in the order that the points came in."""
    return values[np.argsort(chosen)]
