"""Whole trajectories: their noise, their batches, their compilations, their law, their refusals."""

import functools
import math
import re

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jdiff import noise, training
from jdiff.denoisers import LinearDenoiser, OptimalDenoiser, wrap
from jdiff.sampling import sample, sample_key, sampler, solve, solvers
from jdiff.sampling.solvers import SOLVERS

SHAPE = (2, 2, 1)
GRID = noise.karras(4, sigma_min=0.1, sigma_max=10.0)
DEVICES = jax.device_count()


def refused(error, *words):
    """pytest.raises(error) whose message holds all words, in order."""
    return pytest.raises(error, match=".*".join(re.escape(word) for word in words))


def key(seed=7):
    return jax.random.key(seed)


def identity(y, sigma):
    return y


def zero(y, sigma):
    return jnp.zeros_like(y)


EVALUATED = []  # the levels at which `watched` ran, on the host


def watched(y, sigma):
    jax.debug.callback(lambda s: EVALUATED.append(float(s)), sigma)
    return jnp.where(sigma > 0, jnp.tanh(y) / (1 + sigma), jnp.nan)


TRACED = []  # the rows that `Counted` was traced with


class Counted(flax.struct.PyTreeNode):
    mean: jax.Array  # scalar
    image_shape: tuple = flax.struct.field(pytree_node=False, default=SHAPE)
    sigmas: None = None

    def __call__(self, y, sigma, labels=None):
        TRACED.append(len(y))
        return self.mean + (y - self.mean) / (1 + sigma**2)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (6, *SHAPE), dtype=np.uint8)


@pytest.fixture(scope="module")
def linear(images):
    return LinearDenoiser.fit(images, rank=3)


@pytest.fixture(scope="module")
def optimal(images):
    return OptimalDenoiser.fit(images, labels=[0, 1, 0, 1, 0, 1])


# Noise


@pytest.mark.core
def test_starting_noise_depends_on_key_and_number_only():
    start = functools.partial(sample, wrap(identity, SHAPE), sigmas=[2.5, 0.0])
    reference = np.asarray(start(key(), 37, batch_size=16))
    assert reference.dtype == np.float32
    for i in (0, 5, 36):
        # SAMPLE = 1, the sample's number, and 0 for the start.
        own = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key(), 1), i), 0)
        np.testing.assert_allclose(reference[i], 2.5 * jax.random.normal(own, SHAPE), rtol=1e-6)
    for count, batch_size in [(5, 16), (5, 4)]:
        found = start(key(), count, batch_size=batch_size)
        np.testing.assert_array_equal(found, reference[:count])
    assert len(np.unique(reference)) == reference.size
    assert np.all(np.asarray(start(key(8), 37, batch_size=16)) != reference)


def test_a_step_s_noise_depends_on_key_number_and_step_only():
    # From 0 with D = 0 the first step leaves s_up z alone: s' sqrt(1 - 1/4) z.
    found = {}
    for rows in (2, 9):
        start = jnp.zeros((rows, *SHAPE))
        grid = [2.0, 1.0, 0.5, 0.0]
        _, way = solve(
            wrap(zero, SHAPE), start, grid, solver="ddpm", key=key(), record=("y", "x_hat")
        )
        found[rows] = np.asarray(way["y"])
    np.testing.assert_array_equal(found[2], found[9][:, :2])
    for i in (0, 1):
        own = jax.random.fold_in(sample_key(key(), i), 1)  # step 0
        wanted = math.sqrt(3) / 2 * jax.random.normal(own, SHAPE)
        np.testing.assert_allclose(found[2][1, i], wanted, rtol=1e-6)


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_samples_do_not_depend_on_batch_or_count(solver, linear):
    draw = functools.partial(sample, linear, solver=solver, sigmas=GRID)
    reference = np.asarray(draw(key(), 37, batch_size=64))
    others = [(5, 64), (37, 16), (37, 4)] if solver == "ddpm" else [(5, 16)]
    for count, batch_size in others:
        found = draw(key(), count, batch_size=batch_size)
        # Matmuls of other shapes sum in another order: float32 on numbers up to 10, four steps.
        np.testing.assert_allclose(found, reference[:count], atol=1e-5)
    assert len(np.unique(reference)) == reference.size


