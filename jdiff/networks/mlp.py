"""A fully connected network: flatten, hidden layers of equal width, back to an image.

Nine hidden layers of 200, LeakyReLU 0.2 (ReLU after the last), a linear layer, tanh: the MLP of
the architecture study this library reproduces, where width is the knob between creating and
memorizing. There one network serves one noise level; here c_noise joins the input.

Source of the initialisation: He et al., "Delving Deep into Rectifiers", 2015, eq. 15.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdiff import _check
from jdiff.networks import layers

OUTPUTS = ("tanh", "linear")
SLOPE = 0.2
EMBEDDING = 64


class MLP(nn.Module):
    """(x [B, H, W, C], c_noise [B], labels [B] or None) -> F like x.

    With the preconditioning x0, F is the image itself and tanh keeps it in [-1, 1]. Under edm,
    eps and v the target of F leaves [-1, 1]: choose output="linear" there.

    The last hidden layer is sown as "bottleneck" in the collection "intermediates".

    Attributes:
      width: units of every hidden layer.
      depth: hidden layers.
      output: "tanh" or "linear".
      time: whether the network sees c_noise; without, one network serves all levels blindly.
      num_classes: number of classes of the labels; None for a network without labels.
    """

    width: int = 200
    depth: int = 9
    output: str = "tanh"
    time: bool = True
    num_classes: int | None = None

    preconditioning = "x0"

    def __post_init__(self):
        self.width = _check.integer("width", self.width)
        self.depth = _check.integer("depth", self.depth)
        self.output = _check.choice("output", self.output, OUTPUTS)
        self.time = _check.boolean("time", self.time)
        if self.num_classes is not None:
            self.num_classes = _check.integer("num_classes", self.num_classes)
        super().__post_init__()

    @staticmethod
    def image_defaults(image_shape: Sequence[int]) -> dict[str, int]:
        """The options that `networks.create` sets by the size of the images: none."""
        del image_shape
        return {}

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
        """Returns F, shaped like x; `train` changes nothing here."""
        del train
        layers.check_inputs(x, c_noise, labels, self.num_classes)
        seen = [x.reshape(len(x), -1)]
        if self.time:
            seen.append(nn.silu(layers.TimeEmbedding(EMBEDDING)(c_noise)))
        if self.num_classes is not None:
            seen.append(layers.ClassEmbedding(self.num_classes, EMBEDDING)(labels, len(x)))
        h = jnp.concatenate(seen, axis=1)
        # Keeps the mean square of the pre-activations through LeakyReLU.
        he = nn.initializers.variance_scaling(2 / (1 + SLOPE**2), "fan_in", "normal")
        for layer in range(self.depth):
            h = nn.Dense(self.width, kernel_init=he if layer else nn.initializers.lecun_normal())(h)
            h = nn.relu(h) if layer == self.depth - 1 else nn.leaky_relu(h, SLOPE)
        self.sow("intermediates", "bottleneck", h)
        h = nn.Dense(math.prod(x.shape[1:]))(h).reshape(x.shape)
        return jnp.tanh(h) if self.output == "tanh" else h
