"""The layers that networks are made of, each once.

Images are [B, H, W, C]; parameters are float32 and contractions run at the library's default
precision. Everything is plain differentiable jax, without custom derivatives, so that forward
mode (`jax.jvp`), reverse mode, `vmap` and `pmap` all work.

`dtype` is what layers compute in: bfloat16 halves the memory of the features, while parameters,
moments, softmaxes and the networks' last layers stay float32. A product of bfloat16 arrays is
summed in float32 and rounded once, at the end: matrix units of TPUs and GPUs do no other, and XLA
does so on CPUs (tested). `preferred_element_type` would only leave out that last rounding.

Sources: the residual block, the time embedding and attention over pixels, Ho, Jain & Abbeel,
"Denoising Diffusion Probabilistic Models", 2020, appendix B; attention, Vaswani et al., "Attention
is all you need", 2017, eq. 1.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdiff.networks.norms import NormActivation, normalise

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# As the library's convolutions spell them.
PADDINGS = {"zeros": "SAME", "circular": "CIRCULAR"}
DOWN = ("conv", "average")
UP = ("nearest", "transposed")


def check_inputs(
    x: jax.Array, c_noise: jax.Array, labels: jax.Array | None, num_classes: int | None
) -> None:
    """Refuses inputs that a network would take for something else, when it is traced.

    Raises:
      TypeError: if x is not floating, or the labels are not integers.
      ValueError: if x is not [B, H, W, C], or c_noise or labels are not [B], or if there are
        labels but no classes.
    """
    if x.ndim != 4:
        raise ValueError(f"x must have shape [B, height, width, channels]; got {x.shape}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x must be float; got dtype {x.dtype}.")
    for name, array in (("c_noise", c_noise), ("labels", labels)):
        if array is not None and array.shape != (len(x),):
            raise ValueError(
                f"{name} must have shape ({len(x)},), one for each image; got {array.shape}."
            )
    if labels is not None and not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers; got dtype {labels.dtype}.")
    if labels is not None and num_classes is None:
        raise ValueError(
            "labels were given to a network without classes; pass labels=None, or build it with "
            "num_classes=the number of classes."
        )


def kernel_init(key: jax.Array, shape: Sequence[int], dtype: Any) -> jax.Array:
    """A kernel [..., inputs, outputs] of normal numbers with variance 1 / fan-in.

    LeCun's initialisation, drawn flat: an initialisation's time is nearly all compilation, and
    XLA compiles one-dimensional draws twice as fast as four-dimensional ones.
    """
    flat = jax.random.normal(key, (math.prod(shape),), dtype)
    return flat.reshape(shape) / math.sqrt(math.prod(shape[:-1]))


def he_init(key: jax.Array, shape: Sequence[int], dtype: Any) -> jax.Array:
    """Normal numbers of variance 2 / fan-in, which keep the mean square through a ReLU.

    Source: He et al., "Delving deep into rectifiers", 2015, eq. 10.
    """
    return jnp.sqrt(jnp.float32(2)) * kernel_init(key, shape, dtype)


def conv(
    features: int,
    kernel_size: int = 3,
    stride: int = 1,
    *,
    padding: str = "zeros",
    use_bias: bool = True,
    kernel_init: Callable = kernel_init,
    dtype: Any = jnp.float32,
) -> nn.Conv:
    """A convolution whose output is as large as its input, or 1 / stride of it.

    With stride 2 and zeros (even sizes) output i is centred on pixel 2 i + 1, with circular padding
    on pixel 2 i.
    """
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        (stride, stride),
        padding=PADDINGS[padding],
        use_bias=use_bias,
        kernel_init=kernel_init,
        dtype=dtype,
        conv_general_dilated=convolve,
    )


def convolve(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **more: Any) -> jax.Array:
    """`jax.lax.conv_general_dilated`, but one matmul where the image is smaller than the kernel.

    Every pixel then sees all of the image, padded with zeros. A CPU's convolution takes 15 times as
    long there (2x2 under 3x3), and elsewhere it multiplies with the padding.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C, F], k odd.
      strides: of the window, (s, s).
      padding: "SAME" for zeros, or what the library accepts.
      **more: the library's other arguments.
    """
    (height, width), side = x.shape[1:3], kernel.shape[0]
    if padding != "SAME" or tuple(strides) != (1, 1) or max(height, width) >= side:
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **more)
    # Pixel (i, j) of the output sees pixel (a, b) through the tap (a - i, b - j) from the middle,
    # which is 0 beyond the kernel.
    reach = side - 1
    taps = jnp.pad(kernel, ((side // 2, side // 2), (side // 2, side // 2), (0, 0), (0, 0)))
    seen = [
        [taps[reach - i :, reach - j :][:height, :width] for j in range(width)]
        for i in range(height)
    ]
    dense = jnp.stack([jnp.stack(row) for row in seen])
    return jnp.einsum("nabc,ijabcf->nijf", x, dense, precision=more.get("precision"))


class SelfAttention(nn.Module):
    """x + W softmax(q k^T / sqrt(C)) v over the pixels; q, k, v linear in norm(x), one head.

    [B, H, W, C] -> like x. W starts at zero: a new layer is the identity. Attributes: `ResBlock`'s.
    """

    norm: str = "group"
    biases: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns x plus what the pixels saw in each other."""
        batch, height, width, channels = x.shape
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        h = normalise(x, self.norm, train=train, biases=self.biases, dtype=self.dtype)
        h = h.reshape(batch, height * width, channels)
        h = dense(3 * channels, use_bias=self.biases, kernel_init=kernel_init)(h)
        q, k, v = jnp.split(h, 3, axis=-1)
        logits = jnp.einsum("bic,bjc->bij", q, k, preferred_element_type=jnp.float32)
        seen = nn.softmax(logits / math.sqrt(channels)).astype(self.dtype)
        h = jnp.einsum("bij,bjc->bic", seen, v)
        bias = self.biases and self.norm != "batch"
        h = dense(channels, use_bias=bias, kernel_init=nn.initializers.zeros)(h)
        return x + h.reshape(x.shape)