def test_all_keys_derived_from_one_key_differ():
    """The starts and steps of 20 samples, and training's: its own, its steps', its examples'."""
    found = [jax.random.fold_in(key(), constant) for constant in (sampler.SAMPLE, training.TRAIN)]
    for i in range(20):
        own = sample_key(key(), i)
        found += [own] + [jax.random.fold_in(own, t) for t in range(1 + 18)]
    of_training = jax.random.fold_in(key(), training.TRAIN)
    for purpose in range(3):
        inner = jax.random.fold_in(of_training, purpose)
        found.append(inner)
        for step in range(20):
            of_step = jax.random.fold_in(inner, step)
            found += [of_step] + [jax.random.fold_in(of_step, i) for i in range(5)]
    data = np.stack([jax.random.key_data(k) for k in found])
    assert len(np.unique(data, axis=0)) == len(found) == 2 + 20 * 20 + 3 * (1 + 20 * 6)


# The trajectory


@functools.partial(jax.jit, static_argnums=0)
def one_step(solver, y, state, sigma, sigma_next, keys):
    return solver.step(watched, y, state, sigma, sigma_next, keys)


def by_steps(solver, start, sigmas):
    """The contract of `solve`, one step after another: all y, and the end."""
    y, state, way = start, solver.init(start), []
    for t in range(len(sigmas) - 1):
        way.append(y)
        keys = [jax.random.fold_in(sample_key(key(), i), t + 1) for i in range(len(y))]
        # As data: to jax a stacked key is a used one.
        keys = jax.random.wrap_key_data(jnp.stack([jax.random.key_data(k) for k in keys]))
        y, state = one_step(solver, y, state, sigmas[t], sigmas[t + 1], keys)
    return np.stack(way), y


@pytest.mark.core
@pytest.mark.parametrize("name", list(SOLVERS))
def test_solve_is_one_step_after_another(name, rng):
    start = jnp.asarray(10 * rng.standard_normal((3, *SHAPE)), jnp.float32)
    way, end = by_steps(SOLVERS[name], start, GRID)
    jax.effects_barrier()
    EVALUATED.clear()
    found, recorded = solve(
        wrap(watched, SHAPE), start, GRID, solver=name, key=key(), record=("y", "x_hat")
    )
    jax.effects_barrier()
    # The cost, counted in the compiled program; never at sigma = 0, where `watched` gives NaN.
    assert len(EVALUATED) == DEVICES * SOLVERS[name].nfe(4)
    assert min(EVALUATED) == GRID[-2]
    np.testing.assert_allclose(found, end, atol=2e-6)
    assert set(recorded) == {"y", "x_hat"}
    np.testing.assert_array_equal(recorded["y"][0], start)
    np.testing.assert_allclose(recorded["y"], way, atol=1e-5)  # numbers up to 30
    levels = GRID[:-1].reshape(4, 1, 1, 1, 1)
    np.testing.assert_allclose(recorded["x_hat"], np.tanh(way) / (1 + levels), atol=1e-5)
    np.testing.assert_array_equal(recorded["x_hat"][-1], found)


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
def test_sample_is_solve_from_its_own_start(name, linear):
    drawn = sample(linear, key(), 4, sigmas=GRID, solver=name)
    start = GRID[0] * jnp.stack(
        [jax.random.normal(jax.random.fold_in(sample_key(key(), i), 0), SHAPE) for i in range(4)]
    )
    np.testing.assert_allclose(solve(linear, start, GRID, solver=name, key=key()), drawn, atol=1e-5)
    # A Solver is as good as its name.
    np.testing.assert_array_equal(
        sample(linear, key(), 4, sigmas=GRID, solver=SOLVERS[name]), drawn
    )


def test_record_keeps_what_was_asked_for():
    denoiser, start = wrap(zero, SHAPE), np.ones((2, *SHAPE))
    alone = solve(denoiser, start, [2.0, 1.0, 0.0])
    assert isinstance(alone, jax.Array)
    assert alone.shape == (2, *SHAPE)
    end, way = solve(denoiser, start, [2.0, 1.0, 0.0], record=["x_hat"])
    np.testing.assert_array_equal(end, alone)
    assert {name: array.shape for name, array in way.items()} == {"x_hat": (2, 2, *SHAPE)}


