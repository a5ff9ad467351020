"""Exact repeats among references: rows of equal values, whatever their number.

    i is left out  <=>  x_i = x_j for some j < i, in the values that are compared

Rows are compared by 128 bits of a hash, so that nothing of size N x N is looked at. Near repeats
are none: `neighbors.py` measures those.
"""

import hashlib
from typing import Any

import numpy as np

from jdiff.metrics import inputs


def distinct(references: Any) -> np.ndarray:
    """Indices of the references that repeat no earlier one exactly, in order.

    With a repeat in the training set the two nearest distances of a copy are equal, and d1/d2 = 1
    hides it.

    Args:
      references: images [N, H, W, C] or features [N, d].

    Returns:
      int [M], M <= N.

    Example:
      >>> distinct(np.array([[1.0], [2.0], [1.0]]))
      array([0, 1])
    """
    references = inputs.real("references", references)
    # Float images are compared on [0, 1], where two may be equal that were not in model units.
    values = references if references.dtype == np.uint8 else inputs.flat(references)
    first: dict[bytes, int] = {}
    for i, digest in enumerate(digests(values)):
        first.setdefault(digest, i)
    return np.fromiter(first.values(), int)


def repeats(rows: np.ndarray, known: np.ndarray) -> int:
    """How many of `rows` are exact repeats of rows of `known`, an array of the same dtype."""
    found = set(digests(known))
    return sum(digest in found for digest in digests(rows))


def digests(array: np.ndarray) -> list[bytes]:
    """128 bits of each image or row of features: equal for equal values of one dtype only."""
    # + 0.0: -0.0 equals 0.0 but has other bytes. 128 bits: no two rows collide by chance.
    bits = lambda row: row if row.dtype == np.uint8 else row + np.float32(0)
    rows = array.reshape(len(array), -1)
    return [hashlib.blake2b(bits(row), digest_size=16).digest() for row in rows]
