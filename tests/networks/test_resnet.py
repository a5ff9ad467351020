"""The ResNet against NumPy, its counts by hand, its equivariance, what it refuses."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import networks
from jdiff.networks import ResNet, layers


@functools.partial(jax.jit, static_argnums=0)
def apply(module: Any, variables, x, t, labels=None):
    return module.apply(variables, x, t, labels)


def draw(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


@pytest.mark.core
@pytest.mark.parametrize(
    ("k", "padding", "norm"), [(3, "zeros", "none"), (5, "circular", "batch")], ids=str
)
def test_it_equals_the_formula(k, padding, norm, rng, variables_for, convolved):
    module = ResNet(width=4, depth=2, kernel_size=k, padding=padding, norm=norm, num_classes=3)
    variables = variables_for(module, (5, 6, 2))
    x, t, labels = draw(rng, 2, 5, 6, 2), draw(rng, 2), jnp.array([2, 0])
    exact = functools.partial(jax.tree.map, lambda leaf: np.asarray(leaf, np.float64))
    p, stats = exact(variables["params"]), exact(variables.get("batch_stats", {}))
    silu = lambda h: h / (1 + np.exp(-h))
    dense = lambda h, layer: h @ layer["kernel"] + layer.get("bias", 0)
    time = p["TimeEmbedding_0"]
    waves = np.asarray(layers.fourier_features(t, 64), np.float64)
    told = dense(silu(dense(waves, time["Dense_0"])), time["Dense_1"])
    told = silu(told + p["ClassEmbedding_0"]["Embed_0"]["embedding"][np.asarray(labels)])
    conv = lambda h, layer: convolved(h, layer["kernel"], padding) + layer.get("bias", 0)
    embedded = lambda h, i: h + dense(told, p[f"Dense_{i}"])[:, None, None]

    def normalised(h, i):
        if norm == "none":
            return h
        layer, s = (tree[f"NormActivation_{i}"]["BatchNorm_0"] for tree in (p, stats))
        return (h - s["mean"]) / np.sqrt(s["var"] + 1e-5) * layer["scale"] + layer["bias"]

    h = conv(np.asarray(x, np.float64), p["Conv_0"])
    for i in range(2):
        h = h + np.maximum(normalised(conv(embedded(h, i), p[f"Conv_{i + 1}"]), i), 0)
    expected = embedded(h, 2) @ p["Conv_3"]["kernel"][0, 0] + p["Conv_3"]["bias"]
    # Four layers of float32 rounding, sums of up to 100 products.
    np.testing.assert_allclose(
        apply(module, variables, x, t, labels), expected, atol=2e-5 * np.abs(expected).max()
    )


@pytest.mark.core
def test_parameters_and_flops_by_hand():
    # Width 8, depth 2, 5x5, 3 channels, 4x6 pixels: one convolution in, two between, 1x1 out.
    blind = ResNet(width=8, depth=2, kernel_size=5, time=False)
    parameters = (25 * 3 * 8 + 8) + 2 * (25 * 8 * 8 + 8) + (8 * 3 + 3)
    flops = 2 * 24 * (25 * 3 * 8 + 2 * 25 * 8 * 8 + 8 * 3)
    assert networks.num_params(blind, (4, 6, 3)) == parameters
    assert networks.flops_per_image(blind, (4, 6, 3)) == flops
    # 64 waves through two layers of 8, projected without bias for three layers; a class is a row.
    # Batch norm has a gain, and the convolution's bias is its shift.
    told = ResNet(width=8, depth=2, kernel_size=5, norm="batch", num_classes=4)
    embedding = (64 * 8 + 8) + (8 * 8 + 8) + 3 * 8 * 8
    assert networks.num_params(told, (4, 6, 3)) == parameters + embedding + 5 * 8 + 2 * 8
    assert networks.flops_per_image(told, (4, 6, 3)) == flops + 2 * (64 * 8 + 8 * 8 + 3 * 8 * 8)


@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_only_circular_padding_is_equivariant_to_shifts(padding, rng, variables_for):
    module = ResNet(width=8, depth=2, padding=padding)
    variables = variables_for(module, (6, 5, 1))
    x, t = draw(rng, 2, 6, 5, 1), draw(rng, 2)
    shift = lambda a: jnp.roll(a, (1, -2), (1, 2))
    y = np.asarray(shift(apply(module, variables, x, t)))
    shifted = apply(module, variables, shift(x), t)
    assert np.allclose(shifted, y, atol=1e-5 * np.abs(y).max()) == (padding == "circular")


def test_the_head_starts_at_zero(rng):
    module = ResNet(width=4, depth=1)
    variables = networks.init(module, jax.random.key(0), (4, 4, 1))
    y = apply(module, variables, draw(rng, 2, 4, 4, 1), jnp.zeros(2))
    np.testing.assert_array_equal(y, 0)


def test_width_follows_the_image():
    assert networks.create("resnet", (8, 8, 1)) == ResNet(width=64)
    assert networks.create("resnet", (32, 32, 3)) == ResNet()
    assert networks.create("resnet", (8, 8, 1), width=128) == ResNet()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"width": 0}, ValueError, "width must be at least 1; got 0"),
        ({"depth": 0}, ValueError, "depth must be at least 1; got 0"),
        ({"kernel_size": 4}, ValueError, "kernel_size must be odd, from 1 to 99; got 4"),
        ({"kernel_size": 3.0}, TypeError, "kernel_size must be a whole number; got 3.0"),
        ({"padding": "zero"}, ValueError, "padding is 'zero'. Did you mean 'zeros'"),
        ({"norm": "group"}, ValueError, "norm is 'group'.*Accepted: batch, none"),
        ({"time": 0}, TypeError, "time must be True or False; got 0"),
        ({"dropout": 1.0}, ValueError, r"dropout must be in \[0, 1\); got 1.0"),
        ({"num_classes": True}, TypeError, "num_classes must be a whole number; got True"),
        ({"dtype": "bf16"}, ValueError, "dtype is 'bf16'.*Accepted: bfloat16, float32"),
    ],
    ids=str,
)
def test_options_are_checked_at_construction(options, error, message):
    with pytest.raises(error, match=message):
        ResNet(**options)
