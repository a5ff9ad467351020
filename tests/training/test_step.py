"""What a training step computes: against float64 by hand, row by row, and what it compiles to."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.extend.core import jaxprs_in_params
from tiny_training import CONFIG, SHAPE, Affine, Small, pictures

from jdiff import data, noise, parallel
from jdiff.data import batches
from jdiff.training import TRAIN, TrainConfig, loop, train
from jdiff.training import step as steps
from jdiff.training.step import programs

SEED = 4
WEIGHTS = np.array([1.0, 0.0, 2.0, 3.0, 1.0])
BY_HAND = TrainConfig(
    steps=5,
    batch_size=6,  # more than the five images
    optimizer="sgd",
    learning_rate=0.3,
    warmup=4,
    ema_decay=0.25,
    preconditioning="edm",
    eval_every=5,
    eval_examples=10,  # a batch of six and one of four
    checkpoint_every=5,
    steps_per_call=3,
)


# By hand


def drawn(key, images, batch, size, cdf=None):
    """x, sigma, z of a batch in float64, drawn as the step draws them."""
    keys = batches.example_keys(key, batch, jnp.arange(size))
    rows = np.asarray(batches.draw(keys, len(images), cdf))
    fold = lambda purpose: jax.vmap(lambda k: jax.random.fold_in(k, purpose))(keys)
    sigma = jax.vmap(noise.edm_lognormal)(fold(steps._LEVEL))
    z = jax.vmap(lambda k: jax.random.normal(k, SHAPE))(fold(steps._NOISE))
    flat = lambda a: np.asarray(a, np.float64).reshape(size, -1)
    return flat(images[rows]) / 127.5 - 1, flat(sigma), flat(z)


def loss_and_gradient(w, b, sd, x, s, z):
    """EDM's loss of each example with F(x) = x W + b, and the gradient of their mean."""
    y = x + s * z
    c_in = 1 / np.sqrt(s**2 + sd**2)
    c_skip, c_out = sd**2 * c_in**2, s * sd * c_in
    error = c_skip * y + c_out * (c_in * y @ w + b) - x
    loss = np.mean(error**2, axis=1) / c_out[:, 0] ** 2
    slope = 2 * error / c_out / error.size  # of the mean loss, to F
    return loss, (c_in * y).T @ slope, slope.sum(0)


@pytest.fixture(scope="module")
def by_hand():
    """Five steps of weighted training in float64 NumPy; the weights, and what `train` gave."""
    images = pictures(5, labels=False, weights=WEIGHTS)
    result = train(Affine(), images, BY_HAND, key=jax.random.key(SEED), progress=False)

    key = jax.random.fold_in(jax.random.key(SEED), TRAIN)
    x = jnp.zeros((1, *SHAPE))
    start = Affine().init(jax.random.fold_in(key, 0), x, jnp.zeros(1))["params"]["Dense_0"]
    w, b = (np.asarray(start[name], np.float64) for name in ("kernel", "bias"))
    w_ema, b_ema = w, b
    values = images.images / 127.5 - 1
    mean = WEIGHTS / 7 @ values.mean((1, 2, 3))
    sd = np.sqrt(WEIGHTS / 7 @ np.mean((values - mean) ** 2, axis=(1, 2, 3)))
    held_out = []

    def held_out_loss():
        # One key for all runs and no weights; examples are counted through.
        own = jax.random.fold_in(jax.random.key(TRAIN), 2)
        parts = [drawn(own, images.held_out, i, 6) for i in range(2)]
        each = [loss_and_gradient(w_ema, b_ema, sd, *part)[0] for part in parts]
        held_out.append(np.concatenate(each)[:10].mean())

    held_out_loss()
    losses, cdf = [], jnp.asarray(batches.cumulative(WEIGHTS))
    for t in range(5):
        batch = drawn(jax.random.fold_in(key, 1), images.images, t, 6, cdf)
        loss, w_slope, b_slope = loss_and_gradient(w, b, sd, *batch)
        losses.append(loss.mean())
        rate = 0.3 * min(1, (t + 1) / 4)
        w, b = w - rate * w_slope, b - rate * b_slope
        decay = min(0.25, (1 + t) / (10 + t))
        w_ema, b_ema = decay * w_ema + (1 - decay) * w, decay * b_ema + (1 - decay) * b
    held_out_loss()
    wanted = {"sd": sd, "loss": losses, "held_out_loss": held_out, "kernel": w_ema, "bias": b_ema}
    return result, wanted