def upsample_conv(x: jax.Array, kernel: jax.Array, padding: str = "zeros") -> jax.Array:
    """Nearest upsampling by 2, then a 3x3 convolution of the large image, in 16/36 of its FLOPs.

    The pixel (2 i + a, 2 j + b) of the output sees each small pixel through the sum of the taps
    that fall on it. Two rows and two columns of taps are left, so that each of the four phases
    (a, b) is a 2x2 convolution of the small image.

    Args:
      x: [B, H, W, C].
      kernel: [3, 3, C, F], that of the convolution on the large image.
      padding: "zeros" or "circular".

    Returns:
      [B, 2 H, 2 W, F].
    """

    def merge(taps: jax.Array, axis: int, phase: int) -> jax.Array:  # three taps -> two
        first, second, third = jnp.split(taps, 3, axis)
        pair = (first, second + third) if phase == 0 else (first + second, third)
        return jnp.concatenate(pair, axis)

    batch, height, width, _ = x.shape
    if padding == "circular":
        wrapped = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")

    def convolve(a: int, b: int) -> jax.Array:
        zeros = ((1 - a, a), (1 - b, b))
        return jax.lax.conv_general_dilated(
            x if padding == "zeros" else wrapped[:, a : a + height + 1, b : b + width + 1],
            merge(merge(kernel, 0, a), 1, b),
            window_strides=(1, 1),
            padding=zeros if padding == "zeros" else "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    # One convolution for all phases would be four times wider, but its weight gradient is 5 times
    # slower on a CPU.
    rows = [jnp.stack([convolve(a, 0), convolve(a, 1)], axis=3) for a in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, kernel.shape[-1])


class UpsampleConv(nn.Module):
    """`upsample_conv` with its 3x3 kernel and a bias, [B, H, W, C] -> [B, 2 H, 2 W, features]."""

    features: int
    padding: str = "zeros"
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the upsampled, convolved features."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", kernel_init, shape, jnp.float32)
        y = upsample_conv(x.astype(self.dtype), kernel.astype(self.dtype), self.padding)
        return _add_bias(self, y) if self.use_bias else y


