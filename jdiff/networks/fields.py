"""Receptive fields: which input pixels an output pixel depends on.

One axis of an image is a boolean matrix R [positions, pixels]: R[i, j] says whether position i of a
layer sees pixel j of the image. It starts as the identity; a layer takes the union of rows. All
layers of a network treat both axes alike and apart, so that a pixel's field lies in the product of
its rows along them and touches all four sides of it.
"""

from collections.abc import Callable, Sequence

import numpy as np

from jdiff import _check


def side(
    reach: Callable[[np.ndarray], np.ndarray], image_shape: Sequence[int], padding: str
) -> int:
    """The side of the smallest centred square that holds every output pixel's field.

    Args:
      reach: from the identity [n, n] to what the n output positions see.
      image_shape: (H, W, C).
      padding: "zeros" or "circular"; circular distances go round the edge.

    Returns:
      The side 2 r + 1, r the largest distance of an input pixel along an axis; never more than the
      image has, with which a pixel in the middle sees all.
    """
    sides = []
    for n in _check.image_shape("image_shape", image_shape)[:2]:
        outputs, inputs = np.nonzero(reach(np.eye(n, dtype=bool)))
        distance = np.abs(outputs - inputs)
        if padding == "circular":
            distance = np.minimum(distance, n - distance)
        sides.append(min(2 * int(distance.max()) + 1, n))
    return max(sides)


def everything(reach: np.ndarray) -> np.ndarray:
    """What positions see after moments or attention over all of them."""
    return np.ones_like(reach)


def convolve(
    reach: np.ndarray, kernel_size: int = 3, stride: int = 1, *, padding: str
) -> np.ndarray:
    """What positions see after `layers.conv`."""
    n, taps = len(reach), np.arange(kernel_size)
    outputs = -(-n // stride)
    missing = kernel_size - 1 if padding == "circular" else (outputs - 1) * stride + kernel_size - n
    seen = stride * np.arange(outputs)[:, None] + taps - max(missing, 0) // 2
    if padding == "circular":
        return np.any(reach[seen % n], axis=1)
    inside = (seen >= 0) & (seen < n)
    return np.any(reach[seen.clip(0, n - 1)] & inside[:, :, None], axis=1)


def halve(reach: np.ndarray) -> np.ndarray:
    """What positions see after the mean of two."""
    return reach[0::2] | reach[1::2]


def double(reach: np.ndarray) -> np.ndarray:
    """What positions see after each became two."""
    return reach.repeat(2, axis=0)
