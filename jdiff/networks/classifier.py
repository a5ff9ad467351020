"""A small convolutional classifier, whose last hidden layer is a feature space for measures.

    features(x) = W flatten(h_3) + b,    h_i = pool(relu(conv(h_(i-1)))),    h_0 = 2 x - 1
    logits(x)   = V relu(features(x)) + c

conv is 3x3 with zero padding, pool the mean of 2x2 pixels (with maxima a training step was four
times as long on a CPU). A trained classifier's space is relu(features). With the weights they start
with, the features themselves are an untrained space: a ReLU there, before any training, makes a
quarter of them 0 for every image of some data sets.

Source: LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition",
1998 (convolutions, mean pooling, dense layers); untrained networks as feature spaces: Naeem et al.,
"Reliable fidelity and diversity metrics for generative models", 2020, section 5.
"""

import flax.linen as nn
import jax

from jdiff import _check
from jdiff.networks.layers import he_init, kernel_init

WIDTHS = (16, 32, 64)


class ConvFeatures(nn.Module):
    """x [B, H, W, C] on the [0, 1] scale -> features [B, dim], any H, W >= 1.

    Attributes:
      dim: how many features.
    """

    dim: int = 128

    def __post_init__(self):
        self.dim = _check.integer("dim", self.dim)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the features; values of x outside [0, 1] are taken as they are."""
        h = 2 * x - 1
        for width in WIDTHS:
            h = nn.relu(nn.Conv(width, (3, 3), kernel_init=he_init)(h))
            h = nn.avg_pool(h, (2, 2), (2, 2), padding="SAME", count_include_pad=False)
        return nn.Dense(self.dim, kernel_init=he_init)(h.reshape(len(h), -1))


class Classifier(nn.Module):
    """x [B, H, W, C] on the [0, 1] scale -> logits [B, num_classes].

    The variables of its `ConvFeatures` are variables["params"]["features"].

    Attributes:
      num_classes: how many classes.
      dim: features before the logits.
    """

    num_classes: int
    dim: int = 128

    def __post_init__(self):
        self.num_classes = _check.integer("num_classes", self.num_classes, minimum=2)
        self.dim = _check.integer("dim", self.dim)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logits."""
        features = ConvFeatures(self.dim, name="features")(x)
        return nn.Dense(self.num_classes, kernel_init=kernel_init, name="head")(nn.relu(features))
