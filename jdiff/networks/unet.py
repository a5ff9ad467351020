"""A time-conditioned UNet: the architecture most diffusion models use.

Residual blocks at `levels` resolutions, each half the one above with twice the channels, a
middle of two blocks, and the way back up, where each block also sees (by concatenation) what
the block of the same size gave on the way down.

Source: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", 2020, appendix B (without
attention); Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, section 3.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdiff import _check
from jdiff.networks import layers


class UNet(nn.Module):
    """(x [B, H, W, C], c_noise [B], labels [B] or None) -> F like x.

    The features of the middle are sown as "bottleneck" in the collection "intermediates".

    Attributes:
      width: channels at the highest resolution; resolution k (from 0) has width * 2**k.
      levels: resolutions; H and W must be even levels - 1 times in a row.
      blocks: residual blocks a level on the way down; one more on the way up.
      skips: whether the way up sees the way down; without, everything passes the middle.
      norm: "group" or "none".
      num_classes: number of classes of the labels; None for a network without labels.
    """

    width: int = 32
    levels: int = 3
    blocks: int = 1
    skips: bool = True
    norm: str = "group"
    num_classes: int | None = None

    preconditioning = "edm"

    def __post_init__(self):
        self.width = _check.integer("width", self.width)
        self.levels = _check.integer("levels", self.levels)
        self.blocks = _check.integer("blocks", self.blocks)
        self.skips = _check.boolean("skips", self.skips)
        self.norm = _check.choice("norm", self.norm, layers.NORMS)
        if self.num_classes is not None:
            self.num_classes = _check.integer("num_classes", self.num_classes)
        super().__post_init__()

    @staticmethod
    def image_defaults(image_shape: Sequence[int]) -> dict[str, int]:
        """What `networks.create` takes for options left out: less of a network on small images.

        Three levels, fewer where the coarsest features would be smaller than 4x4 or a size would
        be odd; width 32, but 24 on sides below 16.
        """
        side = min(image_shape[:2])
        levels = max(k for k in (1, 2, 3) if k == 1 or side >= 4 * 2 ** (k - 1))
        return {
            "width": 32 if side >= 16 else 24,
            "levels": min(levels, max_levels(image_shape)),
        }

    @nn.nowrap
    def check_image(self, image_shape: Sequence[int]) -> None:
        """Raises ValueError if images of this shape cannot be halved levels - 1 times."""
        most = max_levels(image_shape)
        if self.levels > most:
            h, w, _ = image_shape
            raise ValueError(
                f"levels must be at most {most} for {h}x{w} images (every size that is halved must "
                f"be even); got {self.levels}."
            )

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        c_noise: jax.Array,
        labels: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Returns F, shaped like x; `train` changes nothing here."""
        del train
        layers.check_inputs(x, c_noise, labels, self.num_classes)
        self.check_image(x.shape[1:])
        embedding = layers.TimeEmbedding(4 * self.width)(c_noise)
        if self.num_classes is not None:
            classes = layers.ClassEmbedding(self.num_classes, 4 * self.width)
            embedding = embedding + classes(labels, len(x))
        embedding = nn.silu(embedding)
        widths = [self.width * 2**level for level in range(self.levels)]

        h = nn.Conv(self.width, (3, 3), kernel_init=layers.kernel_init)(x)
        passed = [h]
        for level, features in enumerate(widths):
            if level > 0:
                halve = nn.Conv(widths[level - 1], (3, 3), (2, 2), kernel_init=layers.kernel_init)
                h = halve(h)
                passed.append(h)
            for _ in range(self.blocks):
                h = layers.ResBlock(features, self.norm)(h, embedding)
                passed.append(h)

        for _ in range(2):
            h = layers.ResBlock(widths[-1], self.norm)(h, embedding)
        self.sow("intermediates", "bottleneck", h)

        for level, features in reversed(list(enumerate(widths))):
            for _ in range(self.blocks + 1):
                skip = passed.pop()
                h = jnp.concatenate([h, skip], axis=-1) if self.skips else h
                h = layers.ResBlock(features, self.norm)(h, embedding)
            if level > 0:
                h = layers.UpsampleConv(features)(h)

        # The head starts at zero: training starts from F = 0.
        h = layers.NormSilu(self.norm)(h)
        return nn.Conv(x.shape[-1], (3, 3), kernel_init=nn.initializers.zeros)(h)


def max_levels(image_shape: Sequence[int]) -> int:
    """The most levels that images of this shape allow: 1 + how often both sides halve evenly.

    Example:
      >>> max_levels((28, 28, 1)), max_levels((32, 32, 3)), max_levels((1, 1, 2))
      (3, 6, 1)
    """
    h, w, _ = image_shape
    levels = 1
    while h % 2 == 0 and w % 2 == 0:
        h, w, levels = h // 2, w // 2, levels + 1
    return levels