@pytest.mark.core
def test_losses_of_five_steps(by_hand):
    result, wanted = by_hand
    np.testing.assert_array_equal(result.history["step"], np.arange(5))
    # float32 on numbers of order 1; sigma of 0.02 costs two digits of D - x.
    np.testing.assert_allclose(result.history["loss"], wanted["loss"], rtol=2e-5)
    assert np.ptp(wanted["loss"]) > 0.1  # they do differ


def test_averaged_weights_of_five_steps(by_hand):
    result, wanted = by_hand
    found = result.denoiser.variables["params"]["Dense_0"]
    np.testing.assert_allclose(found["kernel"], wanted["kernel"], rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(found["bias"], wanted["bias"], rtol=2e-5, atol=1e-6)


def test_held_out_loss_is_that_of_the_averaged_weights(by_hand):
    result, wanted = by_hand
    np.testing.assert_array_equal(result.history["held_out_step"], [0, 5])
    np.testing.assert_allclose(result.history["held_out_loss"], wanted["held_out_loss"], rtol=2e-5)


def test_the_data_s_deviation_is_weighted(by_hand):
    result, wanted = by_hand
    assert float(result.denoiser.data_std) == pytest.approx(wanted["sd"], rel=1e-6)


@pytest.mark.parametrize(("most", "wanted"), [(1, [1] * 5), (100, [1, 4])])
def test_calls_of_any_length_give_the_same_weights(by_hand, monkeypatch, most, wanted):
    counts = []

    def counting(*arguments):
        compiled = programs(*arguments)
        assert compiled.most == most

        def call(state, shared):
            counts.append(int(shared[1]))
            state, losses = compiled.call(state, shared)
            assert losses.shape == (jax.local_device_count(), most)
            return state, losses

        return compiled._replace(call=call)

    monkeypatch.setattr(loop, "programs", counting)
    config = TrainConfig(**{**vars(BY_HAND), "steps_per_call": most})
    images = pictures(5, labels=False, weights=WEIGHTS)
    result = train(Affine(), images, config, key=jax.random.key(SEED), progress=False)
    assert counts == wanted
    reference = by_hand[0]
    for name in ("kernel", "bias"):
        # Other programs round differently: five steps of float32 on numbers of order 1.
        np.testing.assert_allclose(
            result.denoiser.variables["params"]["Dense_0"][name],
            reference.denoiser.variables["params"]["Dense_0"][name],
            atol=1e-6,
        )
    np.testing.assert_allclose(result.history["loss"], reference.history["loss"], rtol=1e-5)


# Rows, weights and labels


class Guess(nn.Module):
    """Says the label; with it the loss of a batch of one tells which row was drawn."""

    preconditioning = "x0"
    num_classes: int = 3

    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        unused = self.param("unused", nn.initializers.zeros, ())
        label = jnp.full(len(x), self.num_classes) if labels is None else labels
        return 0 * (x + unused) + label[:, None, None, None]


# x and label of each row; (x - said)^2 differs for every row, with its label and without.
ROWS = np.array([10.3, 21.1, 32.9, 44.2, 56.4, 67.5])
LABELS = np.array([0, 1, 2, 0, 1, 2])
ROW_WEIGHTS = np.array([0.4, 0.0, 0.3, 0.1, 0.0, 0.2])


@pytest.fixture(scope="module")
def guessed():
    points = data.from_arrays(
        ROWS.reshape(-1, 1, 1, 1),
        LABELS,
        weights=ROW_WEIGHTS,
        held_out=np.array([5.0, 7.0]).reshape(-1, 1, 1, 1),
        held_out_labels=[2, 0],
    )
    config = TrainConfig(
        steps=600, batch_size=1, warmup=0, label_dropout=0.25, eval_every=300, eval_examples=8
    )
    return train(Guess(), points, config, key=jax.random.key(1), progress=False)


@pytest.fixture(scope="module")
def decoded(guessed):
    """(row, whether its label was dropped) of each step."""
    values = np.stack([(ROWS - LABELS) ** 2, (ROWS - 3) ** 2], axis=1).ravel()
    assert np.diff(np.sort(values)).min() > 1
    distance = np.abs(guessed.history["loss"][:, None] - values)
    assert distance.min(1).max() < 1e-2
    return np.divmod(distance.argmin(1), 2)


def test_rows_are_those_of_the_sampler_of_batches(decoded):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), TRAIN), 1)
    cdf = jnp.asarray(batches.cumulative(ROW_WEIGHTS))
    keys = jax.vmap(lambda t: batches.example_keys(key, t, jnp.arange(1))[0])(jnp.arange(600))
    np.testing.assert_array_equal(decoded[0], batches.draw(keys, 6, cdf))


