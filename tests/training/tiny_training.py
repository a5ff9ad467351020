"""Networks, data and settings small enough that compiling them is the cost of a test."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdiff import data
from jdiff.training import TrainConfig

SHAPE = (2, 2, 1)
TRACED = []  # one entry each time `Small` is traced or run


class Small(nn.Module):
    """All that a run can carry: levels, labels, dropout; a last layer that starts at zero."""

    num_classes: int | None = 2
    width: int = 8

    last_name = None  # no option: changing it changes the parameters and not config.json

    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        TRACED.append(len(x))
        h = nn.Dense(self.width)(x.reshape(len(x), -1)) + nn.Dense(self.width)(c_noise[:, None])
        if self.num_classes is not None:
            labels = jnp.full(len(x), self.num_classes) if labels is None else labels
            h += nn.Embed(self.num_classes + 1, self.width)(labels)
        h = nn.Dropout(0.1, deterministic=not train)(nn.silu(h))
        last = nn.Dense(x[0].size, kernel_init=nn.initializers.zeros, name=self.last_name)
        return last(h).reshape(x.shape)


class Affine(nn.Module):
    """F(x) = x W + b over all values; what NumPy can repeat by hand."""

    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        return nn.Dense(x[0].size)(x.reshape(len(x), -1)).reshape(x.shape)


def pictures(num_train=7, shape=SHAPE, seed=0, labels=True, **options):
    """Random uint8 images, five held out, two classes."""
    rng = np.random.default_rng(seed)
    draw = lambda n: rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    if labels:
        options = {
            "labels": np.arange(num_train) % 2,
            "held_out_labels": np.arange(5) % 2,
            **options,
        }
    return data.from_arrays(draw(num_train), held_out=draw(5), **options)


# A batch larger than the data; calls of one, two and three steps; three batches of evaluation, the
# last not full; checkpoints after 2, 4, 6, 8, 10 and 11 steps.
CONFIG = TrainConfig(
    steps=11,
    batch_size=10,
    learning_rate=1e-2,
    warmup=3,
    eval_every=4,
    eval_examples=24,
    checkpoint_every=2,
    steps_per_call=3,
)


def assert_trees_equal(a, b):
    """Bit for bit, and of one structure."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(left, right)
