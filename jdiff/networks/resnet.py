"""A residual network of convolutions at one resolution, whose receptive field is its knob.

    h_0 = conv(x),   h_(i+1) = h_i + relu(conv(h_i + e_i)),   F = W (h_depth + e_depth)

conv is k x k, W acts on each pixel, e_i is the embedding of c_noise and label, projected for each
layer. Without normalisation and attention an output pixel sees the square of side
1 + (depth + 1) (k - 1) around it, and with circular padding the network is equivariant to shifts.

Source: Kamb & Ganguli, "An analytic theory of creativity in convolutional diffusion models", 2025,
where it is trained to predict the noise and compared with a local posterior mean. Here time enters
by the library's own embedding, and W starts at zero.
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

NORMS = ("none", "batch")


class ResNet(nn.Module):
    """(x [B, H, W, C], c_noise [B], labels [B] or None) -> F like x.

    Attributes:
      width: channels of all layers.
      depth: residual convolutions, between the one that reads the image and the 1x1 one at the end.
      kernel_size: k, odd, of all convolutions but the last.
      padding: "zeros" or "circular".
      norm: "none" or "batch" (between convolution and ReLU).
      time: whether the network sees c_noise; without, one network serves all levels blindly.
      dropout: the share of each layer's addition that is set to zero in training.
      num_classes: number of classes of the labels; None for a network without labels.
      dtype: "float32" or "bfloat16", of the computation; parameters and F are float32.
    """

    width: int = 128
    depth: int = 6
    kernel_size: int = 3
    padding: str = "zeros"
    norm: str = "none"
    time: bool = True
    dropout: float = 0.0
    num_classes: int | None = None
    dtype: str = "float32"

    preconditioning = "edm"

    def __post_init__(self):
        self.width = _check.integer("width", self.width)
        self.depth = _check.integer("depth", self.depth)
        self.kernel_size = _check.odd("kernel_size", self.kernel_size, 99)
        self.padding = _check.choice("padding", self.padding, layers.PADDINGS)
        self.norm = _check.choice("norm", self.norm, NORMS)
        self.time = _check.boolean("time", self.time)
        self.dropout = _check.number("dropout", self.dropout, above=0, below=1, closed="[")
        if self.num_classes is not None:
            self.num_classes = _check.integer("num_classes", self.num_classes)
        self.dtype = _check.choice("dtype", self.dtype, layers.DTYPES)
        super().__post_init__()

    @staticmethod
    def image_defaults(image_shape: Sequence[int]) -> dict[str, int]:
        """What `networks.create` takes for options left out: width 64 on sides below 16."""
        return {"width": 128 if min(image_shape[:2]) >= 16 else 64}

    @nn.nowrap
    def check_image(self, image_shape: Sequence[int]) -> None:
        """Every image shape will do."""

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
        dtype = layers.DTYPES[self.dtype]
        conv = functools.partial(
            layers.conv, self.width, self.kernel_size, padding=self.padding, dtype=dtype
        )
        embedding = layers.embed(self, self.width, c_noise, labels)

        def embedded(h: jax.Array) -> jax.Array:
            if embedding is None:
                return h
            # The convolution that follows brings the bias.
            project = nn.Dense(
                self.width, use_bias=False, kernel_init=layers.kernel_init, dtype=dtype
            )
            return h + project(embedding)[:, None, None, :]

        h = conv()(x)
        for _ in range(self.depth):
            # Batch norm would take a bias away again.
            added = conv(use_bias=self.norm != "batch")(embedded(h))
            added = NormActivation(self.norm, "relu", True, dtype)(added, train)
            if self.dropout:
                added = nn.Dropout(self.dropout, deterministic=not train)(added)
            h = h + added
        # The head starts at zero: training starts from F = 0.
        head = layers.conv(x.shape[-1], 1, kernel_init=nn.initializers.zeros)
        return head(embedded(h).astype(jnp.float32))

    @nn.nowrap
    def receptive_field(self, image_shape: Sequence[int]) -> int:
        """The side of the square that F sees of x, see `fields.side`; batch norms at evaluation."""
        return fields.side(self._reach, image_shape, self.padding)

    @nn.nowrap
    def _reach(self, h: np.ndarray) -> np.ndarray:
        for _ in range(1 + self.depth):
            h = fields.convolve(h, self.kernel_size, padding=self.padding)
        return h
