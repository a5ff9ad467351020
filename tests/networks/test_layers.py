"""The layers against plain float64 NumPy and against the operations they stand for."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import _flops
from jdiff.networks import layers


def draw(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


# Convolutions


@pytest.mark.core
@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize(
    ("size", "k", "stride"),
    [
        ((4, 6), 3, 1),
        ((3, 5), 5, 1),
        ((1, 1), 3, 1),
        ((2, 2), 3, 1),
        ((4, 2), 5, 1),
        ((2, 2), 7, 1),
        ((4, 6), 3, 2),
        ((2, 4), 3, 2),
    ],
    ids=str,
)
def test_a_convolution_sees_zeros_or_the_other_side(padding, size, k, stride, rng, convolved):
    x, kernel = draw(rng, 2, *size, 3), draw(rng, k, k, 3, 4)
    module = layers.conv(4, k, stride, padding=padding, use_bias=False)
    y = jax.jit(module.apply)({"params": {"kernel": kernel}}, x)
    # Of stride 2 the first output is centred on the second pixel with zeros, on the first else.
    before = 0 if (stride, padding) == (2, "zeros") else k // 2
    # Up to 147 products of order 1.
    np.testing.assert_allclose(y, convolved(x, kernel, padding, stride, before), atol=5e-5)


@pytest.mark.parametrize(("size", "k"), [((2, 2), 3), ((1, 2), 3), ((4, 3), 5)], ids=str)
def test_an_image_smaller_than_the_kernel_is_one_matmul(size, k, rng):
    x, kernel, g = draw(rng, 2, *size, 3), draw(rng, k, k, 3, 4), draw(rng, 2, *size, 4)
    numbers = jax.lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    ways = [
        lambda x, kernel, f=f: f(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        for f in (layers.convolve, jax.lax.conv_general_dilated)
    ]
    # Pixels of the image instead of taps of the kernel, most of which see its padding.
    mine, theirs = (_flops.count(way, x, kernel) for way in ways)
    assert k * k * mine == size[0] * size[1] * theirs
    assert "conv_general" not in str(jax.make_jaxpr(ways[0])(x, kernel))
    mine, theirs = (jax.jit(lambda *a, way=way: jax.vjp(way, *a)[1](g))(x, kernel) for way in ways)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)  # up to 48 products of order 1


def test_bfloat16_products_are_summed_in_float32():
    # 1 + 4095 ulps of it: a sum kept in bfloat16 stops at 256.
    x = jnp.ones((2, 4, 4, 4096))
    kernel = jnp.ones((1, 1, 4096, 1))
    module = layers.conv(1, 1, use_bias=False, dtype=jnp.bfloat16)
    y = jax.jit(module.apply)({"params": {"kernel": kernel}}, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y.astype(jnp.float32), 4096)


# Upsampling


@pytest.fixture
def upsampled(convolved):
    """Repeat every pixel twice in both directions, then convolve; float64."""
    large = lambda x: np.asarray(x).repeat(2, 1).repeat(2, 2)
    return lambda x, kernel, padding="zeros": convolved(large(x), kernel, padding)


@pytest.mark.core
@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 1), (2, 1)], ids=str)
def test_upsampling_equals_repeating_and_convolving(rng, size, padding, upsampled):
    x, kernel = draw(rng, 2, *size, 3), draw(rng, 3, 3, 3, 5)
    y = jax.jit(layers.upsample_conv, static_argnums=2)(x, kernel, padding)
    np.testing.assert_allclose(y, upsampled(x, kernel, padding), atol=2e-5)


def test_upsampling_has_the_gradients_of_repeating_and_convolving(rng, upsampled):
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


def test_the_upsampling_module_has_one_3x3_kernel_and_a_bias(rng, upsampled):
    module: Any = layers.UpsampleConv(5)
    x = draw(rng, 2, 4, 4, 3)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    assert {k: v.shape for k, v in shapes.items()} == {"kernel": (3, 3, 3, 5), "bias": (5,)}
    params = {"kernel": draw(rng, 3, 3, 3, 5), "bias": jnp.arange(5.0)}
    y = jax.jit(module.apply)({"params": params}, x)
    np.testing.assert_allclose(y, upsampled(x, params["kernel"]) + np.arange(5), atol=2e-5)


def test_a_transposed_convolution_gives_each_pixel_four_of_its_own(rng):
    module: Any = layers.TransposedConv(5)
    x = draw(rng, 2, 3, 4, 3)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    assert {k: v.shape for k, v in shapes.items()} == {"kernel": (2, 2, 3, 5), "bias": (5,)}
    kernel, bias = draw(rng, 2, 2, 3, 5), draw(rng, 5)
    y = jax.jit(module.apply)({"params": {"kernel": kernel, "bias": bias}}, x)
    expected = np.zeros((2, 6, 8, 5))
    for a in range(2):
        for b in range(2):
            expected[:, a::2, b::2] = np.asarray(x, np.float64) @ np.asarray(kernel[a, b])
    np.testing.assert_allclose(y, expected + np.asarray(bias), atol=1e-5)
    assert _flops.count(module.apply, {"params": shapes}, x) == 2 * (2 * 6 * 8 * 5) * 3
    kernels = jax.jit(layers.TransposedConv(300).init)(jax.random.key(0), jnp.zeros((1, 1, 1, 8)))
    # Every output sees one of the taps: variance 1 / 8, from 9600 draws known to 1.4 %.
    assert float(jnp.var(kernels["params"]["kernel"])) == pytest.approx(1 / 8, rel=0.06)


# Attention


@pytest.mark.core
@pytest.mark.parametrize("norm", ["group", "none"])
def test_attention_equals_the_formula(norm, rng):
    module: Any = layers.SelfAttention(norm)
    x = draw(rng, 2, 2, 3, 4)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: draw(rng, *leaf.shape), variables)
    dense = [
        {k: np.asarray(v, np.float64) for k, v in variables["params"][f"Dense_{i}"].items()}
        for i in range(2)
    ]
    h = np.asarray(x, np.float64)
    if norm == "group":  # 4 channels are one group
        g = variables["params"]["GroupNorm_0"]
        axes = (1, 2, 3)
        h = (h - h.mean(axes, keepdims=True)) / np.sqrt(h.var(axes, keepdims=True) + 1e-6)
        h = h * np.asarray(g["scale"]) + np.asarray(g["bias"])
    expected = np.array(x, np.float64)
    for image in range(2):
        tokens = h[image].reshape(6, 4) @ dense[0]["kernel"] + dense[0]["bias"]
        q, k, v = tokens[:, :4], tokens[:, 4:8], tokens[:, 8:]
        for i in range(6):
            weights = np.exp([q[i] @ k[j] / 2 for j in range(6)])
            seen = sum(weights[j] * v[j] for j in range(6)) / weights.sum()
            expected[image].reshape(6, 4)[i] += seen @ dense[1]["kernel"] + dense[1]["bias"]
    # Logits of size 10 carry 1e-6 of float32 rounding into weights of values of size 10.
    np.testing.assert_allclose(jax.jit(module.apply)(variables, x), expected, atol=2e-4)


def test_new_attention_is_the_identity(rng):
    module: Any = layers.SelfAttention()
    x = draw(rng, 2, 4, 4, 8)
    y, _ = jax.jit(module.init_with_output)(jax.random.key(0), x)
    np.testing.assert_array_equal(y, x)


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


def test_a_block_that_is_told_nothing_keeps_its_bias(rng):
    x = draw(rng, 2, 4, 4, 8)
    tree = lambda block, e: jax.eval_shape(block.init, jax.random.key(0), x, e)["params"]
    told = tree(layers.ResBlock(12), draw(rng, 2, 6))
    alone = tree(layers.ResBlock(12), None)
    bare = tree(layers.ResBlock(12, biases=False), draw(rng, 2, 6))
    # The projection of the embedding brings the first bias.
    assert [set(told[k]) for k in ("Conv_0", "Dense_0")] == [{"kernel"}, {"kernel", "bias"}]
    assert set(alone["Conv_0"]) == {"kernel", "bias"}
    names = [p[-1].key for p, _ in jax.tree_util.tree_leaves_with_path(bare)]
    assert sorted(names) == ["kernel"] * 4 + ["scale"] * 2


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


@pytest.mark.parametrize(("init", "size"), [(layers.kernel_init, 0.5), (layers.he_init, 1)])
def test_he_keeps_the_size_through_a_relu(init, size, rng):
    # With 2 / fan-in E[(W relu(z))^2] = 1 = E[z^2]; with 1 / fan-in it is a half.
    kernel = np.asarray(init(jax.random.key(0), (64, 512), jnp.float32))
    z = rng.standard_normal((1000, 64))
    assert np.mean((np.maximum(z, 0) @ kernel) ** 2) == pytest.approx(size, rel=0.1)
