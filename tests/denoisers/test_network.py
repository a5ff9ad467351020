"""The table of preconditionings, and a linen module as a denoiser."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import networks
from jdiff.denoisers import Denoiser, NetworkDenoiser
from jdiff.denoisers.network import (
    PRECONDITIONINGS,
    default_preconditioning,
    loss_weight,
    precondition,
)

ROWS = ["edm", "x0", "eps", "v"]
SHAPE = (2, 2, 1)
LEVELS = np.array([0.002, 0.05, 0.5, 2.0, 80.0])


def refused(error, *words):
    """pytest.raises(error) whose message holds all words, in order."""
    return pytest.raises(error, match=".*".join(re.escape(word) for word in words))


def table(row, s, sd):
    """(c_skip, c_out) in float64; EDM's table 1, and D = y - s F, D = F for eps and x0.

    v: the network estimates v = a z - b x of the variance-preserving pair a = 1/sqrt(1 + s^2),
    b = s a, from x_t = a y; x = a x_t - b v gives c_skip = a^2 and c_out = -b.
    """
    a = 1 / np.sqrt(1 + s**2)
    return {
        "edm": (sd**2 / (s**2 + sd**2), s * sd / np.sqrt(s**2 + sd**2)),
        "x0": (0 * s, 1 + 0 * s),
        "eps": (1 + 0 * s, -s),
        "v": (a * a, -s * a),
    }[row]


class Net(nn.Module):
    """Two dense layers over all values, with the level and the label added between them."""

    num_classes: int | None = None

    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        h = nn.Dense(8)(x.reshape(len(x), -1)) + nn.Dense(8)(c_noise[:, None])
        if self.num_classes is not None:
            null = jnp.full(len(x), self.num_classes)
            h += nn.Embed(self.num_classes + 1, 8)(null if labels is None else labels)
        return nn.Dense(x[0].size)(nn.silu(h)).reshape(x.shape)


class Blind(nn.Module):
    preconditioning = "x0"

    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        return nn.Dense(x.shape[-1])(x)


def network(module, row=None, **options):
    options = {"data_std": 0.4, "preconditioning": row, **options}
    return NetworkDenoiser.create(module, variables(module), SHAPE, **options)


@functools.cache
def variables(module):
    return jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, *SHAPE)), jnp.zeros(1))


apply_net = jax.jit(Net().apply)


@jax.jit
def call(denoiser, y, sigma, labels=None):
    return denoiser(y, sigma, labels)


# The table


@pytest.mark.core
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("sd", [0.3, 1.0])
def test_rows_are_those_of_the_table(row, sd):
    found = PRECONDITIONINGS[row](jnp.asarray(LEVELS, jnp.float32), jnp.float32(sd))
    # A handful of float32 roundings.
    for value, wanted in zip(found, table(row, LEVELS, sd), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=5e-7)


def test_the_table_has_four_rows():
    assert sorted(PRECONDITIONINGS) == sorted(ROWS)


@pytest.mark.core
@pytest.mark.parametrize("row", ROWS)
def test_the_network_sees_a_scaled_image_and_log_sigma_over_four(row, rng):
    y = jnp.asarray(rng.standard_normal((5, *SHAPE)), jnp.float32)
    sigma = jnp.asarray(LEVELS, jnp.float32)
    seen = []
    apply = lambda x, c_noise: seen.append((x, c_noise)) or jnp.zeros_like(x)
    precondition(apply, row, jnp.float32(0.4), y, sigma)
    ((x, c_noise),) = seen
    c_in = 1 / np.sqrt(LEVELS**2 + 0.4**2)
    np.testing.assert_allclose(x, c_in[:, None, None, None] * np.asarray(y), rtol=1e-6)
    np.testing.assert_allclose(c_noise, np.log(LEVELS) / 4, rtol=1e-6)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_can_say_the_same_denoiser(row, rng):
    """D(y) = tanh(y) / (1 + s), from the F that each row needs for it."""
    y = rng.standard_normal((5, *SHAPE))
    s = LEVELS[:, None, None, None]
    c_skip, c_out = table(row, s, 0.4)

    def apply(x, c_noise):
        level = jnp.exp(4 * c_noise)[:, None, None, None]
        y = x * jnp.sqrt(level**2 + 0.4**2)
        return (jnp.tanh(y) / (1 + level) - c_skip * y) / c_out

    x_hat = precondition(
        apply, row, jnp.float32(0.4), jnp.asarray(y, jnp.float32), jnp.asarray(LEVELS, jnp.float32)
    )
    # D = c_skip y + (D - c_skip y): float32 of numbers up to 3, and exp(log) to 1e-6.
    np.testing.assert_allclose(x_hat, np.tanh(y) / (1 + s), atol=5e-6)


@pytest.mark.parametrize("row", ROWS)
def test_loss_weight_is_one_over_c_out_squared(row):
    found = loss_weight(row, jnp.float32(0.4), jnp.asarray(LEVELS, jnp.float32))
    np.testing.assert_allclose(found, 1 / table(row, LEVELS, 0.4)[1] ** 2, rtol=1e-6)


def test_v_is_edm_at_unit_deviation_with_the_sign_of_f_turned():
    sigma, one = jnp.asarray(LEVELS, jnp.float32), jnp.float32(1)
    (v_skip, v_out), (edm_skip, edm_out) = (PRECONDITIONINGS[r](sigma, one) for r in ("v", "edm"))
    np.testing.assert_allclose(v_skip, edm_skip, rtol=1e-6)
    np.testing.assert_allclose(v_out, -edm_out, rtol=1e-6)


@pytest.mark.parametrize("level", [0.05, 0.4, 5.0])
def test_edm_gives_f_unit_input_and_unit_target(level, rng):
    """What EDM's table is made for (its appendix B.6), by Monte Carlo on Gaussian data."""
    n, sd = 100_000, 0.4
    x, z = sd * rng.standard_normal(n), rng.standard_normal(n)
    y = x + level * z
    seen = []
    apply = lambda x, c_noise: seen.append(np.asarray(x)) or jnp.zeros_like(x)
    rows = jnp.asarray(y, jnp.float32).reshape(n, 1, 1, 1)
    skipped = precondition(apply, "edm", jnp.float32(sd), rows, jnp.full(n, level))
    target = (x - np.asarray(skipped).ravel()) / table("edm", level, sd)[1]
    # A variance from n normals has standard error sqrt(2 / n) = 0.0045; at 4.5 of them false
    # alarms are 7 in a million.
    assert seen[0].var() == pytest.approx(1, abs=4.5 * np.sqrt(2 / n))
    assert target.var() == pytest.approx(1, abs=4.5 * np.sqrt(2 / n))
    # Where D keeps c_skip y, the rest is uncorrelated with the input: that is what fixes c_skip.
    assert abs(np.corrcoef(seen[0].ravel(), target)[0, 1]) < 4.5 / np.sqrt(n)


