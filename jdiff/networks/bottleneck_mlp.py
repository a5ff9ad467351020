"""A network through r numbers: encoder, a narrow linear layer (the code), decoder.

With the preconditioning x0, D = decoder(encoder(y)): at one noise level samples lie in the range of
the decoder, a set of dimension at most r. A skip round the network (edm, eps, v) undoes that.
The paper's toy is 2 -> 64 -> 1 -> 64 -> 2, LeakyReLU 0.2, one network a noise level. Here c_noise
may join the encoder's input and the code: the code is then r numbers and the noise level.

Reference: Levine and Weiss 2026, arXiv 2605.16415 (bottleneck denoisers). Initialisation: as `MLP`.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdiff import _check
from jdiff.networks import layers
from jdiff.networks.mlp import EMBEDDING, OUTPUTS, SLOPE


class BottleneckMLP(nn.Module):
    """(x [B, H, W, C], c_noise [B], labels [B] or None) -> F like x.

    With the preconditioning x0, F is the image itself; output="tanh" keeps it in [-1, 1].

    The code is sown as "bottleneck", [B, code_dim], in the collection "intermediates".

    Attributes:
      code_dim: r, units of the narrow layer, which has no activation.
      width: units of every hidden layer.
      depth: hidden layers on each side of the code.
      output: "linear" or "tanh".
      time: whether encoder and decoder see c_noise; without, one network serves all levels blindly.
      num_classes: number of classes of the labels; None for a network without labels.
    """

    code_dim: int = 1
    width: int = 64
    depth: int = 1
    output: str = "linear"
    time: bool = True
    num_classes: int | None = None

    preconditioning = "x0"

    def __post_init__(self):
        self.code_dim = _check.integer("code_dim", self.code_dim)
        self.width = _check.integer("width", self.width)
        self.depth = _check.integer("depth", self.depth)
        self.output = _check.choice("output", self.output, OUTPUTS)
        self.time = _check.boolean("time", self.time)
        if self.num_classes is not None:
            self.num_classes = _check.integer("num_classes", self.num_classes)
        super().__post_init__()

    @staticmethod
    def image_defaults(image_shape: Sequence[int]) -> dict[str, Any]:
        """The options that `networks.create` sets by the size of the images.

        Points (one pixel) have the toy's. Images have the MLP's width and tanh, two hidden layers a
        side, and a code of 16 numbers or a quarter of the image's values, whichever is less. 16 are
        few enough to lose something: the digits keep 85 % of their variance on as many axes.
        """
        height, width, channels = image_shape
        if height * width == 1:
            return {}
        code_dim = max(1, min(16, height * width * channels // 4))
        return {"code_dim": code_dim, "width": 200, "depth": 2, "output": "tanh"}

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
        """Returns F, shaped like x; `train` changes nothing here."""
        del train
        layers.check_inputs(x, c_noise, labels, self.num_classes)
        beside = []
        if self.time:
            beside.append(nn.silu(layers.TimeEmbedding(EMBEDDING)(c_noise)))
        if self.num_classes is not None:
            beside.append(layers.ClassEmbedding(self.num_classes, EMBEDDING)(labels, len(x)))
        # Keeps the mean square of the pre-activations through LeakyReLU.
        he = nn.initializers.variance_scaling(2 / (1 + SLOPE**2), "fan_in", "normal")

        # Every input has an equal share in the first pre-activation: as a column beside 64 of
        # c_noise a code of one number would have a 65th, and the toy takes four times the steps.
        share = nn.initializers.variance_scaling(
            1 / (1 + len(beside)), "fan_in", "truncated_normal"
        )

        def hidden(h: jax.Array) -> jax.Array:
            h = nn.Dense(self.width, kernel_init=share)(h)
            for embedding in beside:
                h = h + nn.Dense(self.width, use_bias=False, kernel_init=share)(embedding)
            h = nn.leaky_relu(h, SLOPE)
            for _ in range(self.depth - 1):
                h = nn.leaky_relu(nn.Dense(self.width, kernel_init=he)(h), SLOPE)
            return h

        h = hidden(x.reshape(len(x), -1))
        code = nn.Dense(self.code_dim, kernel_init=he)(h)
        self.sow("intermediates", "bottleneck", code)
        h = hidden(code)
        h = nn.Dense(math.prod(x.shape[1:]))(h).reshape(x.shape)
        return jnp.tanh(h) if self.output == "tanh" else h
