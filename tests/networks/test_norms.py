"""Normalisations against plain float64 NumPy."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff.networks import norms


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
    module = norms.NormActivation()
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
    module = norms.NormActivation("none")
    variables = module.init(jax.random.key(0), x)
    assert variables == {}
    np.testing.assert_array_equal(module.apply(variables, x), nn.silu(x))


@pytest.mark.parametrize("features", [1, 3, 4, 7, 8, 12, 24, 32, 72, 96, 128, 192, 256, 384])
def test_groups_divide_and_hold_at_least_four(features):
    groups = norms.num_groups(features)
    assert features % groups == 0
    assert 1 <= groups <= 32
    assert groups == 1 or features // groups >= 4


# Batch norms


class Normalise(nn.Module):
    norm: str
    biases: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        return norms.normalise(x, self.norm, train=train, biases=self.biases, dtype=self.dtype)


@pytest.fixture
def batch_case(rng):
    # A channel of one value everywhere, whose deviation is that of epsilon, and an offset.
    x = np.asarray(3 * rng.standard_normal((4, 3, 2, 5)) + 10, np.float32)
    x[..., 4] = 7.0
    return jnp.asarray(x), draw(rng, 5) + 1, 0.3 * draw(rng, 5), 0.3 * draw(rng, 5)


def moments(x):
    x = np.asarray(x, np.float64)
    return x.mean((0, 1, 2)), x.var((0, 1, 2))


@pytest.mark.core
def test_batch_norm_takes_the_batch_in_training_and_running_moments_otherwise(batch_case):
    x, scale, shift, mean = batch_case
    var = jnp.asarray([0.5, 1.0, 2.0, 3.0, 4.0])
    variables = {
        "params": {"BatchNorm_0": {"scale": scale, "bias": shift}},
        "batch_stats": {"BatchNorm_0": {"mean": mean, "var": var}},
    }
    module: Any = Normalise("batch")
    g, b, m, v = (np.asarray(a, np.float64) for a in (scale, shift, mean, var))
    formula = lambda m, v: (np.asarray(x, np.float64) - m) / np.sqrt(v + 1e-5) * g + b
    apply = lambda v, x: module.apply(v, x, True, mutable=["batch_stats"])
    y, updated = jax.jit(apply)(variables, x)
    own = moments(x)
    # Values of 10 keep 1e-6 in float32, which 1 / sqrt(1e-5) magnifies in the last channel.
    np.testing.assert_allclose(y[..., :4], formula(*own)[..., :4], atol=1e-5)
    np.testing.assert_allclose(y[..., 4], formula(*own)[..., 4], atol=1e-3)
    stats = updated["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(stats["mean"], 0.9 * m + 0.1 * own[0], rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 * v + 0.1 * own[1], rtol=1e-5)
    np.testing.assert_allclose(module.apply(variables, x), formula(m, v), atol=2e-5)


@pytest.mark.core
def test_the_bias_free_one_divides_by_the_deviation_and_moves_nothing(batch_case):
    x, gain, _, _ = batch_case
    deviation = jnp.asarray([0.5, 1.0, 2.0, 3.0, 4.0])
    variables = {
        "params": {"BiasFreeBatchNorm_0": {"scale": gain}},
        "batch_stats": {"BiasFreeBatchNorm_0": {"deviation": deviation}},
    }
    module: Any = Normalise("bias_free_batch")
    formula = lambda s: np.asarray(x, np.float64) / s * np.asarray(gain, np.float64)
    apply = lambda v, x: module.apply(v, x, True, mutable=["batch_stats"])
    y, updated = jax.jit(apply)(variables, x)
    own = np.sqrt(moments(x)[1] + 1e-5)
    assert own[4] == pytest.approx(1e-5**0.5)  # about the mean: a constant has none
    np.testing.assert_allclose(y, formula(own), rtol=1e-5)
    stats = updated["batch_stats"]["BiasFreeBatchNorm_0"]
    expected = 0.9 * np.asarray(deviation, np.float64) + 0.1 * own
    np.testing.assert_allclose(stats["deviation"], expected, rtol=1e-5)
    at = lambda x: np.asarray(module.apply(variables, x))
    np.testing.assert_allclose(at(x), formula(np.asarray(deviation, np.float64)), rtol=1e-6)
    np.testing.assert_array_equal(at(-4 * x), -4 * at(x))


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_without_biases_there_is_no_shift(norm, rng):
    x = draw(rng, 3, 4, 4, 8)
    shapes = jax.eval_shape(Normalise(norm, biases=False).init, jax.random.key(0), x)
    (parameters,) = shapes["params"].values()
    assert set(parameters) == {"scale"}


def test_gains_start_small_and_cut():
    gains = np.asarray(norms.gain_init(jax.random.key(0), (4000,), jnp.float32))
    assert np.abs(gains).max() == np.float32(0.025)
    # |z| < 0.025 / sqrt(2 / 576) = 0.424 of a normal z: 0.328, known to 0.0074, taken four times.
    assert (np.abs(gains) < 0.025).mean() == pytest.approx(0.328, abs=0.03)
    assert (gains > 0).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.core
@pytest.mark.parametrize("norm", ["batch", "bias_free_batch"])
def test_statistics_of_one_image_are_refused_in_training_alone(norm, rng):
    module: Any = Normalise(norm)
    x = draw(rng, 1, 4, 4, 3)
    variables = module.init(jax.random.key(0), x)
    assert module.apply(variables, x).shape == x.shape
    message = rf"batch statistics \(norm='{norm}'\) .* at least 2 images.*got a batch of 1.*'group'"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda v: module.apply(v, x, True, mutable=["batch_stats"]), variables)


@pytest.mark.parametrize("norm", ["group", "batch", "bias_free_batch"])
def test_moments_of_bfloat16_are_float32(norm, rng):
    # 100 + noise of deviation 1: bfloat16 keeps steps of 1/2 there, so a mean taken in it is off by
    # more than the noise's own mean; the numbers that came are normalised as float32 would.
    x = (draw(rng, 4, 16, 16, 4) + 100).astype(jnp.bfloat16)
    module: Any = Normalise(norm, dtype=jnp.bfloat16)
    variables = module.init(jax.random.key(0), x)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    train = norm != "group"
    run = lambda module, x: jax.jit(lambda v, x: module.apply(v, x, train, mutable=True)[0])(
        variables, x
    )
    y, expected = run(module, x), run(Normalise(norm), x.astype(jnp.float32))
    assert y.dtype == jnp.bfloat16
    # The result is rounded once, to 8 bits.
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=2**-8, atol=1e-6)