# The denoiser


@pytest.mark.core
@pytest.mark.parametrize("row", ROWS)
def test_network_denoiser_is_the_table_around_the_module(row, rng):
    denoiser = network(Net(), row)
    y = rng.standard_normal((5, *SHAPE)).astype(np.float32)
    c_skip, c_out = (v[:, None, None, None] for v in table(row, LEVELS, 0.4))
    c_in = 1 / np.sqrt(LEVELS**2 + 0.4**2)[:, None, None, None]
    f = apply_net(denoiser.variables, c_in * y, np.log(LEVELS) / 4)
    wanted = c_skip * y + c_out * np.asarray(f)
    found = call(denoiser, y, jnp.asarray(LEVELS, jnp.float32))
    # F of order 1 to float32 rounding, times c_out up to 80 in the rows eps.
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(c_out).max())


def test_eager_scalar_and_rowwise_levels_agree(rng):
    denoiser = network(Net(), "edm")
    y = jnp.asarray(rng.standard_normal((3, *SHAPE)), jnp.float32)
    scalar = call(denoiser, y, jnp.float32(0.5))
    np.testing.assert_allclose(call(denoiser, y, jnp.full(3, 0.5)), scalar, atol=1e-6)
    np.testing.assert_allclose(denoiser(y, jnp.float32(0.5)), scalar, atol=1e-6)
    # A row does not see the level of another.
    levels = jnp.array([0.5, 5.0, 0.05])
    rows = call(denoiser, y, levels)
    np.testing.assert_allclose(rows[0], scalar[0], atol=1e-6)
    assert not np.allclose(rows[1], scalar[1], atol=1e-3)


