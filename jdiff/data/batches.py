"""Training batches drawn on the device, inside a jitted step.

Example i of step t comes from the key fold_in(fold_in(key, t), i) alone, i its place in the global
batch: so a resumed run draws what an uninterrupted one would have drawn, and eight devices draw
what one draws. Drawing is with replacement. Weighted rows are found by inverting the cumulative
distribution: the first row whose cumulative weight exceeds u ~ U[0, 1).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check, _pixels

INDEX = 0  # Folded into an example's key for its row; other purposes fold other constants.


def example_keys(key: jax.Array, step: jax.Array | int, indices: jax.Array) -> jax.Array:
    """Returns the keys [B] of a step's examples, fold_in(fold_in(key, step), i).

    Fold a constant other than `INDEX` into them for anything else that an example draws.

    Args:
      key: typed key of the run.
      step: the step's number, int32 scalar, from 0.
      indices: places in the global batch, int32 [B] (a device holds some of them).
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, step), indices)


def draw(keys: jax.Array, num_train: int, cdf: jax.Array | None = None) -> jax.Array:
    """Returns a training row for each key, int32 [B] in 0 .. num_train - 1.

    Args:
      keys: the examples' keys [B], from `example_keys`.
      num_train: number of training images, N.
      cdf: None for equal weights, or float32 [N] from `cumulative`.

    Example:
      >>> import jax, jax.numpy as jnp, numpy as np
      >>> keys = example_keys(jax.random.key(0), 0, jnp.arange(5))
      >>> draw(keys, 3, jnp.asarray(cumulative(np.array([0.0, 1.0, 0.0])))).tolist()
      [1, 1, 1, 1, 1]
    """
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, INDEX)
    if cdf is None:
        return jax.vmap(lambda k: jax.random.randint(k, (), 0, num_train, jnp.int32))(keys)
    u = jax.vmap(lambda k: jax.random.uniform(k, (), jnp.float32))(keys)
    return jnp.searchsorted(cdf, u, side="right").astype(jnp.int32)


def gather(images: jax.Array, indices: jax.Array) -> jax.Array:
    """Returns the images of the given rows, float32 [B, H, W, C] in model units.

    Converted after the gather: a uint8 data set stays uint8 on the device.

    Args:
      images: the data set, uint8 or float32 [N, H, W, C].
      indices: rows, int32 [B], each in 0 .. N - 1.
    """
    return _pixels.to_model(images[indices])


def cumulative(weights: np.ndarray) -> np.ndarray:
    """Returns the cumulative weights that `draw` wants, float32 [N]; on the host.

    Rows of weight zero are never drawn: u < 1, and the value is exactly 1 from the last row of
    positive weight on. float32 rounds each probability by up to 2^-23 = 1.2e-7, so that of rows
    much lighter than that some are never drawn.

    Args:
      weights: non-negative [N], not all zero; normalised here.
    """
    weights = _check.weights("weights", weights, len(weights))
    cdf = np.cumsum(weights).astype(np.float32)
    cdf[np.flatnonzero(weights)[-1] :] = 1.0
    return np.minimum(cdf, np.float32(1.0))
