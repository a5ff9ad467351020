"""The layers against plain float64 NumPy and against the operations they stand for."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import _flops
from jdiff.networks import layers


def draw(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


# Group norm and SiLU


def norm_silu(x, scale, bias, groups):
    """Group norm and SiLU as the papers write them, float64, one image and group at a time."""
    x, scale, bias = (np.asarray(a, np.float64) for a in (x, scale, bias))
    z = np.empty_like(x)
    size = x.shape[-1] // groups
    for image in range(len(x)):
        for g in range(groups):
            c = slice(g * size, (g + 1) * size)
            part = x[image, :, :, c]
            z[image, :, :, c] = (part - part.mean()) / np.sqrt(part.var() + 1e-6)
    z = z * scale + bias
    return z / (1 + np.exp(-z))


@pytest.fixture
def norm_case(rng):
    module = layers.NormSilu()
    x = 2 * draw(rng, 3, 4, 5, 12) + 1
    scale, bias = 1 + 0.3 * draw(rng, 12), 0.3 * draw(rng, 12)
    variables = {"params": {"GroupNorm_0": {"scale": scale, "bias": bias}}}
    return module, variables, x, scale, bias


@pytest.mark.core
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_norm_silu_equals_the_formula(norm_case, offset):
    module, variables, x, scale, bias = norm_case
    y = jax.jit(module.apply)(variables, x + offset)
    expected = norm_silu(x + offset, scale, bias, groups=3)
    # An offset of 100 on a spread of 2 costs float32 the mean's rounding, 1e-5; the difference of
    # two raw moments would be off by 1e-3.
    np.testing.assert_allclose(y, expected, atol=1e-5 if offset == 0 else 5e-5)


def test_norm_silu_gradients_equal_differences_of_the_formula(norm_case, rng):
    module, variables, x, scale, bias = norm_case
    scaled = lambda x, scale, bias: module.apply(
        {"params": {"GroupNorm_0": {"scale": scale, "bias": bias}}}, x
    )
    del variables
    points = (x, scale, bias)
    tangents = tuple(draw(rng, *a.shape) for a in points)
    cotangent = draw(rng, *x.shape)
    exact = lambda a: np.asarray(a, np.float64)
    moved = lambda h: [exact(a) + h * exact(t) for a, t in zip(points, tangents, strict=True)]
    at = lambda h: norm_silu(*moved(h), groups=3)
    slope = (at(1e-5) - at(-1e-5)) / 2e-5
    forward = jax.jit(lambda p, t: jax.jvp(scaled, p, t)[1])(points, tangents)
    np.testing.assert_allclose(forward, slope, atol=1e-4)
    # Reverse mode is the transpose of it.
    gradients = jax.jit(lambda p, g: jax.vjp(scaled, *p)[1](g))(points, cotangent)
    reverse = sum(float(jnp.vdot(g, t)) for g, t in zip(gradients, tangents, strict=True))
    # 720 products of order 1, summed in float32.
    assert reverse == pytest.approx(np.vdot(cotangent, slope), abs=1e-3)


def test_norm_none_is_silu_alone(rng):
    x = draw(rng, 2, 3, 3, 8)
    module = layers.NormSilu("none")
    variables = module.init(jax.random.key(0), x)
    assert variables == {}
    np.testing.assert_array_equal(module.apply(variables, x), nn.silu(x))


@pytest.mark.parametrize("features", [1, 3, 4, 7, 8, 12, 24, 32, 72, 96, 128, 192, 256, 384])
def test_groups_divide_and_hold_at_least_four(features):
    groups = layers.num_groups(features)
    assert features % groups == 0
    assert 1 <= groups <= 32
    assert groups == 1 or features // groups >= 4


# Upsampling


def upsampled(x, kernel):
    """Repeat every pixel twice in both directions, pad with zeros, convolve; float64."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    large = np.pad(x.repeat(2, 1).repeat(2, 2), ((0, 0), (1, 1), (1, 1), (0, 0)))
    h, w = 2 * x.shape[1], 2 * x.shape[2]
    return sum(large[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3))


