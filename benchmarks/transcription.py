"""The default UNet as one would write it in an afternoon: the libraries' layers, nothing else.

The same function of the same parameters as `jdiff.networks.UNet` at its defaults (tested): what
jdiff's own layers and compiler options are worth is the ratio of their times.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

TIME_FEATURES = 64


class UNet(nn.Module):
    """(x [B, H, W, C], c_noise [B]) -> F like x.

    Attributes:
      channels: of each resolution, from the highest, each half as large as the one before.
    """

    channels: tuple[int, ...] = (32, 64, 128)

    @nn.compact
    def __call__(self, x: jax.Array, c_noise: jax.Array) -> jax.Array:
        """Returns F, shaped like x."""
        image_channels = x.shape[-1]

        frequencies = np.geomspace(0.5, 64, TIME_FEATURES // 2, dtype=np.float32)
        angles = c_noise[:, None] * frequencies[None, :]
        waves = np.float32(2**0.5) * jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
        e = nn.silu(nn.Dense(4 * self.channels[0])(waves))
        e = nn.silu(nn.Dense(4 * self.channels[0])(e))

        h = nn.Conv(self.channels[0], (3, 3))(x)
        skips = [h]
        for level, features in enumerate(self.channels):
            if level > 0:
                h = nn.Conv(self.channels[level - 1], (3, 3), strides=2)(h)
                skips.append(h)
            h = Block(features)(h, e)
            skips.append(h)

        h = Block(self.channels[-1])(h, e)
        h = Block(self.channels[-1])(h, e)

        for level in reversed(range(len(self.channels))):
            features = self.channels[level]
            for _ in range(2):
                h = Block(features)(jnp.concatenate([h, skips.pop()], axis=-1), e)
            if level > 0:
                batch, height, width, _ = h.shape
                h = jax.image.resize(h, (batch, 2 * height, 2 * width, features), "nearest")
                h = nn.Conv(features, (3, 3))(h)

        h = nn.silu(nn.GroupNorm(_groups(h))(h))
        return nn.Conv(image_channels, (3, 3), kernel_init=nn.initializers.zeros)(h)


class Block(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + e))), [B, H, W, C] -> [B, H, W, features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, e: jax.Array) -> jax.Array:
        """Returns the block's output; `e` is the embedding of time, [B, E]."""
        h = nn.silu(nn.GroupNorm(_groups(x))(x))
        h = nn.Conv(self.features, (3, 3), use_bias=False)(h)
        h = h + nn.Dense(self.features)(e)[:, None, None, :]
        h = nn.silu(nn.GroupNorm(_groups(h))(h))
        h = nn.Conv(self.features, (3, 3), kernel_init=nn.initializers.zeros)(h)
        if x.shape[-1] != self.features:
            x = nn.Dense(self.features)(x)
        return x + h


def _groups(h: jax.Array) -> int:
    """At least 4 channels a group, at most 32 groups."""
    return max(n for n in range(1, 33) if h.shape[-1] % n == 0 and 4 * n <= h.shape[-1])
