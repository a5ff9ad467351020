"""A time-conditioned UNet: the architecture most diffusion models use, and knobs to change it.

Residual blocks at `levels` resolutions, each half the one above with twice the channels, a
middle of two blocks, and the way back up, where each block also sees (by concatenation) what
the block of the same size gave on the way down.

With biases=False, norm="none" or "bias_free_batch", activation="relu", time=False and neither
classes nor attention nothing constant enters: F(a x) = a F(x) for a > 0, at evaluation.

Source: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", 2020, appendix B; Dhariwal &
Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, section 3; homogeneity: Mohan et al.,
"Robust and interpretable blind image denoising via bias-free convolutional neural networks", 2020.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check
from jdiff.networks import fields, layers
from jdiff.networks.norms import ACTIVATIONS, NORMS, NormActivation


class UNet(nn.Module):
    """(x [B, H, W, C], c_noise [B], labels [B] or None) -> F like x.

    The features of the middle are sown as "bottleneck" in the collection "intermediates".

    Attributes:
      width: channels at the highest resolution; resolution k (from 0) has width * 2**k.
      levels: resolutions; H and W must be even levels - 1 times in a row.
      blocks: residual blocks a level on the way down; one more on the way up.
      skips: whether the way up sees the way down; without, everything passes the middle.
      norm: "group", "batch", "bias_free_batch" or "none".
      num_classes: number of classes of the labels; None for a network without labels.
      padding: "zeros" or "circular", of all convolutions.
      biases: whether convolutions, dense layers and normalisations have biases (with norm="batch"
        normalisations and the last convolution alone: others would be taken away again). The
        embeddings of c_noise and of labels, which are added to the features, keep theirs.
      bottleneck: channels of the middle; None takes those of the lowest resolution.
      down: "conv" (3x3 of stride 2) or "average" (the mean of 2x2 pixels).
      up: "nearest" (repeated pixels, then a 3x3 convolution) or "transposed" (2x2 of stride 2).
      attention: the resolutions (0 the highest) whose blocks are each followed by attention over
        all pixels, the middle's with the lowest; a number, numbers, or text as in "1+2".
      time: whether the network sees c_noise; without, one network serves all levels blindly.
      dropout: the share of features that each block sets to zero in training.
      activation: "silu" or "relu".
      dtype: "float32" or "bfloat16", of the computation; parameters and F are float32.
    """

    width: int = 32
    levels: int = 3
    blocks: int = 1
    skips: bool = True
    norm: str = "group"
    num_classes: int | None = None
    padding: str = "zeros"
    biases: bool = True
    bottleneck: int | None = None
    down: str = "conv"
    up: str = "nearest"
    attention: tuple[int, ...] = ()
    time: bool = True
    dropout: float = 0.0
    activation: str = "silu"
    dtype: str = "float32"

    preconditioning = "edm"

    def __post_init__(self):
        self.width = _check.integer("width", self.width)
        self.levels = _check.integer("levels", self.levels)
        self.blocks = _check.integer("blocks", self.blocks)
        self.skips = _check.boolean("skips", self.skips)
        self.norm = _check.choice("norm", self.norm, NORMS)
        if self.num_classes is not None:
            self.num_classes = _check.integer("num_classes", self.num_classes)
        self.padding = _check.choice("padding", self.padding, layers.PADDINGS)
        self.biases = _check.boolean("biases", self.biases)
        if self.bottleneck is not None:
            self.bottleneck = _check.integer("bottleneck", self.bottleneck)
        self.down = _check.choice("down", self.down, layers.DOWN)
        self.up = _check.choice("up", self.up, layers.UP)
        self.attention = _level_numbers("attention", self.attention, self.levels)
        self.time = _check.boolean("time", self.time)
        self.dropout = _check.number("dropout", self.dropout, above=0, below=1, closed="[")
        self.activation = _check.choice("activation", self.activation, ACTIVATIONS)
        self.dtype = _check.choice("dtype", self.dtype, layers.DTYPES)
        super().__post_init__()

    @property
    def halvings(self) -> int:
        """How often the grid is halved on the way down."""
        return self.levels - 1

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
        """Returns F, shaped like x; `train` switches dropout on and batch norms to the batch."""
        layers.check_inputs(x, c_noise, labels, self.num_classes)
        self.check_image(x.shape[1:])
        dtype = layers.DTYPES[self.dtype]
        widths = [self.width * 2**level for level in range(self.levels)]
        # Under batch norm, which takes away any other constant, its shifts are the biases.
        biases = self.biases and self.norm != "batch"
        conv = functools.partial(layers.conv, padding=self.padding, use_bias=biases, dtype=dtype)
        embedding = layers.embed(self, 4 * self.width, c_noise, labels)

        def block(h: jax.Array, features: int, level: int) -> jax.Array:
            h = layers.ResBlock(
                features,
                self.norm,
                self.activation,
                self.padding,
                self.biases,
                self.dropout,
                dtype,
            )(h, embedding, train)
            if level in self.attention:
                h = layers.SelfAttention(self.norm, self.biases, dtype)(h, train)
            return h

        h = conv(self.width)(x)
        passed = [h]
        for level, features in enumerate(widths):
            if level > 0:
                halve = conv(widths[level - 1], stride=2) if self.down == "conv" else _mean
                h = halve(h)
                passed.append(h)
            for _ in range(self.blocks):
                h = block(h, features, level)
                passed.append(h)

        for _ in range(2):
            h = block(h, self.bottleneck or widths[-1], self.levels - 1)
        self.sow("intermediates", "bottleneck", h)

        for level, features in reversed(list(enumerate(widths))):
            for _ in range(self.blocks + 1):
                skip = passed.pop()
                h = jnp.concatenate([h, skip], axis=-1) if self.skips else h
                h = block(h, features, level)
            if level > 0 and self.up == "nearest":
                h = layers.UpsampleConv(features, self.padding, biases, dtype)(h)
            elif level > 0:
                h = layers.TransposedConv(features, biases, dtype)(h)

        # The head starts at zero: training starts from F = 0.
        h = NormActivation(self.norm, self.activation, self.biases)(h.astype(jnp.float32), train)
        zeros = nn.initializers.zeros
        head = layers.conv(
            x.shape[-1], padding=self.padding, use_bias=self.biases, kernel_init=zeros
        )
        return head(h)

    @nn.nowrap
    def receptive_field(self, image_shape: Sequence[int]) -> int:
        """The side of the square that F sees of x, see `fields.side`; batch norms at evaluation."""
        self.check_image(image_shape)
        return fields.side(self._reach, image_shape, self.padding)

    @nn.nowrap
    def _reach(self, h: np.ndarray) -> np.ndarray:
        if self.norm == "group" or self.attention:
            return fields.everything(h)
        conv = functools.partial(fields.convolve, padding=self.padding)
        block = lambda h: conv(conv(h))

        h = conv(h)
        passed = [h]
        for level in range(self.levels):
            if level > 0:
                h = conv(h, stride=2) if self.down == "conv" else fields.halve(h)
                passed.append(h)
            for _ in range(self.blocks):
                h = block(h)
                passed.append(h)
        h = block(block(h))
        for level in reversed(range(self.levels)):
            for _ in range(self.blocks + 1):
                skip = passed.pop()
                h = block(h | skip if self.skips else h)
            if level > 0:
                h = fields.double(h)
                h = conv(h) if self.up == "nearest" else h
        return conv(h)


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


def _mean(h: jax.Array) -> jax.Array:
    return nn.avg_pool(h, (2, 2), (2, 2))


def _level_numbers(name: str, value: Any, levels: int) -> tuple[int, ...]:
    """Level numbers as a sorted tuple, from a number, numbers, or text as in "1+2"."""
    numbers = _check.as_tuple(value)
    known = isinstance(numbers, tuple)
    if known:
        numbers = [_check.integer(name, number, minimum=0) for number in numbers]
    if not known or len(set(numbers)) < len(numbers) or any(n >= levels for n in numbers):
        raise ValueError(
            f"{name} must be a level from 0 to {levels - 1} or several, each once, as in (0, 1) or "
            f"'0+1' (levels={levels}); got {value!r}."
        )
    return tuple(sorted(numbers))