def test_without_a_grid_it_is_karras_18(linear):
    np.testing.assert_array_equal(
        sample(linear, key(), 2), sample(linear, key(), 2, sigmas=noise.karras(18))
    )


def test_ddpm_stays_finite_from_80_to_0_002(linear):
    found = np.asarray(sample(linear, key(), 4, sigmas=noise.karras(2), solver="ddpm"))
    assert np.all(np.isfinite(found))


# Compilations


@pytest.mark.core
def test_one_compilation_serves_any_number_of_samples_and_any_denoiser_of_the_class():
    batch = 8 * DEVICES  # a trial trace of one row looks for convolutions
    TRACED.clear()
    first = sample(Counted(jnp.float32(0)), key(), 3, sigmas=GRID, batch_size=batch)
    once = TRACED.count(8)
    assert once >= 1
    for count in (1, 9, 20):
        found = sample(Counted(jnp.float32(0)), key(), count, sigmas=GRID, batch_size=batch)
        assert len(found) == count
    other = sample(Counted(jnp.float32(1)), key(), 3, sigmas=2 * GRID, batch_size=batch)
    assert not np.allclose(other, first)
    assert TRACED.count(8) == once
    # Another batch size is another program.
    sample(Counted(jnp.float32(0)), key(), 3, sigmas=GRID, batch_size=2 * batch)
    assert TRACED.count(16) == once