@pytest.mark.core
@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 1), (2, 1)], ids=str)
def test_upsampling_equals_repeating_and_convolving(rng, size):
    x, kernel = draw(rng, 2, *size, 3), draw(rng, 3, 3, 3, 5)
    y = jax.jit(layers.upsample_conv)(x, kernel)
    np.testing.assert_allclose(y, upsampled(x, kernel), atol=2e-5)


def test_upsampling_has_the_gradients_of_repeating_and_convolving(rng):
    x, kernel = draw(rng, 2, 3, 4, 3), draw(rng, 3, 3, 3, 5)
    g = draw(rng, 2, 6, 8, 5)
    dx, dkernel = jax.jit(lambda *a: jax.vjp(layers.upsample_conv, *a)[1](g))(x, kernel)
    # It is linear in each argument, so that one product with a basis vector is one derivative.
    for array, gradient, other in (
        (x, dx, lambda e: upsampled(e, kernel)),
        (kernel, dkernel, lambda e: upsampled(x, e)),
    ):
        for i in range(0, array.size, 7):
            unit = np.zeros(array.size)
            unit[i] = 1
            expected = np.vdot(g, other(unit.reshape(array.shape)))
            assert float(gradient.ravel()[i]) == pytest.approx(expected, abs=1e-4)


def test_upsampling_takes_four_ninths_of_the_flops():
    x, kernel = jnp.zeros((1, 4, 4, 3)), jnp.zeros((3, 3, 3, 5))
    large = 2 * (8 * 8 * 5) * (9 * 3)
    assert 9 * _flops.count(layers.upsample_conv, x, kernel) == 4 * large


def test_the_upsampling_module_has_one_3x3_kernel_and_a_bias(rng):
    module: Any = layers.UpsampleConv(5)
    x = draw(rng, 2, 4, 4, 3)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    assert {k: v.shape for k, v in shapes.items()} == {"kernel": (3, 3, 3, 5), "bias": (5,)}
    params = {"kernel": draw(rng, 3, 3, 3, 5), "bias": jnp.arange(5.0)}
    y = jax.jit(module.apply)({"params": params}, x)
    np.testing.assert_allclose(y, upsampled(x, params["kernel"]) + np.arange(5), atol=2e-5)


# Embeddings


def test_fourier_features_are_pairs_on_a_circle_of_geometric_frequencies(rng):
    t = draw(rng, 6)
    features = np.asarray(layers.fourier_features(t, 8), np.float64)
    w = 0.5 * 128 ** (np.arange(4) / 3)
    angles = np.asarray(t, np.float64)[:, None] * w
    expected = np.sqrt(2) * np.concatenate([np.cos(angles), np.sin(angles)], 1)
    # Angles up to 200 rad in float32.
    np.testing.assert_allclose(features, expected, atol=5e-5)
    np.testing.assert_allclose((features**2).mean(1), 1, atol=1e-5)


def test_fourier_features_tell_neighbouring_noise_levels_apart_and_far_ones_too():
    levels = np.geomspace(0.002, 80, 200)
    features = np.asarray(layers.fourier_features(jnp.log(jnp.asarray(levels)) / 4, 64))
    distance = np.linalg.norm(features[:, None] - features[None], axis=-1) / np.sqrt(64)
    np.fill_diagonal(distance, np.inf)
    # Neighbours of the 200 differ by 5 %; features have norm 1 on this scale.
    assert distance.min() > 0.1


@pytest.mark.core
def test_labels_none_means_the_null_class(rng):
    module: Any = layers.ClassEmbedding(3, 4)
    variables = module.init(jax.random.key(0), None, 2)
    table = variables["params"]["Embed_0"]["embedding"]
    assert table.shape == (4, 4)
    np.testing.assert_array_equal(module.apply(variables, None, 2), table[jnp.array([3, 3])])
    labels = jnp.array([0, 2])
    np.testing.assert_array_equal(module.apply(variables, labels, 2), table[labels])