@pytest.mark.core
def test_it_goes_through_jit_vmap_and_grad(rng):
    denoiser = network(Net(), "edm")
    assert isinstance(denoiser, Denoiser)
    y = jnp.asarray(rng.standard_normal((3, *SHAPE)), jnp.float32)
    one = lambda d, y: d(y[None], jnp.float32(0.5))[0]
    rows = jax.jit(jax.vmap(one, (None, 0)))(denoiser, y)
    np.testing.assert_allclose(rows, call(denoiser, y, jnp.float32(0.5)), atol=1e-6)
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), denoiser)
    assert jax.vmap(one, (0, None))(two, y[0]).shape == (2, *SHAPE)

    loss = lambda d: jnp.sum(d(y, jnp.float32(0.5)) ** 2)
    gradient = jax.jit(jax.grad(loss))(denoiser)
    assert jax.tree.structure(gradient) == jax.tree.structure(denoiser)
    # Central difference along data_std: the step's error 1e-4 relative, rounding 1e-3.
    ends = [float(loss(denoiser.replace(data_std=jnp.float32(0.4 + h)))) for h in (1e-2, -1e-2)]
    assert float(gradient.data_std) == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=1e-2)


def test_measured_numbers_are_leaves_and_share_a_program():
    a, b = network(Net(), "edm", sigmas=[2.0, 1.0]), network(Net(), "edm", sigmas=[3.0, 1.0])
    b = b.replace(data_std=jnp.float32(0.9))
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert a.sigmas is not None
    assert a.sigmas.tolist() == [2, 1]
    assert jax.tree.structure(a) != jax.tree.structure(network(Net(), "v", sigmas=[2.0, 1.0]))


def test_labels_reach_the_module_and_null_is_no_label(rng):
    denoiser = network(Net(num_classes=2))
    assert denoiser.num_classes == 2
    assert network(Net()).num_classes is None
    y = jnp.asarray(rng.standard_normal((2, *SHAPE)), jnp.float32)
    at = lambda labels: np.asarray(call(denoiser, y, jnp.float32(1), labels))
    np.testing.assert_array_equal(at(None), at(jnp.array([2, 2])))
    assert np.abs(at(jnp.array([0, 1])) - at(None)).max() > 1e-3


def test_f_of_another_shape_is_refused():
    class Gray(nn.Module):
        @nn.compact
        def __call__(self, x, c_noise, labels=None, train=False):
            return x.mean((1, 2), keepdims=True)  # which would be broadcast

    y = jnp.zeros((2, *SHAPE))
    with refused(ValueError, f"F must have the shape of y, {(2, *SHAPE)}; the network gave"):
        NetworkDenoiser.create(Gray(), {}, SHAPE, data_std=0.5)(y, jnp.float32(1))


def test_a_bottleneck_that_is_gone_round_is_warned_of():
    narrow = networks.UNet(width=8, levels=1, bottleneck=2, skips=False)
    make = lambda **options: NetworkDenoiser.create(narrow, {}, SHAPE, data_std=0.5, **options)
    with pytest.warns(UserWarning, match="'edm' adds c_skip y .* goes round UNet"):
        make()
    assert make(preconditioning="x0").preconditioning == "x0"


def test_a_module_names_its_own_default():
    assert default_preconditioning(Net()) == "edm"
    assert default_preconditioning(Blind()) == "x0"
    assert network(Net()).preconditioning == "edm"
    assert network(Blind()).preconditioning == "x0"
    # Allowed, and warned about: under x0 a network constrains its samples, under others not.
    with pytest.warns(UserWarning, match="'v' adds c_skip y .* goes round Blind"):
        assert network(Blind(), "v").preconditioning == "v"
    assert network(Net(), "x0").preconditioning == "x0"  # no warning: an error in tests


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"preconditioning": "edn"}, ValueError, ["preconditioning is 'edn'. Did you mean 'edm'"]),
        ({"preconditioning": "x"}, ValueError, ["preconditioning is 'x'", "edm, eps, v, x0."]),
        ({"data_std": 0.0}, ValueError, ["data_std must be in (0, inf); got 0.0"]),
        ({"data_std": float("nan")}, ValueError, ["data_std must be in (0, inf); got nan"]),
        ({"data_std": "1"}, TypeError, ["data_std must be a number; got '1'"]),
        ({"sigmas": [0.5, 1.0]}, ValueError, ["sigmas must decrease strictly; got [0.5 1. ]"]),
        ({"image_shape": (2, 2)}, ValueError, ["image_shape must be (height, width, channels)"]),
    ],
    ids=["close", "far", "zero", "nan", "text", "sigmas", "shape"],
)
def test_create_refuses(options, error, words):
    arguments = {"image_shape": SHAPE, "data_std": 0.4, **options}
    with refused(error, *words):
        NetworkDenoiser.create(Net(), {}, **arguments)


def test_images_of_another_shape_are_refused():
    with refused(ValueError, "y must be a float array [B, 2, 2, 1]; got float32 [1, 2, 2, 3]."):
        network(Net())(jnp.zeros((1, 2, 2, 3)), jnp.float32(1))