class TransposedConv(nn.Module):
    """A transposed 2x2 convolution of stride 2, [B, H, W, C] -> [B, 2 H, 2 W, features].

    Pixel (2 i + a, 2 j + b) is x[i, j] @ kernel[a, b]: nothing overlaps, so it is one matmul.
    """

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the upsampled features."""
        batch, height, width, channels = x.shape
        # Every output sees one of the four taps: its fan-in is `channels`.
        init = lambda *args: 2 * kernel_init(*args)
        kernel = self.param("kernel", init, (2, 2, channels, self.features), jnp.float32)
        y = jnp.einsum("nhwc,abcf->nhawbf", x.astype(self.dtype), kernel.astype(self.dtype))
        y = y.reshape(batch, 2 * height, 2 * width, self.features)
        return _add_bias(self, y) if self.use_bias else y


def _add_bias(module: Any, y: jax.Array) -> jax.Array:
    bias = module.param("bias", nn.initializers.zeros, y.shape[-1:], jnp.float32)
    return y + bias.astype(y.dtype)[None, None, None, :]


def fourier_features(c_noise: jax.Array, features: int) -> jax.Array:
    """sqrt(2) cos(w t) and sqrt(2) sin(w t) of t = c_noise; w geometric from 1/2 to 64 rad.

    Made for c_noise = log(sigma) / 4, which runs over about [-1.6, 1.1]: the slowest wave makes a
    fifth of a turn over that range, the fastest one turn while sigma grows by half.

    Args:
      c_noise: [B].
      features: how many, even.

    Returns:
      [B, features], each of mean square about 1.
    """
    frequencies = np.geomspace(0.5, 64.0, features // 2, dtype=np.float32)
    angles = c_noise[:, None] * frequencies[None, :]
    return np.float32(2**0.5) * jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)


class TimeEmbedding(nn.Module):
    """Fourier features of c_noise and two dense layers, [B] -> [B, features]."""

    features: int

    @nn.compact
    def __call__(self, c_noise: jax.Array) -> jax.Array:
        """Returns the embedding, before the activation that follows it."""
        h = nn.Dense(self.features, kernel_init=kernel_init)(fourier_features(c_noise, 64))
        return nn.Dense(self.features, kernel_init=kernel_init)(nn.silu(h))


class ClassEmbedding(nn.Module):
    """A learned vector for each class and one, the last, for "no label": [B] -> [B, features]."""

    num_classes: int
    features: int

    @nn.compact
    def __call__(self, labels: jax.Array | None, batch: int) -> jax.Array:
        """Returns the vectors of `batch` labels; None stands for the null class everywhere."""
        if labels is None:
            labels = jnp.full((batch,), self.num_classes, jnp.int32)
        return nn.Embed(self.num_classes + 1, self.features)(labels)


def embed(
    network: Any, features: int, c_noise: jax.Array, labels: jax.Array | None
) -> jax.Array | None:
    """What a network is told beside the image: silu(time + class), [B, features].

    To be called where layers are made. None if `network` (fields time, num_classes) is told
    nothing.
    """
    told = []
    if network.time:
        told.append(TimeEmbedding(features)(c_noise))
    if network.num_classes is not None:
        told.append(ClassEmbedding(network.num_classes, features)(labels, len(c_noise)))
    return nn.silu(sum(told[1:], start=told[0])) if told else None


class ResBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x))) + e))), [B, H, W, C] -> [B, H, W, features].

    e is the embedding, projected and added to every pixel. The last convolution starts at zero:
    a new block is the identity, or the 1x1 convolution that changes the number of channels.

    Attributes:
      features: channels of the output.
      norm: a kind of `NORMS`.
      activation: a name in `ACTIVATIONS`.
      padding: "zeros" or "circular".
      biases: whether the layers have biases; under batch norm, which takes away any other constant,
        these are its shifts alone.
      dropout: the share of features set to zero before the last convolution, in training.
      dtype: of the computation.
    """

    features: int
    norm: str = "group"
    activation: str = "silu"
    padding: str = "zeros"
    biases: bool = True
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array | None, train: bool = False) -> jax.Array:
        """Returns the block's output; `embedding` is [B, E], or None for none."""
        kind = (self.norm, self.activation, self.biases, self.dtype)
        act = lambda h: NormActivation(*kind)(h, train)
        layer = functools.partial(conv, self.features, padding=self.padding, dtype=self.dtype)
        bias = self.biases and self.norm != "batch"
        dense = lambda h: nn.Dense(
            self.features, use_bias=bias, kernel_init=kernel_init, dtype=self.dtype
        )(h)
        # The projection of the embedding brings the bias.
        h = layer(use_bias=bias and embedding is None)(act(x))
        if embedding is not None:
            h = h + dense(embedding)[:, None, None, :]
        h = act(h)
        if self.dropout:
            h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = layer(use_bias=bias, kernel_init=nn.initializers.zeros)(h)
        return h + (x if x.shape[-1] == self.features else dense(x))