def test_only_weighted_rows_are_drawn_as_often_as_they_weigh(decoded):
    counts = np.bincount(decoded[0], minlength=6)
    assert np.all(counts[ROW_WEIGHTS == 0] == 0)
    kept = ROW_WEIGHTS > 0
    # A false alarm once in 10,000 keys; and equal weights must fail.
    assert scipy.stats.chisquare(counts[kept], 600 * ROW_WEIGHTS[kept]).pvalue > 1e-4
    assert scipy.stats.chisquare(counts[kept]).pvalue < 1e-6


def test_labels_are_used_and_dropped_to_the_null_class(decoded):
    # Binomial(600, 1/4) at 4 standard deviations: false alarms 6 in 100,000.
    assert abs(decoded[1].sum() - 150) < 4 * np.sqrt(600 * 0.25 * 0.75)
    assert set(decoded[0][decoded[1] == 1]) == set(decoded[0][decoded[1] == 0])


def test_held_out_losses_use_the_same_draws_and_all_labels(guessed):
    history = guessed.history
    np.testing.assert_array_equal(history["held_out_step"], [0, 300, 600])
    assert len(set(history["held_out_loss"])) == 1  # to the last bit
    # Eight draws, each (5 - 2)^2 or (7 - 0)^2; a dropped label would give 4 or 16.
    nines = (49 - history["held_out_loss"][0]) / 40 * 8
    assert nines == pytest.approx(round(nines), abs=1e-5)
    assert 0 <= round(nines) <= 8


# What it compiles to


def programs_of(module: Any, config: TrainConfig) -> steps.Programs:
    return programs(module, config, SHAPE)


@pytest.fixture(scope="module")
def small_call():
    """The compiled call with a state and shapes of its data."""
    compiled = programs_of(Small(), CONFIG)
    state = parallel.stack(jax.device_get(compiled.init(jax.random.key(0))))
    shape = lambda *s, dtype: jax.ShapeDtypeStruct(s, dtype)
    images = shape(1000, *SHAPE, dtype=jnp.uint8)
    labels = shape(1000, dtype=jnp.int32)
    key = jax.random.key(0)
    shared = ((images, labels, None, shape(dtype=jnp.float32), key, None), shape(dtype=jnp.int32))
    return compiled.call, state, shared


def test_the_state_is_updated_in_place(small_call):
    call, state, shared = small_call
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) // jax.local_device_count()
    analysis = call.lower(state, shared).compile().memory_analysis()
    assert analysis.alias_size_in_bytes >= size
    # Twice the weights and their averages: AdamW's two moments.
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(state.variables))
    assert size >= 4 * weights // jax.local_device_count()


def shapes_inside(jaxpr):
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield variable.aval
        for inner in jaxprs_in_params(equation.params):
            yield from shapes_inside(inner)


@pytest.mark.core
def test_no_float_copy_of_the_data_is_made(small_call):
    call, state, shared = small_call
    found = list(shapes_inside(call.trace(state, shared).jaxpr.jaxpr))
    floats = [a for a in found if jnp.issubdtype(a.dtype, jnp.floating)]
    # The step is in there: a batch of ten images (on one device) in floats.
    rows = parallel.rows_per_device(10)
    assert any(a.shape == (rows, *SHAPE) for a in floats)
    assert max(np.prod(a.shape) for a in floats) < 1000 * np.prod(SHAPE)


def test_one_step_a_call_for_convolutions_on_the_cpu_else_a_hundred():
    """A convolution's weight gradient inside a loop is a hundred times slower there."""
    config = TrainConfig(steps=500)
    assert programs_of(Affine(), config).most == 100
    assert programs_of(Affine(), TrainConfig(steps=7)).most == 7
    on_cpu = jax.default_backend() == "cpu"
    assert programs_of(Convolution(), config).most == (1 if on_cpu else 100)
    assert programs_of(Convolution(), TrainConfig(steps_per_call=5)).most == 5


@pytest.mark.parametrize(
    ("change", "shared"),
    [
        ({"steps": 700}, True),
        ({"eval_every": 9, "checkpoint_every": 8}, True),
        ({"steps_per_call": 100}, True),  # what it would be anyway
        ({"steps": 90}, False),  # fewer than one call would make
        ({"steps": 700, "schedule": "cosine"}, False),
        ({"learning_rate": 1e-4}, False),
        ({"eval_examples": 5}, False),
    ],
)
def test_programs_are_shared_by_configurations_that_compile_to_the_same(change, shared):
    """A trial of a network's speed and its training, a training and a longer one."""
    base = TrainConfig(steps=500, schedule=change.get("schedule", "constant"))
    changed = dataclasses.replace(base, **change)
    same = programs_of(Affine(), base) is programs_of(Affine(), changed)
    assert same == shared


class Convolution(nn.Module):
    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        return nn.Conv(x.shape[-1], (3, 3))(x)