# Residual block


@pytest.mark.parametrize("features", [8, 12])
def test_a_new_block_is_the_identity_or_a_1x1_convolution(features, rng):
    block: Any = layers.ResBlock(features)
    x, e = draw(rng, 2, 4, 4, 8), draw(rng, 2, 6)
    init = lambda: block.init(jax.random.key(0), x, e)["params"]
    params = jax.tree.map(lambda p: draw(rng, *p.shape), jax.eval_shape(init))
    params["Conv_1"] = jax.jit(lambda: init()["Conv_1"])()
    y = jax.jit(block.apply)({"params": params}, x, e)
    if features == 8:
        np.testing.assert_array_equal(y, x)
    else:
        kernel, bias = (np.asarray(params["Dense_1"][k], np.float64) for k in ("kernel", "bias"))
        np.testing.assert_allclose(y, np.asarray(x, np.float64) @ kernel + bias, atol=1e-5)


def test_vmap_of_gradients_over_members_equals_a_loop(rng):
    block: Any = layers.ResBlock(8)
    x, e = draw(rng, 2, 4, 4, 4), draw(rng, 2, 6)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x, e)
    variables = jax.tree.map(lambda v: 0.3 * draw(rng, 3, *v.shape), shapes)
    gradient = jax.grad(lambda v: jnp.sum(block.apply(v, x, e) ** 2))
    together = jax.jit(jax.vmap(gradient))(variables)
    alone = jax.jit(lambda v: jax.lax.map(gradient, v))(variables)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        # Sums of 32 to 256 products of order 1.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


# Inputs


@pytest.mark.parametrize(
    ("x", "c_noise", "labels", "error", "message"),
    [
        ((4, 4, 1), 4, None, ValueError, r"x must have shape \[B, height, width, channels\]; got"),
        ((2, 4, 4, 1), 3, None, ValueError, r"c_noise must have shape \(2,\).*got \(3,\)"),
        ((2, 4, 4, 1), 2, jnp.zeros(3, int), ValueError, r"labels must have shape \(2,\).*\(3,\)"),
        ((2, 4, 4, 1), 2, jnp.zeros(2), TypeError, "labels must be integers; got dtype float32"),
    ],
    ids=["rank", "c_noise", "labels", "float-labels"],
)
def test_wrong_inputs_are_refused(x, c_noise, labels, error, message):
    with pytest.raises(error, match=message):
        layers.check_inputs(jnp.zeros(x), jnp.zeros(c_noise), labels, num_classes=3)


def test_labels_without_classes_are_refused():
    x, labels = jnp.zeros((2, 4, 4, 1)), jnp.zeros(2, jnp.int32)
    layers.check_inputs(x, jnp.zeros(2), labels, num_classes=3)
    with pytest.raises(ValueError, match="labels were given to a network without classes"):
        layers.check_inputs(x, jnp.zeros(2), labels, num_classes=None)


def test_bytes_are_refused():
    with pytest.raises(TypeError, match="x must be float; got dtype uint8"):
        layers.check_inputs(jnp.zeros((2, 4, 4, 1), jnp.uint8), jnp.zeros(2), None, None)


# Initialisation


@pytest.mark.parametrize("shape", [(3, 3, 8, 64), (64, 64)], ids=str)
def test_kernels_start_with_variance_one_over_fan_in(shape):
    kernel = layers.kernel_init(jax.random.key(0), shape, jnp.float32)
    assert kernel.shape == shape
    assert kernel.dtype == jnp.float32
    fan_in = np.prod(shape[:-1])
    # 4096 draws or more: the variance is known to sqrt(2 / 4096) = 2.2 %, taken four times.
    assert float(jnp.var(kernel)) * fan_in == pytest.approx(1, rel=0.09)
