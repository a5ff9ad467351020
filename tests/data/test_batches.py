"""Batches drawn on the device: which row, with what probability, and what stays uint8."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.extend.core import jaxprs_in_params

from jdiff.data import batches


@partial(jax.jit, static_argnums=3)
def drawn_rows(key, step, indices, num_train, cdf=None):
    return batches.draw(batches.example_keys(key, step, indices), num_train, cdf)


def rows(step: int, indices, num_train: int = 1000, weights=None, seed: int = 0) -> np.ndarray:
    cdf = None if weights is None else jnp.asarray(batches.cumulative(weights))
    key = jax.random.key(seed)
    return np.asarray(drawn_rows(key, step, jnp.asarray(indices), num_train, cdf))


@pytest.mark.core
def test_keys_are_two_folds_of_the_runs_key():
    keys = batches.example_keys(jax.random.key(7), 3, jnp.array([0, 5]))
    by_hand = [jax.random.fold_in(jax.random.fold_in(jax.random.key(7), 3), i) for i in (0, 5)]
    for key, wanted in zip(keys, by_hand, strict=True):
        np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(wanted))


def test_keys_of_steps_places_and_purposes_all_differ():
    place = jnp.arange(16)
    keys = [batches.example_keys(jax.random.key(0), step, place) for step in range(4)]
    keys += [jax.vmap(jax.random.fold_in, (0, None))(k, batches.INDEX) for k in keys]
    data = np.concatenate([jax.random.key_data(k) for k in keys])
    assert len(np.unique(data, axis=0)) == 2 * 4 * 16


@pytest.mark.core
@pytest.mark.parametrize("weights", [None, np.arange(1000.0)], ids=["uniform", "weighted"])
def test_a_row_depends_on_key_step_and_global_place_alone(weights):
    whole = rows(11, np.arange(64), weights=weights)
    # Eight devices with eight places each, in another order: the same rows at the same places.
    for device in reversed(range(8)):
        place = np.arange(8) + 8 * device
        np.testing.assert_array_equal(rows(11, place, weights=weights), whole[place])
    assert not np.array_equal(rows(12, np.arange(64), weights=weights), whole)
    assert not np.array_equal(rows(11, np.arange(64), weights=weights, seed=1), whole)


@pytest.mark.parametrize("weights", [None, np.arange(1000.0)], ids=["uniform", "weighted"])
def test_eager_vmap_and_scan_agree_with_jit(weights):
    cdf = None if weights is None else jnp.asarray(batches.cumulative(weights))
    wanted = np.stack([rows(step, np.arange(8), weights=weights) for step in range(3)])

    def drawn(key, step):
        return batches.draw(batches.example_keys(key, step, jnp.arange(8)), 1000, cdf)

    eager = jnp.stack([drawn(jax.random.key(0), step) for step in range(3)])
    mapped = jax.vmap(drawn, (None, 0))(jax.random.key(0), jnp.arange(3))
    key = jax.random.key(0)
    _, scanned = jax.lax.scan(lambda c, step: (c, drawn(key, step)), 0, jnp.arange(3))
    for result in (eager, mapped, scanned):
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.core
def test_weighted_rows_invert_the_cumulative_distribution():
    weights = np.array([0.0, 3.0, 0.0, 1.0, 0.5, 0.0, 2.5, 0.0])
    drawn = rows(0, np.arange(500), 8, weights)
    edges = np.cumsum(weights) / weights.sum()
    keys = batches.example_keys(jax.random.key(0), 0, jnp.arange(500))
    u = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, batches.INDEX)))(keys)
    # Edges are float32 in the library: a u within 1e-7 of one could fall on either side. None does.
    assert np.abs(np.asarray(u, np.float64)[:, None] - edges).min() > 1e-6
    brute = [next(i for i in range(8) if u_i < edges[i]) for u_i in u]
    np.testing.assert_array_equal(drawn, brute)


# The keys are fixed, so these pass or fail for good; 1e-3 is the chance that a right law failed.
@pytest.mark.core
@pytest.mark.parametrize("weights", [None, np.array([1.0, 2.0, 0.0, 4.0, 3.0])])
def test_frequencies(weights):
    p = np.full(5, 0.2) if weights is None else weights / weights.sum()
    counts = np.bincount(rows(0, np.arange(20_000), 5, weights), minlength=5)
    kept = p > 0
    assert counts[~kept].sum() == 0
    assert scipy.stats.chisquare(counts[kept], 20_000 * p[kept]).pvalue > 1e-3
    wrong = p[kept] * np.linspace(0.95, 1.05, kept.sum())
    assert scipy.stats.chisquare(counts[kept], 20_000 * wrong / wrong.sum()).pvalue < 1e-3


def test_repeats_occur_as_drawing_with_replacement_wants():
    # Of 1000 rows, 1000 draws with replacement hit 1000 (1 - (1 - 1/1000)^1000) = 632.3 distinct
    # ones, standard deviation 9.8 (occupancy): 4 deviations.
    assert abs(len(np.unique(rows(0, np.arange(1000)))) - 632.3) < 40


def test_neighbouring_places_and_steps_are_uncorrelated():
    drawn = np.stack([rows(step, np.arange(200)) for step in range(50)]).astype(float)
    for a, b in [(drawn[:, 1:], drawn[:, :-1]), (drawn[1:], drawn[:-1])]:
        # About 10,000 pairs: standard deviation of r is 0.01; 4 of them.
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.04


@pytest.mark.core
@pytest.mark.parametrize(
    "weights",
    [
        np.ones(7),
        np.array([0.0, 1.0, 0.0]),
        np.array([1.0, 0.0, 0.0]),
        np.array([1e-30, 1.0, 1e-30]),
        np.full(60_000, 0.1),
        np.r_[np.random.default_rng(0).exponential(size=50_001), np.zeros(3)],
    ],
    ids=["equal", "one", "first", "tiny", "many", "zeros at the end"],
)
def test_cumulative_is_monotone_exact_at_its_end_and_flat_where_the_weight_is_zero(weights):
    cdf = batches.cumulative(weights)
    assert cdf.dtype == np.float32
    assert cdf[-1] == 1.0
    assert np.all(np.diff(cdf) >= 0)
    width = np.diff(cdf, prepend=np.float32(0))
    assert np.all(width[weights == 0] == 0)
    # float32 near 1 has spacing 2^-24, so each edge is off by half of it at most.
    np.testing.assert_allclose(cdf, np.cumsum(weights) / weights.sum(), rtol=0, atol=2**-24)


@pytest.mark.core
@pytest.mark.parametrize(
    ("u", "row"),
    [(0.0, 1), (0.25, 3), (np.nextafter(np.float32(0.25), np.float32(0)), 1), (1 - 2**-24, 3)],
)
def test_edges_of_u_draw_no_row_of_weight_zero(monkeypatch, u, row):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.asarray(u, dtype))
    cdf = jnp.asarray(batches.cumulative(np.array([0.0, 1.0, 0.0, 3.0, 0.0])))
    keys = batches.example_keys(jax.random.key(0), 0, jnp.arange(2))
    assert batches.draw(keys, 5, cdf).tolist() == [row, row]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(3), "weights must not all be zero"),
        (np.array([1.0, -1.0]), "not negative"),
        (np.ones((2, 2)), r"weights must have shape \(2,\)"),
    ],
)
def test_cumulative_refuses(weights, message):
    with pytest.raises(ValueError, match=message):
        batches.cumulative(weights)


@pytest.mark.core
def test_gather_converts_to_model_units():
    images = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    got = np.asarray(batches.gather(jnp.asarray(images), jnp.array([0, 255, 51, 51])))
    # u / 127.5 - 1 by hand; float32 rounding of 0.4 and of the difference.
    np.testing.assert_allclose(got.ravel(), [-1.0, 1.0, -0.6, -0.6], rtol=0, atol=1e-7)
    assert got.dtype == np.float32
    floats = jnp.asarray([[[[3.5]]], [[[-2.25]]]])
    np.testing.assert_array_equal(batches.gather(floats, jnp.array([1, 0])).ravel(), [-2.25, 3.5])


def all_avals(jaxpr):
    for eqn in jaxpr.eqns:
        yield from (v.aval for v in eqn.outvars)
        for inner in jaxprs_in_params(eqn.params):
            yield from all_avals(inner)


def test_no_float_copy_of_the_data_and_no_float64():
    def step(images, cdf, key, t):
        keys = batches.example_keys(key, t, jnp.arange(4))
        uniform = batches.gather(images, batches.draw(keys, 500))
        return uniform + batches.gather(images, batches.draw(keys, 500, cdf))

    images, cdf = np.zeros((500, 6, 6, 1), np.uint8), batches.cumulative(np.ones(500))
    with jax.enable_x64(True):
        jaxpr = jax.make_jaxpr(step)(images, cdf, jax.random.key(0), jnp.int32(0)).jaxpr
    avals = [a for a in all_avals(jaxpr) if hasattr(a, "dtype")]
    assert len(avals) > 20
    assert not [a for a in avals if a.dtype == np.float64]
    assert not [a for a in avals if np.prod(a.shape) >= images.size]


def test_steps_share_one_compilation():
    drawn = jax.jit(
        chex.assert_max_traces(
            lambda key, step: batches.draw(batches.example_keys(key, step, jnp.arange(4)), 9), n=1
        )
    )
    key = jax.random.key(0)
    assert len({tuple(drawn(key, step).tolist()) for step in range(5)}) == 5
