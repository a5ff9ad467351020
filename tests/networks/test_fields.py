"""Receptive fields, counted from the structure, against the support of the Jacobian."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import networks
from jdiff.networks import MLP, BottleneckMLP, PaperUNet, ResNet, UNet, fields, layers


def support(module, variables, image_shape, rng):
    """[H, W, H, W], whether an output pixel moves with an input pixel at any of three images.

    What does not depend has a derivative of exactly 0 in float32 too; a ReLU may be flat for one
    image, hardly for all channels and three of them.
    """

    def F(x):
        return module.apply(variables, x[None], jnp.full(1, 0.3))[0]

    x = jnp.asarray(rng.standard_normal((3, *image_shape)), jnp.float32)
    # Without optimisation it compiles twice as fast.
    options = {"xla_backend_optimization_level": 0}
    jacobian = np.asarray(jax.jit(jax.vmap(jax.jacfwd(F)), compiler_options=options)(x))
    return (jacobian != 0).any((0, 3, 6))


def square(seen, circular):
    """Side of the smallest centred square that holds all of it, no larger than the image."""
    h, w = seen.shape[:2]
    side = 1
    for i, j, k, l in np.argwhere(seen):
        for n, d in ((h, abs(i - k)), (w, abs(j - l))):
            side = max(side, min(2 * (min(d, n - d) if circular else d) + 1, n))
    return side


LOCAL = {"width": 4, "norm": "none"}


@pytest.mark.parametrize(
    ("module", "image_shape", "side"),
    [
        (ResNet(width=4, depth=1), (8, 8, 1), 5),
        (ResNet(width=4, depth=1, kernel_size=5, padding="circular"), (12, 11, 1), 9),
        (ResNet(width=4, depth=1, kernel_size=1, norm="batch"), (3, 4, 2), 1),
        (ResNet(width=4, depth=3), (8, 8, 1), 8),
        # 12 convolutions: the stem, two in each of five blocks, the head.
        (UNet(**LOCAL, levels=1), (28, 1, 1), 25),
        (UNet(**LOCAL, levels=2, down="average", up="transposed"), (8, 8, 1), 8),
        (UNet(**LOCAL, levels=2, padding="circular"), (2, 68, 1), None),
        (UNet(**LOCAL, levels=2, skips=False), (2, 68, 1), None),
        (UNet(**LOCAL, levels=1, attention=(0,)), (3, 5, 1), 5),
        (UNet(width=4, levels=1), (3, 20, 1), 20),
        # Two convolutions on each way and, of half the size, two between; a mean's other pixel.
        (PaperUNet(width=4, levels=1), (24, 2, 1), 19),
        (PaperUNet(width=4, levels=1, padding="circular", norm="none"), (26, 2, 1), 19),
        (PaperUNet(width=4, levels=2, skips=False, norm="bias_free_batch"), (4, 52, 1), 47),
        (PaperUNet(width=2, levels=3, norm="none"), (8, 8, 1), 8),
        (MLP(width=8, depth=1), (2, 4, 1), 4),
        (BottleneckMLP(width=8), (2, 4, 1), 4),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "apply") else str(value),
)
def test_it_is_the_support_of_the_jacobian(module, image_shape, side, rng, variables_for):
    variables = variables_for(module, image_shape)
    seen = support(module, variables, image_shape, rng)
    found = square(seen, getattr(module, "padding", "zeros") == "circular")
    assert networks.receptive_field(module, image_shape) == found
    assert side is None or found == side
    assert side is not None or 1 < found < max(image_shape)


@pytest.mark.core
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_a_resnet_sees_k_minus_one_more_a_convolution(k, depth, padding):
    module = networks.create(
        "resnet", (33, 64, 3), kernel_size=k, depth=depth, padding=padding, width=8
    )
    assert networks.receptive_field(module, (33, 64, 3)) == 1 + (depth + 1) * (k - 1)


@pytest.mark.core
@pytest.mark.parametrize(
    ("name", "options"),
    [("unet", {}), ("unet", {"norm": "none", "attention": 1}), ("mlp", {}), ("bottleneck_mlp", {})],
    ids=str,
)
def test_moments_attention_and_dense_layers_see_the_whole_image(name, options):
    module = networks.create(name, (8, 64, 1), **options)
    assert networks.receptive_field(module, (8, 64, 1)) == 64


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("k", [1, 3, 5, 9])
def test_a_convolution_s_reach_is_where_its_output_moves(stride, padding, k):
    n = 6
    conv: Any = layers.conv(1, k, stride, padding=padding, use_bias=False)
    one_line = lambda x: conv.apply({"params": {"kernel": jnp.ones((k, k, 1, 1))}}, x)[:, :, 0, 0]
    lines = jnp.eye(n)[:, :, None, None]  # [B, n, 1, 1]: each a pixel of its own
    assert np.array_equal(
        fields.convolve(np.eye(n, dtype=bool), k, stride, padding=padding),
        np.asarray(one_line(lines)).T != 0,
    )


def test_modules_that_do_not_say_have_none():
    assert networks.receptive_field(nn.Dense(3), (8, 8, 1)) is None


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="levels must be at most 1 for 7x8 images"):
        networks.receptive_field(UNet(levels=2), (7, 8, 1))
    with pytest.raises(ValueError, match=r"image_shape must be \(height, width, channels\)"):
        networks.receptive_field(MLP(), (7, 8))
