"""Variables without a compilation (a UNet's own initialisation takes seconds); a convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import networks


@pytest.fixture
def variables_for(rng):
    """(module, image_shape) -> variables, nothing zero in them, at the scale of a trained net.

    Running variances and deviations lie between 1/2 and 2.
    """

    def draw(shape):
        # Kernels keep a signal's size, all else is off its start by a tenth.
        fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 100
        return jnp.asarray(rng.standard_normal(shape) / np.sqrt(fan_in), jnp.float32)

    def make(module, image_shape):
        init = lambda: networks.init(module, jax.random.key(0), image_shape)
        paths, tree = jax.tree_util.tree_flatten_with_path(jax.eval_shape(init))
        leaves = []
        for path, leaf in paths:
            if path[-1].key in ("var", "deviation"):
                leaves.append(jnp.asarray(rng.uniform(0.5, 2, leaf.shape), jnp.float32))
            else:
                leaves.append(draw(leaf.shape) + (path[-1].key == "scale"))
        return jax.tree.unflatten(tree, leaves)

    return make


@pytest.fixture
def convolved():
    """(x, kernel, padding, stride, pixels before the first) -> the convolution; float64."""

    def convolve(x, kernel, padding="zeros", stride=1, before=None):
        # Pad every side with zeros or with the other end, sum over taps, keep each stride.
        x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
        k = len(kernel)
        before = k // 2 if before is None else before
        pads = ((0, 0), (before, k - 1 - before), (before, k - 1 - before), (0, 0))
        padded = np.pad(x, pads, mode="wrap" if padding == "circular" else "constant")
        h, w = x.shape[1:3]
        y = sum(padded[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(k) for j in range(k))
        return np.asarray(y)[:, ::stride, ::stride]

    return convolve
