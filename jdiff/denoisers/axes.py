"""Mean, covariance eigenpairs and weights of a training set, float64 on the host.

    S = sum_n p_n (x_n - mu)(x_n - mu)^T = V diag(l) V^T

Everything that is linear in the data starts here; it is computed once, in `fit`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jdiff import _check, _pixels

_BLOCK = 4096


def training_set(images: Any, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """Checked images [N, H, W, C] and their probabilities, float64 [N], which sum to 1.

    Raises:
      TypeError: on images of another dtype.
      ValueError: on a wrong shape or range, NaN, or bad weights.
    """
    images = _check.images("images", images)
    n = len(images)
    p = np.full(n, 1 / n) if weights is None else _check.weights("weights", weights, n)
    return images, p


def blocks(flat: np.ndarray, p: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows in model units, float64 [n, D], and their probabilities [n], a few thousand at a time.

    Rows of weight zero are left out: they belong to no sum.
    """
    for start in range(0, len(flat), _BLOCK):
        part = slice(start, start + _BLOCK)
        kept = p[part] > 0
        if kept.any():
            yield _pixels.to_model(flat[part][kept]).astype(np.float64), p[part][kept]


def num_axes(num_images: int, num_values: int) -> int:
    """How many axes N images of D values have about their mean: min(N - 1, D), at least 1."""
    return max(1, min(num_images - 1, num_values))


def mean(flat: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The weighted mean of rows [N, D], in model units, float64 [D]."""
    return np.sum([q @ x for x, q in blocks(flat, p)], axis=0)


def principal_axes(flat: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean [D], eigenvalues [m] (largest first) and axes [D, m] of weighted rows, float64.

    m = min(N - 1, D), at least 1: N rows with weight span no more about their mean. With no more
    of them than values the axes come from the thin SVD of the rows; otherwise from the D x D
    covariance, summed in blocks.

    Args:
      flat: [N, D], uint8 or float in model units.
      p: probabilities [N].
    """
    n, d = int(np.count_nonzero(p)), flat.shape[1]
    mu = mean(flat, p)
    if n <= d:
        scaled = np.concatenate([np.sqrt(q)[:, None] * (x - mu) for x, q in blocks(flat, p)])
        _, s, axes = np.linalg.svd(scaled, full_matrices=False)
        kept = num_axes(n, d)
        return mu, s[:kept] ** 2, axes[:kept].T
    covariance = np.zeros((d, d))
    for x, q in blocks(flat, p):
        scaled = np.sqrt(q)[:, None] * (x - mu)
        covariance += scaled.T @ scaled
    eigenvalues, axes = np.linalg.eigh(covariance)
    return mu, np.maximum(eigenvalues[::-1], 0), axes[:, ::-1]
