"""How many dimensions a denoiser's samples fill: the rank of its Jacobian, and of the samples.

A bottleneck of r units under the preconditioning x0 makes D(., sigma) a map through R^r: its
Jacobian has rank at most r, and the samples, which are D at the last level, lie in a set of
dimension at most r. With a skip round the code (edm, eps, v) the Jacobian has full rank.

Reference: Levine and Weiss 2026, arXiv 2605.16415 (bottleneck denoisers).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check
from jdiff.denoisers.protocol import Denoiser, check_denoiser, check_levels, check_rows
from jdiff.metrics import nearest
from jdiff.theory import checks


def jacobian_spectrum(denoiser: Denoiser, y: Any, sigma: float) -> np.ndarray:
    """Singular values of dD/dy at points.

    Args:
      denoiser: any denoiser.
      y: points [B, H, W, C], model units; for a statement on samples, where the last step starts.
      sigma: noise level > 0, a level of the denoiser.

    Returns:
      float64 [B, D], largest first.

    Raises:
      TypeError: if it is not a denoiser.
      ValueError: on a wrong shape, no points or not finite ones, a level that is not positive, or
        a Jacobian that is not finite.
    """
    check_denoiser(denoiser)
    y = jnp.asarray(y)
    check_rows("y", y, denoiser.image_shape)
    sigma = _check.number("sigma", float(sigma), above=0)
    check_levels(denoiser, np.array([sigma, 0.0]))
    if len(y) == 0 or not np.isfinite(np.asarray(y)).all():
        raise ValueError(f"y must hold at least one point, all finite; got {len(y)} points.")
    jacobian = np.asarray(_jacobian(denoiser, y, jnp.float32(sigma)), np.float64)
    if not np.isfinite(jacobian).all():
        bad = int(np.sum(~np.isfinite(jacobian).reshape(len(y), -1).all(1)))
        raise ValueError(f"denoiser has no finite Jacobian at {bad} of {len(y)} points.")
    d = int(np.prod(denoiser.image_shape))
    return np.linalg.svd(jacobian.reshape(len(y), d, d), compute_uv=False)


def jacobian_rank(
    denoiser: Denoiser, y: Any, sigma: float, *, tolerance: float = 1e-4
) -> np.ndarray:
    """Rank of dD/dy at points: singular values above `tolerance` of the largest, int [B].

    float32 leaves about 1e-6 of the largest where there should be nothing.
    """
    tolerance = _check.number("tolerance", tolerance, above=0, below=1)
    values = jacobian_spectrum(denoiser, y, sigma)
    return np.sum(values > tolerance * values[:, :1], axis=1)


def check_rank(
    denoiser: Denoiser, y: Any, sigma: float, rank: int, *, tolerance: float = 1e-4
) -> checks.LawCheck:
    """Do samples lie in a set of at most `rank` dimensions? The bound of a bottleneck under x0.

    Args:
      denoiser: any denoiser.
      y: points [B, H, W, C] where the last step starts, model units.
      sigma: the last noise level > 0.
      rank: the size of the code, from 1 to D - 1.
      tolerance: singular values up to this share of the largest are rounding.

    Returns:
      LawCheck with one row, "rank": the largest rank of dD/dy at the points.

    Raises:
      TypeError: if it is not a denoiser.
      ValueError: as `jacobian_spectrum`, or on a rank that bounds nothing.
    """
    check_denoiser(denoiser)
    d = int(np.prod(denoiser.image_shape))
    if d == 1:
        raise ValueError("denoiser must be of at least 2 values: no rank bounds it; got 1.")
    rank = _check.integer("rank", rank, maximum=d - 1)
    tolerance = _check.number("tolerance", tolerance, above=0, below=1)
    values = jacobian_spectrum(denoiser, y, sigma)
    found = np.sum(values > tolerance * values[:, :1], axis=1)
    beyond = float(np.max(values[:, rank] / np.maximum(values[:, 0], np.finfo(float).tiny)))
    tests = checks.Rows(0.01)
    tests.fact(
        "rank", found.max(), rank, found.max() <= rank,
        f"dimensions at {len(found)} points, at most the code's; singular value {rank + 1} is "
        f"{beyond:.2g} of the largest",
    )  # fmt: skip
    return tests.finish(f"dimension of {type(denoiser).__name__}", len(found), 0)


def local_spectrum(samples: Any, *, num_neighbors: int = 12) -> np.ndarray:
    """Shares of variance along the axes of small neighbourhoods, the mean over samples.

    Args:
      samples: [n, H, W, C], finite.
      num_neighbors: how many nearest samples make a neighbourhood.

    Returns:
      float64 [min(num_neighbors, D)], largest first, sum 1; of a set of dimension r the entries
      from r on vanish as neighbourhoods shrink.

    Raises:
      ValueError: if there are no more samples than neighbours, or all are copies of each other
        (neighbourhoods without spread do not count).
    """
    samples = np.asarray(samples)
    _check.integer("num_neighbors", num_neighbors, minimum=2, maximum=max(2, len(samples) - 1))
    flat = samples.reshape(len(samples), -1).astype(np.float64)
    found = nearest(flat, flat, num_neighbors, exclude_self=True)
    around = flat[found.indices]
    values = np.linalg.svd(around - around.mean(1, keepdims=True), compute_uv=False) ** 2
    spread = values.sum(1) > 0
    if not spread.any():
        raise ValueError(
            f"samples are copies of each other: none of {len(flat)} neighbourhoods of "
            f"{num_neighbors} has any spread."
        )
    return np.mean(values[spread] / values[spread].sum(1, keepdims=True), axis=0)


@jax.jit
def _jacobian(denoiser: Denoiser, y: jax.Array, sigma: jax.Array) -> jax.Array:
    one = lambda row: denoiser(row[None], sigma)[0]
    return jax.lax.map(jax.jacfwd(one), y)
