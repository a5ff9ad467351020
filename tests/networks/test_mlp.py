"""The MLP against NumPy, and that nine layers train."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdiff import networks
from jdiff.networks.mlp import ACTIVATIONS, MLP


@functools.partial(jax.jit, static_argnums=0)
def apply(module: Any, variables, x, t, labels=None):
    return module.apply(variables, x, t, labels)


def draw(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


@pytest.mark.core
@pytest.mark.parametrize("output", ["tanh", "linear"])
def test_it_equals_the_formula(output, rng, variables_for):
    module = MLP(width=7, depth=3, output=output, time=False)
    variables = variables_for(module, (2, 3, 1))
    x = draw(rng, 4, 2, 3, 1)
    h = np.asarray(x, np.float64).reshape(4, 6)
    dense = [variables["params"][f"Dense_{i}"] for i in range(4)]
    for i, layer in enumerate(dense):
        h = h @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        if i < 2:
            h = np.where(h > 0, h, 0.2 * h)
        elif i == 2:
            h = np.maximum(h, 0)
    expected = np.tanh(h) if output == "tanh" else h
    y = apply(module, variables, x, jnp.zeros(4))
    np.testing.assert_allclose(y.reshape(4, 6), expected, atol=1e-5)


@pytest.mark.core
@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        ("relu", lambda z: np.maximum(z, 0)),
        ("leaky_relu", lambda z: np.where(z > 0, z, 0.2 * z)),
        ("silu", lambda z: z / (1 + np.exp(-z))),
        ("tanh", np.tanh),
    ],
    ids=["relu", "leaky_relu", "silu", "tanh"],
)
def test_every_activation_keeps_the_size(activation, formula, rng, variables_for):
    # The gain is 1 / E[activation(z)^2], the expectation by quadrature.
    z = np.linspace(-12, 12, 200_001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    size = np.sum(formula(z) ** 2 * density) * (z[1] - z[0])
    assert ACTIVATIONS[activation][1] == pytest.approx(1 / size, rel=1e-4)
    module = MLP(width=7, depth=2, output="linear", time=False, activation=activation)
    variables = variables_for(module, (2, 3, 1))
    x = draw(rng, 4, 2, 3, 1)
    h = np.asarray(x, np.float64).reshape(4, 6)
    for i in range(3):
        layer = variables["params"][f"Dense_{i}"]
        h = h @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        if i == 1 and activation == "leaky_relu":
            h = np.maximum(h, 0)
        elif i < 2:
            h = formula(h)
    y = apply(module, variables, x, jnp.zeros(4))
    np.testing.assert_allclose(y.reshape(4, 6), h, atol=1e-5)


@pytest.mark.core
def test_parameters_by_hand():
    # 12 pixels -> 5 -> 5 -> 12, weights and biases.
    blind = MLP(width=5, depth=2, time=False)
    by_hand = (12 * 5 + 5) + (5 * 5 + 5) + (5 * 12 + 12)
    assert networks.num_params(blind, (2, 2, 3)) == by_hand
    # Time: 64 waves through two layers of 64, beside the pixels. Classes: three rows and null.
    embedded = by_hand + 64 * 5
    timed = MLP(width=5, depth=2)
    assert networks.num_params(timed, (2, 2, 3)) == embedded + 2 * (64 * 64 + 64)
    classes = MLP(width=5, depth=2, time=False, num_classes=3)
    assert networks.num_params(classes, (2, 2, 3)) == embedded + 4 * 64


def test_flops_by_hand():
    module = MLP(width=5, depth=2, time=False)
    assert networks.flops_per_image(module, (2, 2, 3)) == 2 * (12 * 5 + 5 * 5 + 5 * 12)


@pytest.mark.parametrize("image_shape", [(8, 8, 1), (1, 1, 2), (3, 5, 3)], ids=str)
def test_shapes(image_shape, rng, variables_for):
    module = MLP(width=8, depth=2)
    variables = variables_for(module, image_shape)
    y = apply(module, variables, draw(rng, 3, *image_shape), jnp.zeros(3))
    assert y.shape == (3, *image_shape)
    assert y.dtype == jnp.float32


def test_tanh_keeps_the_image_in_range_and_linear_does_not(rng, variables_for):
    x = 1e3 * draw(rng, 4, 4, 4, 1)
    for output, inside in (("tanh", True), ("linear", False)):
        module = MLP(width=8, depth=2, output=output)
        variables = variables_for(module, (4, 4, 1))
        assert (np.abs(apply(module, variables, x, jnp.zeros(4))).max() <= 1) == inside


def test_gradients_reach_every_parameter(rng, variables_for):
    module = MLP(width=8, depth=3, num_classes=2)
    variables = variables_for(module, (4, 4, 1))
    x, t, labels = draw(rng, 3, 4, 4, 1), draw(rng, 3), jnp.array([0, 1, 2])
    loss = lambda v: jnp.sum(apply(module, v, x, t, labels) ** 2)
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(variables)):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path


def test_time_matters_unless_switched_off(rng, variables_for):
    x = draw(rng, 2, 4, 4, 1)
    for time in (True, False):
        module = MLP(width=8, depth=2, time=time)
        variables = variables_for(module, (4, 4, 1))
        at = [apply(module, variables, x, jnp.full(2, t)) for t in (-1.0, 1.0)]
        assert np.allclose(*at, atol=1e-6) != time


@pytest.mark.parametrize("time", [True, False])
def test_labels_none_is_the_null_label_and_other_labels_differ(time, rng, variables_for):
    module = MLP(width=8, depth=2, time=time, num_classes=3)
    variables = variables_for(module, (4, 4, 1))
    x, t = draw(rng, 2, 4, 4, 1), jnp.zeros(2)
    labelled = lambda label: np.asarray(apply(module, variables, x, t, jnp.full(2, label)))
    np.testing.assert_allclose(apply(module, variables, x, t), labelled(3), atol=1e-6)
    assert np.abs(labelled(0) - labelled(3)).max() > 1e-3


def test_labels_without_classes_are_refused(rng, variables_for):
    module = MLP(width=8, depth=2, time=False)
    variables = variables_for(module, (4, 4, 1))
    with pytest.raises(ValueError, match="labels were given to a network without classes"):
        apply(module, variables, draw(rng, 2, 4, 4, 1), jnp.zeros(2), jnp.zeros(2, jnp.int32))


def test_the_last_hidden_layer_is_sown_when_asked(rng, variables_for):
    module = MLP(width=8, depth=2)
    variables = variables_for(module, (4, 4, 1))
    x = draw(rng, 3, 4, 4, 1)
    module_apply: Any = module.apply
    _, insides = module_apply(variables, x, jnp.zeros(3), mutable="intermediates")
    (hidden,) = insides["intermediates"]["bottleneck"]
    assert hidden.shape == (3, 8)
    assert np.all(np.asarray(hidden) >= 0)  # after the ReLU


@pytest.fixture(scope="module")
def paper_mlp():
    module: Any = MLP()
    return module, networks.init(module, jax.random.key(0), (8, 8, 1))


def test_the_signal_keeps_its_size_through_nine_layers(rng, paper_mlp):
    # He's gain keeps E[h^2] from layer to layer; at width 200 it wanders by 20 % or so over nine
    # layers, while a gain of 1 for 1.92 would leave 0.52^8 = half a percent.
    module, variables = paper_mlp
    x = draw(rng, 256, 8, 8, 1)
    keep = lambda m, _: m.name is not None and m.name.startswith("Dense")
    apply = lambda v, x: module.apply(
        v, x, jnp.zeros(256), capture_intermediates=keep, mutable="intermediates"
    )
    insides = jax.jit(apply)(variables, x)[1]["intermediates"]
    size = lambda i: float(jnp.mean(insides[f"Dense_{i}"]["__call__"][0] ** 2))
    assert 0.5 < size(8) / size(0) < 2


def test_nine_layers_learn_to_denoise(rng, paper_mlp):
    # 64 images on a line in the space of pixels, at noise 1: guessing the mean image leaves the
    # images' variance, 0.25; knowing the line leaves about 0.25 / (1 + 0.25 * 64) = 0.015.
    module, variables = paper_mlp
    direction = np.sign(rng.standard_normal((8, 8, 1)))
    clean = jnp.asarray(np.linspace(-0.87, 0.87, 64)[:, None, None, None] * direction, jnp.float32)
    adam = optax.adam(1e-3)

    def loss(v, key):
        y = clean + jax.random.normal(key, clean.shape)
        return jnp.mean((module.apply(v, y / 1.12, jnp.zeros(64)) - clean) ** 2)

    def step(carry, key):
        v, opt = carry
        value, gradient = jax.value_and_grad(loss)(v, key)
        updates, opt = adam.update(gradient, opt)
        return (optax.apply_updates(v, updates), opt), value

    start = (variables, adam.init(variables))
    keys = jax.random.split(jax.random.key(1), 150)
    _, losses = jax.jit(lambda c, k: jax.lax.scan(step, c, k))(start, keys)
    assert float(jnp.mean(losses[-20:])) < 0.05


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"width": 0}, ValueError, "width must be at least 1; got 0"),
        ({"depth": 0}, ValueError, "depth must be at least 1; got 0"),
        ({"depth": 1.5}, TypeError, "depth must be a whole number; got 1.5"),
        ({"output": "auto"}, ValueError, "output is 'auto'.*Accepted: linear, tanh"),
        ({"time": "true"}, TypeError, "time must be True or False; got 'true'"),
        ({"num_classes": -1}, ValueError, "num_classes must be at least 1; got -1"),
        ({"activation": "selu"}, ValueError, "activation is 'selu'. Did you mean.*'relu'"),
        ({"dropout": 1.5}, ValueError, r"dropout must be in \[0, 1\); got 1.5"),
        ({"dtype": None}, ValueError, "dtype is None.*Accepted: bfloat16, float32"),
    ],
    ids=str,
)
def test_options_are_checked_at_construction(options, error, message):
    with pytest.raises(error, match=message):
        MLP(**options)
