"""The bottleneck MLP against NumPy, the rank that its code leaves, and that it learns a curve."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdiff import networks
from jdiff.denoisers import NetworkDenoiser
from jdiff.networks import BottleneckMLP


@functools.partial(jax.jit, static_argnums=0)
def apply(module: Any, variables, x, t, labels=None):
    return module.apply(variables, x, t, labels)


def draw(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def insides(module, variables, x, t, keep=False):
    kept = lambda m, _: keep and m.name is not None and m.name.startswith("Dense")
    run = lambda v: module.apply(v, x, t, capture_intermediates=kept, mutable="intermediates")
    return jax.jit(run)(variables)[1]["intermediates"]


@pytest.mark.core
@pytest.mark.parametrize("output", ["tanh", "linear"])
def test_it_equals_the_formula(output, rng, variables_for):
    # 6 -> 7 -> 7 -> 2 -> 7 -> 7 -> 6: LeakyReLU after all but the code and the output.
    module = BottleneckMLP(code_dim=2, width=7, depth=2, output=output, time=False)
    variables = variables_for(module, (2, 3, 1))
    x = draw(rng, 4, 2, 3, 1)
    h = np.asarray(x, np.float64).reshape(4, 6)
    codes = np.empty(0)
    for i in range(6):
        layer = variables["params"][f"Dense_{i}"]
        h = h @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        if i == 2:
            codes = h
        elif i < 5:
            h = np.where(h > 0, h, 0.2 * h)
    expected = np.tanh(h) if output == "tanh" else h
    y = apply(module, variables, x, jnp.zeros(4))
    np.testing.assert_allclose(y.reshape(4, 6), expected, atol=1e-5)
    (sown,) = insides(module, variables, x, jnp.zeros(4))["bottleneck"]
    np.testing.assert_allclose(sown, codes, atol=1e-5)


@pytest.mark.core
def test_parameters_by_hand():
    # The paper's toy, weights and biases: 2 -> 64 -> 1 -> 64 -> 2.
    toy = (2 * 64 + 64) + (64 + 1) + (64 + 64) + (64 * 2 + 2)
    assert networks.num_params(BottleneckMLP(time=False), (1, 1, 2)) == toy
    # Two hidden layers of 5 a side, 3 numbers between: 12 -> 5 -> 5 -> 3 -> 5 -> 5 -> 12.
    blind = BottleneckMLP(code_dim=3, width=5, depth=2, time=False)
    by_hand = 65 + 30 + 18 + 20 + 30 + 72
    assert networks.num_params(blind, (2, 2, 3)) == by_hand
    # 64 numbers enter on each side. Time: 64 waves through two layers. Classes: three and null.
    timed = BottleneckMLP(code_dim=3, width=5, depth=2)
    assert networks.num_params(timed, (2, 2, 3)) == by_hand + 2 * 64 * 5 + 2 * (64 * 64 + 64)
    classes = BottleneckMLP(code_dim=3, width=5, depth=2, time=False, num_classes=3)
    assert networks.num_params(classes, (2, 2, 3)) == by_hand + 2 * 64 * 5 + 4 * 64


def test_flops_by_hand():
    assert networks.flops_per_image(BottleneckMLP(time=False), (1, 1, 2)) == 2 * (128 + 64 + 192)


@pytest.mark.parametrize("image_shape", [(8, 8, 1), (1, 1, 2), (3, 5, 3)], ids=str)
def test_shapes(image_shape, rng, variables_for):
    module = BottleneckMLP(code_dim=2, width=8)
    y = apply(module, variables_for(module, image_shape), draw(rng, 3, *image_shape), jnp.zeros(3))
    assert y.shape == (3, *image_shape)
    assert y.dtype == jnp.float32


def spectrum(module, variables, image_shape, preconditioning, y, sigma):
    """Singular values of dD/dy at one point, largest first, in units of the largest."""
    denoiser = NetworkDenoiser.create(
        module, variables, image_shape, data_std=0.5, preconditioning=preconditioning
    )
    flat = lambda v: denoiser(v.reshape(1, *image_shape), sigma).ravel()
    jacobian = jax.jit(jax.jacfwd(flat))(y.ravel())
    values = np.linalg.svd(np.asarray(jacobian, np.float64), compute_uv=False)
    return values / values[0]


@pytest.mark.core
@pytest.mark.parametrize(
    ("image_shape", "code_dim", "options"),
    [
        ((1, 1, 2), 1, {}),
        ((1, 1, 2), 1, {"time": False}),
        ((2, 3, 1), 2, {"depth": 2, "output": "tanh", "num_classes": 3}),
    ],
    ids=str,
)
def test_the_code_bounds_the_rank_under_x0_alone(
    image_shape, code_dim, options, rng, variables_for
):
    module = BottleneckMLP(code_dim=code_dim, width=16, **options)
    variables = variables_for(module, image_shape)
    y = draw(rng, *image_shape)
    x0 = spectrum(module, variables, image_shape, None, y, jnp.float32(0.3))
    # float32 rounding leaves 1e-7 or so of the largest where there should be nothing.
    assert x0[code_dim - 1] > 1e-3
    assert np.all(x0[code_dim:] < 1e-5)
    with pytest.warns(UserWarning, match="goes round BottleneckMLP"):
        edm = spectrum(module, variables, image_shape, "edm", y, jnp.float32(0.3))
    assert np.all(edm > 1e-2)


def test_a_code_as_wide_as_the_image_has_full_rank(rng, variables_for):
    module = BottleneckMLP(code_dim=6, width=16)
    variables = variables_for(module, (2, 3, 1))
    values = spectrum(module, variables, (2, 3, 1), None, draw(rng, 6), jnp.float32(0.3))
    assert values[-1] > 1e-4  # float32 leaves 1e-7


@pytest.mark.parametrize("time", [True, False])
def test_what_the_code_does_not_see_changes_nothing(time, rng, variables_for):
    module = BottleneckMLP(code_dim=1, width=8, time=time)
    variables = variables_for(module, (1, 1, 2))
    x, t = draw(rng, 5, 1, 1, 2), jnp.full(5, 0.2)
    moved = x.at[..., 1].add(1.0)
    at = lambda x, t: np.asarray(apply(module, variables, x, t))
    assert np.abs(at(moved, t) - at(x, t)).max() > 1e-2
    # An encoder that is blind to the second value: no other way leads to the output.
    kernel = variables["params"]["Dense_0"]["kernel"]
    variables["params"]["Dense_0"]["kernel"] = kernel.at[1].set(0.0)
    np.testing.assert_array_equal(at(moved, t), at(x, t))
    # The decoder sees the level beside the code, if the network sees it at all.
    assert np.allclose(at(x, t + 0.5), at(x, t), atol=1e-6) != time


def test_tanh_keeps_the_image_in_range_and_linear_does_not(rng, variables_for):
    x = 1e3 * draw(rng, 4, 4, 4, 1)
    for output, inside in (("tanh", True), ("linear", False)):
        module = BottleneckMLP(width=8, output=output)
        variables = variables_for(module, (4, 4, 1))
        assert (np.abs(apply(module, variables, x, jnp.zeros(4))).max() <= 1) == inside


def test_gradients_reach_every_parameter(rng, variables_for):
    module = BottleneckMLP(width=8, depth=2, num_classes=2)
    variables = variables_for(module, (4, 4, 1))
    x, t, labels = draw(rng, 3, 4, 4, 1), draw(rng, 3), jnp.array([0, 1, 2])
    loss = lambda v: jnp.sum(apply(module, v, x, t, labels) ** 2)
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(variables)):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path


@pytest.mark.parametrize("time", [True, False])
def test_labels_none_is_the_null_label_and_other_labels_differ(time, rng, variables_for):
    module = BottleneckMLP(width=8, time=time, num_classes=3)
    variables = variables_for(module, (4, 4, 1))
    x, t = draw(rng, 2, 4, 4, 1), jnp.zeros(2)
    labelled = lambda label: np.asarray(apply(module, variables, x, t, jnp.full(2, label)))
    np.testing.assert_allclose(apply(module, variables, x, t), labelled(3), atol=1e-6)
    assert np.abs(labelled(0) - labelled(3)).max() > 1e-3


def test_labels_without_classes_are_refused(rng, variables_for):
    module = BottleneckMLP(width=8, time=False)
    variables = variables_for(module, (4, 4, 1))
    with pytest.raises(ValueError, match="labels were given to a network without classes"):
        apply(module, variables, draw(rng, 2, 4, 4, 1), jnp.zeros(2), jnp.zeros(2, jnp.int32))


def test_the_signal_keeps_its_size_and_the_code_is_heard(rng):
    # x -> Dense_0, Dense_3, Dense_4, code Dense_5 -> Dense_6, Dense_9, Dense_10, image Dense_11;
    # Dense_1, 2 and 7, 8 bring c_noise and the label in.
    module = BottleneckMLP(code_dim=1, width=400, depth=3, num_classes=3, output="tanh")
    variables = networks.init(module, jax.random.key(0), (8, 8, 1))
    found = insides(module, variables, draw(rng, 256, 8, 8, 1), jnp.linspace(-1.6, 1.1, 256), True)
    size = [float(jnp.mean(found[f"Dense_{i}"]["__call__"][0] ** 2)) for i in range(12)]
    # 400 normal numbers a kernel: a size of one layer wanders by 10 % or so.
    assert 0.5 < size[10] / size[9] < 2
    assert 0.5 < size[4] / size[3] < 2
    # Three inputs of mean square 1 (the image's and the code's; embeddings are smaller after their
    # activation) share alike; beside the columns of both embeddings the code had a 129th.
    assert 0.15 < size[0] < 0.7
    assert size[6] > max(size[7], size[8])


def test_it_learns_a_curve_that_no_line_follows(rng):
    # The paper's toy, blind, at noise 0.1, on a sine wave: the best line (rank-1 affine) leaves the
    # variance across it; the curve's code leaves the noise along it, 0.01 / 2 a value, and bends.
    t = rng.uniform(-1, 1, 400)
    points = np.stack([1.5 * t, 0.6 * np.sin(np.pi * t)], 1)
    across = np.linalg.eigvalsh(np.cov(points.T))[0] / 2
    clean = jnp.asarray(points.reshape(400, 1, 1, 2), jnp.float32)
    module: Any = BottleneckMLP(time=False)
    adam = optax.adam(3e-3)

    def loss(v, key):
        y = clean + 0.1 * jax.random.normal(key, clean.shape)
        return jnp.mean((module.apply(v, y, jnp.zeros(400)) - clean) ** 2)

    def step(carry, key):
        v, opt = carry
        value, gradient = jax.value_and_grad(loss)(v, key)
        updates, opt = adam.update(gradient, opt)
        return (optax.apply_updates(v, updates), opt), value

    variables = networks.init(module, jax.random.key(0), (1, 1, 2))
    keys = jax.random.split(jax.random.key(1), 800)
    start = (variables, adam.init(variables))
    _, losses = jax.jit(lambda c, k: jax.lax.scan(step, c, k))(start, keys)
    assert 0.005 / 2 < float(jnp.mean(losses[-20:])) < across / 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"code_dim": 0}, ValueError, "code_dim must be at least 1; got 0"),
        ({"code_dim": 1.5}, TypeError, "code_dim must be a whole number; got 1.5"),
        ({"width": 0}, ValueError, "width must be at least 1; got 0"),
        ({"depth": 0}, ValueError, "depth must be at least 1; got 0"),
        ({"output": "auto"}, ValueError, "output is 'auto'.*Accepted: linear, tanh"),
        ({"time": "true"}, TypeError, "time must be True or False; got 'true'"),
        ({"num_classes": -1}, ValueError, "num_classes must be at least 1; got -1"),
    ],
    ids=str,
)
def test_options_are_checked_at_construction(options, error, message):
    with pytest.raises(error, match=message):
        BottleneckMLP(**options)
