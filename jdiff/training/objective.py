"""The training objective: corrupt, denoise, weigh, square.

    E || D(x + sigma z; sigma) - x ||^2 / c_out(sigma)^2

over training images x, levels sigma of the training-noise distribution and z ~ N(0, I).

Reference: Karras et al. 2022 (EDM), eq. 8 and table 1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jdiff.denoisers.network import loss_weight, precondition
from jdiff.noise import corrupt


def losses(
    apply: Callable[[jax.Array, jax.Array], jax.Array],
    preconditioning: str,
    data_std: jax.Array,
    x: jax.Array,
    sigma: jax.Array,
    z: jax.Array,
) -> jax.Array:
    """The weighted squared error of each example, a mean over its values.

    Args:
      apply: the network F, (c_in y [B, H, W, C], c_noise [B]) -> [B, H, W, C].
      preconditioning: a row of the table in denoisers/network.py.
      data_std: scalar, model units.
      x: clean images [B, H, W, C], model units.
      sigma: [B] > 0.
      z: standard normal, like x.

    Returns:
      [B].
    """
    y = corrupt(x, sigma, z)
    x_hat = precondition(apply, preconditioning, data_std, y, sigma)
    squared_error = jnp.mean((x_hat - x) ** 2, axis=(1, 2, 3))
    return loss_weight(preconditioning, data_std, sigma) * squared_error
