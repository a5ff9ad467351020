"""The UNet of the architecture study that this library reproduces; one network a noise level.

    down   conv conv | pool | conv conv | pool | conv conv | pool     width, 2 width, 4 width
    middle conv conv                                                  8 width
    up     grow + conv conv | grow + conv conv | grow + conv conv     4 width, 2 width, width

conv is a 3x3 convolution, a normalisation and ReLU; the first has no normalisation, the last is the
convolution alone, to the image's channels. pool is the mean of 2x2 pixels, grow a transposed 2x2
convolution of stride 2, + the concatenation with what the same size gave on the way down. There are
no biases and no input but the image; with bias-free batch normalisation (or none) the network is
homogeneous at evaluation, F(a x) = a F(x) for a > 0. With batch normalisation the running means
are constants that enter.

Biases, c_noise and labels can be switched on, for one network that serves all levels: an embedding,
projected, is then added to what the first convolution of each pair gives.

Source: Levine and Weiss 2026, arXiv 2605.16415; Mohan et al., "Robust and interpretable blind image
denoising via bias-free convolutional neural networks", 2020.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check
from jdiff.networks import fields, layers
from jdiff.networks.norms import NormActivation
from jdiff.networks.unet import max_levels

NORMS = ("batch", "bias_free_batch", "none")


class PaperUNet(nn.Module):
    """(x [B, H, W, C], c_noise [B], labels [B] or None) -> F like x.

    The features of the middle are sown as "bottleneck" in the collection "intermediates".

    Attributes:
      width: channels at the highest resolution; they double at each of the lower ones.
      levels: how often the image is halved; H and W must be even that often in a row.
      skips: whether the way up sees the way down; without, everything passes the middle.
      padding: "zeros" or "circular", of all convolutions.
      norm: "batch", "bias_free_batch" or "none".
      biases: whether convolutions have biases; with norm="batch" these are its shifts, the first
        convolution's and the last's.
      time: whether the network sees c_noise; without, one network serves all levels blindly.
      num_classes: number of classes of the labels; None for a network without labels.
      dtype: "float32" or "bfloat16", of the computation; parameters and F are float32.
    """

    width: int = 32
    levels: int = 3
    skips: bool = True
    padding: str = "zeros"
    norm: str = "batch"
    biases: bool = False
    time: bool = False
    num_classes: int | None = None
    dtype: str = "float32"

    preconditioning = "x0"

    def __post_init__(self):
        self.width = _check.integer("width", self.width)
        self.levels = _check.integer("levels", self.levels)
        self.skips = _check.boolean("skips", self.skips)
        self.padding = _check.choice("padding", self.padding, layers.PADDINGS)
        self.norm = _check.choice("norm", self.norm, NORMS)
        self.biases = _check.boolean("biases", self.biases)
        self.time = _check.boolean("time", self.time)
        if self.num_classes is not None:
            self.num_classes = _check.integer("num_classes", self.num_classes)
        self.dtype = _check.choice("dtype", self.dtype, layers.DTYPES)
        super().__post_init__()

    @property
    def halvings(self) -> int:
        """How often the grid is halved on the way down."""
        return self.levels

    @staticmethod
    def image_defaults(image_shape: Sequence[int]) -> dict[str, int]:
        """Three levels, fewer where the middle would be smaller than 2x2 or a size would be odd."""
        side = min(image_shape[:2])
        levels = max(k for k in (1, 2, 3) if k == 1 or side >= 2 * 2**k)
        return {"levels": max(1, min(levels, max_levels(image_shape) - 1))}

    @nn.nowrap
    def check_image(self, image_shape: Sequence[int]) -> None:
        """Raises ValueError if images of this shape cannot be halved levels times."""
        h, w, _ = image_shape
        most = max_levels(image_shape) - 1
        if most == 0:
            raise ValueError(
                f"image_shape must have an even height and width for PaperUNet, which halves them "
                f"at least once; got {h}x{w} images."
            )
        if self.levels > most:
            raise ValueError(
                f"levels must be at most {most} for {h}x{w} images (every size that is halved must "
                f"be even, and PaperUNet halves levels times); got {self.levels}."
            )

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        c_noise: jax.Array,
        labels: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Returns F, shaped like x; `train` takes the batch's statistics and updates the others."""
        layers.check_inputs(x, c_noise, labels, self.num_classes)
        self.check_image(x.shape[1:])
        dtype = layers.DTYPES[self.dtype]
        conv = functools.partial(layers.conv, padding=self.padding)
        embedding = layers.embed(self, 4 * self.width, c_noise, labels)

        # Under batch norm, which takes away any other constant, its shifts are the biases.
        grow = lambda features: layers.TransposedConv(
            features, self.biases and self.norm != "batch", dtype
        )

        def layer(h: jax.Array, features: int, norm: str, told: bool = False) -> jax.Array:
            h = conv(
                features,
                use_bias=self.biases and norm != "batch",
                kernel_init=layers.he_init,
                dtype=dtype,
            )(h)
            if told and embedding is not None:
                project = nn.Dense(
                    features, use_bias=False, kernel_init=layers.kernel_init, dtype=dtype
                )
                h = h + project(embedding)[:, None, None, :]
            return NormActivation(norm, "relu", self.biases, dtype)(h, train)

        widths = [self.width * 2**level for level in range(self.levels)]
        passed, h = [], x
        for level, features in enumerate(widths):
            h = layer(h, features, self.norm if level > 0 else "none", told=True)
            h = layer(h, features, self.norm)
            passed.append(h)
            h = nn.avg_pool(h, (2, 2), (2, 2))

        h = layer(h, 2 * widths[-1], self.norm, told=True)
        h = layer(h, 2 * widths[-1], self.norm)
        self.sow("intermediates", "bottleneck", h)

        for level, features in reversed(list(enumerate(widths))):
            h = grow(features)(h)
            h = jnp.concatenate([h, passed.pop()], axis=-1) if self.skips else h
            h = layer(h, features, self.norm, told=True)
            h = layer(h, features, self.norm) if level > 0 else h
        return conv(x.shape[-1], use_bias=self.biases)(h.astype(jnp.float32))

    @nn.nowrap
    def receptive_field(self, image_shape: Sequence[int]) -> int:
        """The side of the square that F sees of x, see `fields.side`; batch norms at evaluation."""
        self.check_image(image_shape)
        return fields.side(self._reach, image_shape, self.padding)

    @nn.nowrap
    def _reach(self, h: np.ndarray) -> np.ndarray:
        conv = functools.partial(fields.convolve, padding=self.padding)
        passed = []
        for _ in range(self.levels):
            passed.append(conv(conv(h)))
            h = fields.halve(passed[-1])
        h = conv(conv(h))
        for _ in range(self.levels):
            h, skip = fields.double(h), passed.pop()
            h = conv(conv(h | skip if self.skips else h))
        return h