@pytest.mark.parametrize(("count", "rows"), [(5, 8), (300, 256)])
def test_the_default_batch_is_a_power_of_two_and_256_a_device(count, rows):
    TRACED.clear()
    sample(Counted(jnp.float32(0)), key(), count, sigmas=[1.0, 0.0])
    per_device = min(-(-rows // DEVICES), 256) if count <= 256 * DEVICES else 256
    assert set(TRACED) <= {1, per_device}
    assert per_device in TRACED


# Laws


def gains(name, eigenvalues, sigmas):
    """What a sampler multiplies each component of y - mean by, float64."""
    product = np.ones_like(eigenvalues)
    slope = lambda s: s / (eigenvalues + s * s)  # (y - D) / s per unit of y - mean
    for s, s_next in zip(sigmas[:-1], sigmas[1:], strict=True):
        if name == "ddim" or s_next == 0:
            product *= (eigenvalues + s * s_next) / (eigenvalues + s * s)
        else:
            euler = 1 + (s_next - s) * slope(s)
            product *= 1 + (s_next - s) * (slope(s) + slope(s_next) * euler) / 2
    return product


@pytest.mark.core
@pytest.mark.parametrize("name", ["ddim", "heun"])
def test_a_linear_denoiser_s_samples_are_an_affine_map_of_the_noise(name, linear, rng):
    grid = noise.karras(5).astype(np.float64)
    start = 80 * rng.standard_normal((4, *SHAPE))
    basis, mean = (np.asarray(v, np.float64) for v in (linear.basis, linear.mean))
    gain = gains(name, np.asarray(linear.eigenvalues, np.float64), grid)
    # Directions without variance shrink by s'/s a step, to nothing.
    wanted = mean + ((start.reshape(4, -1) - mean) @ basis * gain) @ basis.T
    found = np.asarray(solve(linear, start, grid, solver=name)).reshape(4, -1)
    # Numbers from 200 down to 1 in float32.
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_linear_denoiser_s_samples_are_gaussian_of_the_right_variance(linear):
    n = 1024
    grid = noise.karras(5)
    found = np.asarray(sample(linear, key(), n, sigmas=grid), np.float64).reshape(n, -1)
    eigenvalues = np.asarray(linear.eigenvalues, np.float64)
    gain = gains("ddim", eigenvalues, grid.astype(np.float64))
    basis, mean = np.asarray(linear.basis), np.asarray(linear.mean)
    whitened = (found - mean) @ basis / (80 * gain) + mean @ basis / 80
    # Standard normal: three tests at 1e-4 each fail for one key in 3,000.
    for component, own, eigenvalue in zip(whitened.T, 80 * gain, eigenvalues, strict=True):
        assert scipy.stats.kstest(component, "norm").pvalue > 1e-4
        # Five steps are too few for the data's own variance: that law must fail.
        assert scipy.stats.kstest(component * own / math.sqrt(eigenvalue), "norm").pvalue < 1e-4
    np.testing.assert_allclose(found - mean, (found - mean) @ basis @ basis.T, atol=1e-4)


def distances(found, images):
    """RMS distance of each sample to each training image, model units."""
    known = images.reshape(len(images), -1) / 127.5 - 1
    differences = np.asarray(found).reshape(len(found), 1, -1) - known
    return np.sqrt(np.mean(differences**2, axis=-1))


def test_the_optimal_denoiser_gives_training_images_back(optimal, images):
    found = distances(sample(optimal, key(), 16), images)
    assert found.min(1).max() < 1e-3
    assert len(set(found.argmin(1))) > 2  # not one of them always


def test_labels_choose_among_the_classes_and_follow_their_sample(optimal, images):
    labels = np.arange(16) % 2
    found = sample(optimal, key(), 16, labels=labels, sigmas=noise.karras(18))
    nearest = distances(found, images)
    assert nearest.min(1).max() < 1e-3
    np.testing.assert_array_equal(nearest.argmin(1) % 2, labels)  # class = number modulo 2
    # One label for all; and the null class is no label.
    for label in (0, 1, 2):
        one = sample(optimal, key(), 16, labels=label)
        wanted = found[labels == label] if label < 2 else sample(optimal, key(), 16)
        np.testing.assert_allclose(one[labels == label] if label < 2 else one, wanted, atol=1e-5)


def test_labels_stay_with_their_sample_in_any_batch():
    said = wrap(lambda y, sigma, labels: 0 * y + labels[:, None, None, None], SHAPE)
    found = sample(said, key(), 10, labels=np.arange(10), sigmas=GRID, batch_size=4)
    np.testing.assert_array_equal(found[:, 0, 0, 0], np.arange(10))


# Denoisers with levels of their own


def test_levels_of_its_own_are_the_default_grid():
    seen = []

    def function(y, sigma):
        jax.debug.callback(lambda s: seen.append(float(s)), sigma)
        return y / (1 + sigma**2)

    sample(wrap(function, SHAPE, sigmas=[4.0, 1.0, 0.5]), key(), 2)
    jax.effects_barrier()
    assert sorted(set(seen), reverse=True) == [4.0, 1.0, 0.5]


@pytest.mark.core
def test_other_levels_are_refused_before_anything_runs():
    def function(y, sigma):
        raise AssertionError("traced")

    denoiser = wrap(function, SHAPE, sigmas=[4.0, 1.0, 0.5])
    message = "sigmas asks for level 2, but this FunctionDenoiser is defined only at"
    with refused(ValueError, message):
        sample(denoiser, key(), 2, sigmas=[4.0, 2.0, 0.0])
    with refused(ValueError, message):
        solve(denoiser, np.zeros((1, *SHAPE)), [4.0, 2.0, 0.0])


# Bad input


@pytest.mark.core
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"denoiser": identity}, TypeError, ["denoiser must be callable", "got function."]),
        ({"denoiser": None}, TypeError, ["denoiser must be callable", "got NoneType."]),
        ({"key": 0}, TypeError, ["key must be one typed key", "got 0"]),
        ({"key": "raw"}, TypeError, ["key must be one typed key, as jax.random.key(0) makes it"]),
        ({"key": "rbg"}, TypeError, ["key must be a threefry2x32 key", "got", "rbg"]),
        ({"num_samples": 0}, ValueError, ["num_samples must be at least 1; got 0"]),
        ({"num_samples": 2.0}, TypeError, ["num_samples must be a whole number; got 2.0"]),
        ({"batch_size": 0}, ValueError, ["batch_size must be at least 1; got 0"]),
        ({"solver": "huen"}, ValueError, ["solver is 'huen'. Did you mean 'heun'", "dpmpp_2m"]),
        ({"solver": 3}, ValueError, ["solver is 3.", "Accepted: ddim, ddpm, dpmpp_2m, heun"]),
        ({"sigmas": [1.0, 2.0, 0.0]}, ValueError, ["sigmas must decrease strictly to 0"]),
        ({"sigmas": [2.0, 1.0]}, ValueError, ["sigmas must decrease strictly to 0"]),
        ({"sigmas": [2.0, 0.0, -1.0]}, ValueError, ["sigmas must decrease strictly to 0"]),
        ({"sigmas": [0.0]}, ValueError, ["sigmas must be a one-dimensional grid"]),
        ({"sigmas": "karras:18"}, ValueError, ["sigmas must be a one-dimensional grid"]),
        ({"labels": [0, 2]}, ValueError, ["labels were given", "LinearDenoiser has no classes"]),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",  # no addresses in names
)
def test_sample_refuses(change, error, words, linear):
    keys = {"raw": jax.random.PRNGKey(0), "rbg": jax.random.key(0, impl="rbg")}
    arguments = {"denoiser": linear, "key": key(), "num_samples": 2, **change}
    arguments["key"] = keys.get(arguments["key"], arguments["key"]) if "key" in change else key()
    with refused(error, *words):
        sample(**arguments)


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        ([0, 3], ValueError, ["labels must lie in 0 .. 2; got 0 .. 3"]),
        ([-1, 0], ValueError, ["labels must lie in 0 .. 2; got -1 .. 0"]),
        ([0, 1, 0], ValueError, ["labels must have shape (2,); got (3,)"]),
        ([0.0, 1.0], TypeError, ["labels must be integers; got dtype float64"]),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, error, words, optimal):
    with refused(error, *words):
        sample(optimal, key(), 2, labels=labels)
    with refused(error, *words):
        solve(optimal, np.zeros((2, *SHAPE)), GRID, labels=labels)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"denoiser": identity}, TypeError, ["denoiser must be callable", "got function."]),
        ({"y": np.zeros((2, 2, 1))}, ValueError, ["y must be a float array [B, 2, 2, 1]; got"]),
        ({"y": np.zeros((1, 3, 2, 1))}, ValueError, ["y must be", "got float32 [1, 3, 2, 1]"]),
        ({"y": np.zeros((1, *SHAPE), int)}, ValueError, ["y must be a float array", "got int32"]),
        ({"y": np.full((1, *SHAPE), np.nan)}, ValueError, ["y holds NaN or infinite values"]),
        ({"y": np.full((1, *SHAPE), np.inf)}, ValueError, ["y holds NaN or infinite values"]),
        ({"record": ("y", "x")}, ValueError, ["record is 'x'.", "Accepted: x_hat, y."]),
        ({"record": ("xhat",)}, ValueError, ["record is 'xhat'. Did you mean 'x_hat'"]),
        ({"solver": "dmp_2m"}, ValueError, ["solver is 'dmp_2m'. Did you mean 'dpmpp_2m'"]),
        ({"sigmas": [1.0]}, ValueError, ["sigmas must be a one-dimensional grid"]),
        ({"key": 3}, TypeError, ["key must be one typed key", "got 3"]),
    ],
    ids=lambda value: str(list(value)[0]) if isinstance(value, dict) else "",
)
def test_solve_refuses(change, error, words, linear):
    arguments = {"denoiser": linear, "y": np.zeros((1, *SHAPE)), "sigmas": GRID, **change}
    with refused(error, *words):
        solve(**arguments)


@pytest.mark.parametrize("solver", ["ddpm", solvers.ddpm(1.0), solvers.ddpm(eta=0.5)])
def test_a_solver_that_draws_needs_a_key(solver, linear):
    with refused(ValueError, "key is None, but this solver draws noise: pass jax.random.key"):
        solve(linear, np.zeros((1, *SHAPE)), GRID, solver=solver)


def test_a_solver_that_draws_nothing_needs_none(linear):
    start = np.ones((1, *SHAPE))
    np.testing.assert_allclose(
        solve(linear, start, GRID, solver=solvers.ddpm(eta=0)),
        solve(linear, start, GRID, solver="ddim"),
        atol=1e-6,
    )
