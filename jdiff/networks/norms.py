"""Normalisation of features, each kind once, and the activation that follows it.

    group            (x - mean) / sqrt(var + 1e-6) g + b, moments of an image's group of channels
    batch            (x - mean) / sqrt(var + 1e-5) g + b, moments of a channel in the batch
    bias_free_batch  x / sqrt(var + 1e-5) g, the same variance
    none             x

In training batch norms see all images of the device; of their moments running averages are kept in
the collection "batch_stats", and these are what is used at evaluation. Moments are float32.

Sources: Wu & He, "Group Normalization", 2018, eq. 1-3; Ioffe & Szegedy, "Batch Normalization",
2015, algorithms 1 and 2; without bias, Mohan et al., "Robust and interpretable blind image
denoising via bias-free convolutional neural networks", 2020.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

NORMS = ("group", "batch", "bias_free_batch", "none")
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"silu": nn.silu, "relu": nn.relu}

# Of both batch normalisations: the share of the old running moments kept, and what is added to the
# variance. A tenth is new at every step: in the hundred steps of a tiny budget they settle.
MOMENTUM, EPSILON = 0.9, 1e-5


def num_groups(features: int) -> int:
    """The group count of a group norm: the most groups of at least 4 features that come out even.

    Never more than 32; fewer than 8 features, or a prime number of them, make one group.

    Example:
      >>> num_groups(64), num_groups(72), num_groups(256), num_groups(3)
      (16, 18, 32, 1)
    """
    most = max(1, min(32, features // 4))
    return max(groups for groups in range(1, most + 1) if features % groups == 0)


def gain_init(key: jax.Array, shape: Sequence[int], dtype: Any) -> jax.Array:
    """Gains of the bias-free batch normalisation: N(0, 2/(9*64)), cut to +-0.025."""
    return jnp.clip(math.sqrt(2 / (9 * 64)) * jax.random.normal(key, shape, dtype), -0.025, 0.025)


class BiasFreeBatchNorm(nn.Module):
    """g x / s with a gain g and the deviation s of each channel; no mean, no shift.

    s is that of the batch about its mean in training, sqrt(var + 1e-5), and its running average at
    evaluation, where the layer is linear. "deviation" is its one statistic in "batch_stats".
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns the scaled features."""
        shape = x.shape[-1:]
        gain = self.param("scale", gain_init, shape, jnp.float32)
        running = self.variable("batch_stats", "deviation", jnp.ones, shape, jnp.float32)
        deviation = running.value
        if train:
            variance = jnp.var(x.astype(jnp.float32), axis=(0, 1, 2))
            deviation = jnp.sqrt(variance + EPSILON)
            if not self.is_initializing():
                running.value = MOMENTUM * running.value + (1 - MOMENTUM) * deviation
        return (x * (gain / deviation)[None, None, None, :]).astype(self.dtype)


def normalise(
    x: jax.Array, norm: str, *, train: bool, biases: bool = True, dtype: Any = jnp.float32
) -> jax.Array:
    """Normalised features, [B, H, W, C] -> like x; to be called where layers are made.

    Group norms see one image; batch norms, in training, all images of the device, of which they
    keep running moments in the collection "batch_stats".

    Args:
      x: the features.
      norm: a kind of `NORMS`.
      train: whether batch norms take the batch's moments (and update the running ones).
      biases: whether group and batch norms add a learned shift.
      dtype: of the result; moments are float32.

    Raises:
      ValueError: if moments of a batch of one image are to be taken.
    """
    if norm == "none":
        return x
    if norm == "group":
        # Not the fast variance E[x^2] - E[x]^2: it is no faster here, and loses accuracy where an
        # offset is large against the spread.
        groups = num_groups(x.shape[-1])
        return nn.GroupNorm(groups, use_bias=biases, use_fast_variance=False, dtype=dtype)(x)
    if train and len(x) == 1:
        raise ValueError(
            f"batch statistics (norm={norm!r}) in training need at least 2 images on each device; "
            f"got a batch of 1, shape {x.shape}. Accepted: a larger batch, norm='group' or 'none'."
        )
    if norm == "bias_free_batch":
        return BiasFreeBatchNorm(dtype)(x, train)
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=MOMENTUM,
        epsilon=EPSILON,
        use_bias=biases,
        use_fast_variance=False,
        dtype=dtype,
    )(x)


class NormActivation(nn.Module):
    """act(norm(x)), [B, H, W, C] -> like x, act SiLU unless told otherwise.

    The library's group norm, differentiated by jax, takes the time of one with a hand-written
    gradient (within 2 % of a whole training step on a CPU) and allows forward mode.

    Attributes:
      norm: a kind of `NORMS`; "none" has no parameters.
      activation: a name in `ACTIVATIONS`.
      biases: whether group and batch norms add a learned shift.
      dtype: of the result.
    """

    norm: str = "group"
    activation: str = "silu"
    biases: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns the normalised, activated features."""
        x = normalise(x, self.norm, train=train, biases=self.biases, dtype=self.dtype)
        return ACTIVATIONS[self.activation](x)
