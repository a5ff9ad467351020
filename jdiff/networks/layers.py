"""The layers that networks are made of, each once.

Images are [B, H, W, C]; parameters are float32 and contractions run at the library's default
precision. Everything is plain differentiable jax, without custom derivatives, so that forward
mode (`jax.jvp`), reverse mode, `vmap` and `pmap` all work.

Sources: group normalisation, Wu & He, "Group Normalization", 2018, eq. 1-3; the residual block
and the time embedding, Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", 2020,
appendix B.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

NORMS = ("group", "none")


def check_inputs(
    x: jax.Array, c_noise: jax.Array, labels: jax.Array | None, num_classes: int | None
) -> None:
    """Refuses inputs that a network would take for something else, when it is traced.

    Raises:
      TypeError: if x is not floating, or the labels are not integers.
      ValueError: if x is not [B, H, W, C], or c_noise or labels are not [B], or if there are
        labels but no classes.
    """
    if x.ndim != 4:
        raise ValueError(f"x must have shape [B, height, width, channels]; got {x.shape}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x must be float; got dtype {x.dtype}.")
    for name, array in (("c_noise", c_noise), ("labels", labels)):
        if array is not None and array.shape != (len(x),):
            raise ValueError(
                f"{name} must have shape ({len(x)},), one for each image; got {array.shape}."
            )
    if labels is not None and not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers; got dtype {labels.dtype}.")
    if labels is not None and num_classes is None:
        raise ValueError(
            "labels were given to a network without classes; pass labels=None, or build it with "
            "num_classes=the number of classes."
        )


def kernel_init(key: jax.Array, shape: Sequence[int], dtype: Any) -> jax.Array:
    """A kernel [..., inputs, outputs] of normal numbers with variance 1 / fan-in.

    LeCun's initialisation, drawn flat: an initialisation's time is nearly all compilation, and
    XLA compiles one-dimensional draws twice as fast as four-dimensional ones.
    """
    flat = jax.random.normal(key, (math.prod(shape),), dtype)
    return flat.reshape(shape) / math.sqrt(math.prod(shape[:-1]))


def num_groups(features: int) -> int:
    """The group count of a group norm: the most groups of at least 4 features that come out even.

    Never more than 32; fewer than 8 features, or a prime number of them, make one group.

    Example:
      >>> num_groups(64), num_groups(72), num_groups(256), num_groups(3)
      (16, 18, 32, 1)
    """
    most = max(1, min(32, features // 4))
    return max(groups for groups in range(1, most + 1) if features % groups == 0)


class NormSilu(nn.Module):
    """silu(norm(x)), [B, H, W, C] -> like x; the moments of a group norm are float32.

    The library's group norm, differentiated by jax, takes the time of one with a hand-written
    gradient (within 2 % of a whole training step on a CPU) and allows forward mode.

    Attributes:
      norm: "group", or "none" for SiLU alone (no parameters).
    """

    norm: str = "group"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the normalised, activated features."""
        if self.norm == "group":
            # Not the fast variance E[x^2] - E[x]^2: it is no faster here, and loses accuracy
            # where an offset is large against the spread.
            x = nn.GroupNorm(num_groups=num_groups(x.shape[-1]), use_fast_variance=False)(x)
        return nn.silu(x)


def upsample_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Nearest upsampling by 2, then a 3x3 convolution with zero padding, in 16/36 of its FLOPs.

    The pixel (2 i + a, 2 j + b) of the output sees each small pixel through the sum of the taps
    that fall on it. Two rows and two columns of taps are left, so that each of the four phases
    (a, b) is a 2x2 convolution of the small image.

    Args:
      x: [B, H, W, C].
      kernel: [3, 3, C, F], that of the convolution on the large image.

    Returns:
      [B, 2 H, 2 W, F].
    """

    def merge(taps: jax.Array, axis: int, phase: int) -> jax.Array:  # three taps -> two
        first, second, third = jnp.split(taps, 3, axis)
        pair = (first, second + third) if phase == 0 else (first + second, third)
        return jnp.concatenate(pair, axis)

    def convolve(a: int, b: int) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x,
            merge(merge(kernel, 0, a), 1, b),
            window_strides=(1, 1),
            padding=((1 - a, a), (1 - b, b)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    batch, height, width, _ = x.shape
    # One convolution for all phases would be four times wider, but its weight gradient is 5 times
    # slower on a CPU.
    rows = [jnp.stack([convolve(a, 0), convolve(a, 1)], axis=3) for a in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, kernel.shape[-1])


class UpsampleConv(nn.Module):
    """`upsample_conv` with its 3x3 kernel and a bias, [B, H, W, C] -> [B, 2 H, 2 W, features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the upsampled, convolved features."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", kernel_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return upsample_conv(x, kernel) + bias[None, None, None, :]


def fourier_features(c_noise: jax.Array, features: int) -> jax.Array:
    """sqrt(2) cos(w t) and sqrt(2) sin(w t) of t = c_noise; w geometric from 1/2 to 64 rad.

    Made for c_noise = log(sigma) / 4, which runs over about [-1.6, 1.1]: the slowest wave makes a
    fifth of a turn over that range, the fastest one turn while sigma grows by half.

    Args:
      c_noise: [B].
      features: how many, even.

    Returns:
      [B, features], each of mean square about 1.
    """
    frequencies = np.geomspace(0.5, 64.0, features // 2, dtype=np.float32)
    angles = c_noise[:, None] * frequencies[None, :]
    return np.float32(2**0.5) * jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)


class TimeEmbedding(nn.Module):
    """Fourier features of c_noise and two dense layers, [B] -> [B, features]."""

    features: int

    @nn.compact
    def __call__(self, c_noise: jax.Array) -> jax.Array:
        """Returns the embedding, before the activation that follows it."""
        h = nn.Dense(self.features, kernel_init=kernel_init)(fourier_features(c_noise, 64))
        return nn.Dense(self.features, kernel_init=kernel_init)(nn.silu(h))


class ClassEmbedding(nn.Module):
    """A learned vector for each class and one, the last, for "no label": [B] -> [B, features]."""

    num_classes: int
    features: int

    @nn.compact
    def __call__(self, labels: jax.Array | None, batch: int) -> jax.Array:
        """Returns the vectors of `batch` labels; None stands for the null class everywhere."""
        if labels is None:
            labels = jnp.full((batch,), self.num_classes, jnp.int32)
        return nn.Embed(self.num_classes + 1, self.features)(labels)


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + e))), [B, H, W, C] -> [B, H, W, features].

    e is the embedding, projected and added to every pixel. The last convolution starts at zero:
    a new block is the identity, or the 1x1 convolution that changes the number of channels.
    """

    features: int
    norm: str = "group"

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
        """Returns the block's output; `embedding` is [B, E]."""
        h = NormSilu(self.norm)(x)
        # The projection of the embedding brings the bias.
        h = nn.Conv(self.features, (3, 3), use_bias=False, kernel_init=kernel_init)(h)
        h = h + nn.Dense(self.features, kernel_init=kernel_init)(embedding)[:, None, None, :]
        h = NormSilu(self.norm)(h)
        h = nn.Conv(self.features, (3, 3), kernel_init=nn.initializers.zeros)(h)
        return h + (
            x
            if x.shape[-1] == self.features
            else nn.Dense(self.features, kernel_init=kernel_init)(x)
        )
