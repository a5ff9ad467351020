"""A fully connected network: flatten, hidden layers of equal width, back to an image.

Nine hidden layers of 200, LeakyReLU 0.2 (ReLU after the last), a linear layer, tanh: the MLP of
the architecture study this library reproduces, where width is the knob between creating and
memorizing. There one network serves one noise level; here c_noise joins the input.

Source of the initialisation: He et al., "Delving Deep into Rectifiers", 2015, eq. 15.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdiff import _check
from jdiff.networks import layers

OUTPUTS = ("tanh", "linear")
SLOPE = 0.2
EMBEDDING = 64

# Each with 1 / E[activation(z)^2], z ~ N(0, 1): weights of that variance over fan-in keep the mean
# square of the pre-activations.
ACTIVATIONS = {
    "leaky_relu": (lambda h: nn.leaky_relu(h, SLOPE), 2 / (1 + SLOPE**2)),
    "relu": (nn.relu, 2.0),
    "silu": (nn.silu, 2.8108),
    "tanh": (jnp.tanh, 2.5361),
}


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
      activation: "leaky_relu" (slope 0.2, but ReLU after the last hidden layer), "relu", "silu" or
        "tanh".
      dropout: the share of each hidden layer's units that is set to zero in training.
      dtype: "float32" or "bfloat16", of the hidden layers; parameters and F are float32.
    """

    width: int = 200
    depth: int = 9
    output: str = "tanh"
    time: bool = True
    num_classes: int | None = None
    activation: str = "leaky_relu"
    dropout: float = 0.0
    dtype: str = "float32"

    preconditioning = "x0"

    def __post_init__(self):
        self.width = _check.integer("width", self.width)
        self.depth = _check.integer("depth", self.depth)
        self.output = _check.choice("output", self.output, OUTPUTS)
        self.time = _check.boolean("time", self.time)
        if self.num_classes is not None:
            self.num_classes = _check.integer("num_classes", self.num_classes)
        self.activation = _check.choice("activation", self.activation, ACTIVATIONS)
        self.dropout = _check.number("dropout", self.dropout, above=0, below=1, closed="[")
        self.dtype = _check.choice("dtype", self.dtype, layers.DTYPES)
        super().__post_init__()

    @staticmethod
    def image_defaults(image_shape: Sequence[int]) -> dict[str, Any]:
        """The options that `networks.create` sets by the size of the images.

        Points (one pixel) are no images, and tanh could not reach those beyond 1.
        """
        return {"output": "linear"} if image_shape[0] * image_shape[1] == 1 else {}

    @nn.nowrap
    def check_image(self, image_shape: Sequence[int]) -> None:
        """Every image shape will do."""

    @nn.nowrap
    def receptive_field(self, image_shape: Sequence[int]) -> int:
        """The whole image: the longer side."""
        return max(_check.image_shape("image_shape", image_shape)[:2])

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        c_noise: jax.Array,
        labels: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Returns F, shaped like x; `train` switches dropout on."""
        layers.check_inputs(x, c_noise, labels, self.num_classes)
        seen = [x.reshape(len(x), -1)]
        if self.time:
            seen.append(nn.silu(layers.TimeEmbedding(EMBEDDING)(c_noise)))
        if self.num_classes is not None:
            seen.append(layers.ClassEmbedding(self.num_classes, EMBEDDING)(labels, len(x)))
        h = jnp.concatenate(seen, axis=1)
        activation, gain = ACTIVATIONS[self.activation]
        keeps_size = nn.initializers.variance_scaling(gain, "fan_in", "normal")
        for layer in range(self.depth):
            init = keeps_size if layer else nn.initializers.lecun_normal()
            h = nn.Dense(self.width, kernel_init=init, dtype=layers.DTYPES[self.dtype])(h)
            last = layer == self.depth - 1
            h = nn.relu(h) if last and self.activation == "leaky_relu" else activation(h)
            if self.dropout:
                h = nn.Dropout(self.dropout, deterministic=not train)(h)
        self.sow("intermediates", "bottleneck", h)
        h = nn.Dense(math.prod(x.shape[1:]))(h.astype(jnp.float32)).reshape(x.shape)
        return jnp.tanh(h) if self.output == "tanh" else h
