"""Variables without a compilation: a UNet's own initialisation takes seconds to compile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import networks


@pytest.fixture
def variables_for(rng):
    """(module, image_shape) -> variables, nothing zero in them, at the scale of a trained net."""

    def draw(shape):
        # Kernels keep a signal's size, all else is off its start by a tenth.
        fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 100
        return jnp.asarray(rng.standard_normal(shape) / np.sqrt(fan_in), jnp.float32)

    def make(module, image_shape):
        init = lambda: networks.init(module, jax.random.key(0), image_shape)
        paths, tree = jax.tree_util.tree_flatten_with_path(jax.eval_shape(init))
        is_scale = [path[-1].key == "scale" for path, _ in paths]
        leaves = [
            draw(leaf.shape) + scale for (_, leaf), scale in zip(paths, is_scale, strict=True)
        ]
        return jax.tree.unflatten(tree, leaves)

    return make
