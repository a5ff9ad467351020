"""The layers that networks are made of, each once.

Images are [B, H, W, C], float32; parameters are float32 and contractions run at the library's
default precision. Everything here is plain differentiable jax, so that forward mode (`jax.jvp`),
reverse mode, `vmap` and `pmap` all work.

Sources: group normalisation, Wu & He, "Group Normalization", 2018, eq. 1-3; the residual block,
Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", 2020, appendix B.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

NORMS = ("group", "none")


def num_groups(features: int) -> int:
    """The group count of a group norm: the largest divisor of `features` with groups of >= 4.

    Never more than 32 groups; fewer than 8 features make one group.

    Example:
      >>> num_groups(64), num_groups(96), num_groups(20), num_groups(3)
      (16, 24, 5, 1)
    """
    most = max(1, min(32, features // 4))
    return max(g for g in range(1, most + 1) if features % g == 0)


class NormSilu(nn.Module):
    """Normalisation followed by SiLU, x [B, H, W, C] -> like x.

    Attributes:
      norm: "group", or "none" for SiLU alone (no parameters).
    """

    norm: str = "group"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns silu(norm(x))."""
        if self.norm == "none":
            return nn.silu(x)
        # Two passes over x (use_fast_variance would take E[x^2] - E[x]^2): as fast, and an offset
        # large against the spread costs no accuracy.
        groups = num_groups(x.shape[-1])
        return nn.silu(nn.GroupNorm(num_groups=groups, use_fast_variance=False)(x))


def upsample_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Nearest upsampling by 2, then a 3x3 convolution with zero padding, in 16/36 of its FLOPs.

    Output pixel (2i + a, 2j + b) sees each small pixel through the sum of the taps that fall on
    it: two row taps and two column taps are left, so each of the four phases (a, b) is a 2x2
    convolution of the small image.

    Args:
      x: [B, H, W, C].
      kernel: [3, 3, C, F], that of the convolution on the large image.

    Returns:
      [B, 2 H, 2 W, F].
    """
    b, h, w, _ = x.shape
    features = kernel.shape[-1]

    def halves(k: jax.Array, phase: int) -> jax.Array:  # 3 taps of the leading axis -> 2
        pair = (k[0], k[1] + k[2]) if phase == 0 else (k[0] + k[1], k[2])
        return jnp.stack(pair)

    def convolve(a: int, c: int) -> jax.Array:
        rows = halves(kernel, a)
        small = jnp.swapaxes(halves(jnp.swapaxes(rows, 0, 1), c), 0, 1)
        return jax.lax.conv_general_dilated(
            x, small, (1, 1), ((1 - a, a), (1 - c, c)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    rows = [jnp.stack([convolve(a, 0), convolve(a, 1)], axis=3) for a in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, features)


class UpsampleConv(nn.Module):
    """`upsample_conv` with its own 3x3 kernel and bias, [B, H, W, C] -> [B, 2 H, 2 W, features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the upsampled, convolved image."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return upsample_conv(x, kernel) + bias.reshape(1, 1, 1, -1)


def fourier_features(t: jax.Array, features: int) -> jax.Array:
    """cos and sin of t at `features // 2` frequencies spaced evenly in log from 1/2 to 64 rad.

    Made for t = log(sigma) / 4, which runs over about [-1.6, 1.1]: the slowest wave does not
    turn once over that range, the fastest once for every 1.5-fold change of sigma.

    Args:
      t: [B].
      features: even.

    Returns:
      [B, features], each column of mean square 1 over many periods.
    """
    frequencies = jnp.geomspace(0.5, 64.0, features // 2, dtype=jnp.float32)
    angles = t.astype(jnp.float32)[:, None] * frequencies[None, :]
    return jnp.sqrt(2.0).astype(jnp.float32) * jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], 1)


class TimeEmbedding(nn.Module):
    """Fourier features of c_noise and two dense layers, [B] -> [B, features]."""

    features: int

    @nn.compact
    def __call__(self, c_noise: jax.Array) -> jax.Array:
        """Returns the embedding, before the activation that follows it."""
        h = nn.Dense(self.features)(fourier_features(c_noise, 64))
        return nn.Dense(self.features)(nn.silu(h))


class ClassEmbedding(nn.Module):
    """One learned vector a class and one, the last, for "no label": [B] int -> [B, features]."""

    num_classes: int
    features: int

    @nn.compact
    def __call__(self, labels: jax.Array | None, batch: int) -> jax.Array:
        """Returns the labels' vectors; `labels` None stands for the null class everywhere."""
        if labels is None:
            labels = jnp.full((batch,), self.num_classes, jnp.int32)
        return nn.Embed(self.num_classes + 1, self.features)(labels)


def condition(
    c_noise: jax.Array, labels: jax.Array | None, *, features: int, num_classes: int | None
) -> jax.Array:
    """What a network is told beside the image: time, plus class if it knows classes.

    To be called inside a compact method, whose module then owns the parameters.

    Args:
      c_noise: [B].
      labels: [B] int in 0 .. num_classes (the last is null), or None for null everywhere.
      features: the width of the result.
      num_classes: None for a network without labels.

    Returns:
      [B, features], activated.

    Raises:
      ValueError: if there are labels but no classes.
    """
    h = TimeEmbedding(features)(c_noise)
    if num_classes is not None:
        h = h + ClassEmbedding(num_classes, features)(labels, len(c_noise))
    elif labels is not None:
        raise ValueError(
            "labels were given to a network built with num_classes=None; pass labels=None, or "
            "build the network with num_classes=the number of classes."
        )
    return nn.silu(h)


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + time))), [B, H, W, C] -> [B, H, W, features].

    The last convolution starts at zero, so that a new block is the identity (or the 1x1
    convolution that changes the channel count).
    """

    features: int
    norm: str = "group"

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
        """Returns the block's output; `embedding` [B, E] is added to every pixel, projected."""
        h = NormSilu(self.norm)(x)
        # No bias: the projection of the embedding brings one.
        h = nn.Conv(self.features, (3, 3), use_bias=False)(h)
        h = h + nn.Dense(self.features)(embedding)[:, None, None, :]
        h = NormSilu(self.norm)(h)
        h = nn.Conv(self.features, (3, 3), kernel_init=nn.initializers.zeros)(h)
        # A 1x1 convolution as a matmul, which is faster on the CPU.
        return h + (x if x.shape[-1] == self.features else nn.Dense(self.features)(x))
