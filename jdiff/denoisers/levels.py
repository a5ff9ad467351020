"""Denoisers that are another function at every noise level: how a call goes by its sigma.

Some prepare a filter for every sigma. Others hold coefficients stacked, one entry a level of
`sigmas`: the level nearest in log sigma is taken; that it is one of the fitted ones is checked on
the host (`check_levels`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdiff.denoisers.protocol import check_rows, check_sigma


def nearest_level(sigmas: jax.Array, sigma: jax.Array) -> jax.Array:
    """The index of the level in `sigmas` [T] that is nearest to a scalar sigma, in the log."""
    return jnp.argmin(jnp.abs(jnp.log(sigmas) - jnp.log(sigma)))


def by_level(
    apply: Callable[[jax.Array, jax.Array], jax.Array],
    sigmas: jax.Array,
    y: jax.Array,
    sigma: Any,
    image_shape: tuple[int, int, int],
) -> jax.Array:
    """Calls a function of (level, rows) with the level of sigma.

    A scalar sigma indexes once, for all rows. A sigma a row goes row by row: gathering the
    coefficients of a level for every row would cost as many copies of them.

    Args:
      apply: (index of the level, a scalar; y [B, H, W, C]) -> x_hat [B, H, W, C].
      sigmas: the fitted levels [T], decreasing.
      y: noisy images [B, H, W, C], model units.
      sigma: a scalar or [B].
      image_shape: (H, W, C) that y must have.

    Raises:
      ValueError: on a wrong shape of y or sigma.
    """
    at_level = lambda level, rows: apply(nearest_level(sigmas, level), rows)
    return by_sigma(at_level, y, sigma, image_shape)


def by_sigma(
    apply: Callable[[jax.Array, jax.Array], jax.Array],
    y: jax.Array,
    sigma: Any,
    image_shape: tuple[int, int, int],
) -> jax.Array:
    """Calls a function of (sigma, rows) that prepares something large for every sigma.

    A scalar sigma is prepared for once, for all rows; a sigma a row goes row by row.

    Args:
      apply: (sigma, a scalar; y [B, H, W, C]) -> x_hat [B, H, W, C].
      y: noisy images [B, H, W, C], model units.
      sigma: a scalar or [B].
      image_shape: (H, W, C) that y must have.

    Raises:
      ValueError: on a wrong shape of y or sigma.
    """
    check_rows("y", y, image_shape)
    if jnp.ndim(sigma) == 0:
        return apply(jnp.asarray(sigma, y.dtype), y)
    one = lambda row: apply(row[1], row[0][None])[0]
    return jax.lax.map(one, (y, check_sigma(sigma, y)))
