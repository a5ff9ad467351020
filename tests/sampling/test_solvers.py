"""One step of every solver: exact flows, hand-worked numbers, the DDPM posterior, the last step."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import noise
from jdiff.sampling import Solver, solvers
from jdiff.sampling.solvers import SOLVERS

SHAPE = (1, 1, 2)
ROWS = (3, *SHAPE)  # one shape throughout: compiling is what these tests cost
NAMES = ["ddim", "heun", "ddpm", "dpmpp_2m"]


def gaussian(y, sigma):
    """D for data N(0, 1): the flow is y(s) proportional to sqrt(1 + s^2)."""
    return y / (1 + sigma**2)


def curved(y, sigma):
    """No solver may ask it at sigma = 0."""
    return jnp.where(sigma > 0, jnp.tanh(y) / (1 + sigma), jnp.nan)


EVALUATED = []  # the levels at which `counted` ran, on the host


def counted(y, sigma):
    jax.debug.callback(lambda s: EVALUATED.append(float(s)), sigma)
    return curved(y, sigma)


def zero(y, sigma):
    return jnp.zeros_like(y)


@functools.partial(jax.jit, static_argnums=(0, 1))
def step(solver, denoise, y, state, sigma, sigma_next, keys):
    return solver.step(denoise, y, state, sigma, sigma_next, keys)


def run(solver, denoise, y, sigmas):
    """Every point of a trajectory, one jitted step after another."""
    state, points = solver.init(y), [y]
    for t in range(len(sigmas) - 1):
        keys = jax.random.split(jax.random.key(t), len(y))
        y, state = step(solver, denoise, y, state, sigmas[t], sigmas[t + 1], keys)
        points.append(y)
    return points


def one_step(name, denoise, y, sigma, sigma_next, keys):
    y, levels = jnp.asarray(y, jnp.float32), (jnp.float32(sigma), jnp.float32(sigma_next))
    solver = SOLVERS[name]
    return np.asarray(step(solver, denoise, y, solver.init(y), *levels, keys)[0])


def keys_of_rows():
    return jax.random.split(jax.random.key(3), ROWS[0])


def test_the_four_names():
    assert sorted(SOLVERS) == sorted(NAMES)
    assert all(isinstance(solver, Solver) for solver in SOLVERS.values())


# Accuracy


@pytest.mark.core
@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence(name, order):
    """On the exact flow y(s) = y(S) sqrt((1 + s^2) / (1 + S^2)), log-spaced from 10 to 0.1."""
    steps = np.array([40, 80, 160])
    with jax.enable_x64(True):
        errors = []
        for num_steps in steps:
            y = jnp.full(ROWS, 3.0, jnp.float64)
            sigmas = jnp.asarray(np.geomspace(10.0, 0.1, num_steps + 1))
            last = run(SOLVERS[name], gaussian, y, sigmas)[-1]
            assert last.dtype == jnp.float64
            exact = 3.0 * math.sqrt((1 + 0.1**2) / (1 + 10.0**2))
            errors.append(abs(float(last[0, 0, 0, 0]) - exact))
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.1)


@pytest.mark.core
def test_dpmpp_2m_by_hand():
    """Two steps and the last on the uneven grid (4, 1, 0.7, 0.1), for D(y) = y / (1 + s^2)."""
    y0 = 8.0
    d0 = 8.0 / 17
    # The first step is Euler's: a quarter of y, three quarters of D.
    y1 = 2.0 + 0.75 * d0
    d1 = y1 / 2
    # Then D is read off the straight line through the last two, in lambda = -log s, in the
    # middle of the step: from 1 to 0.7 that is log(1 / 0.7) / 2 beyond the point at 1, whose
    # distance to the point at 4 is log 4.
    middle = d1 + (d1 - d0) * (math.log(1 / 0.7) / 2) / math.log(4)
    y2 = 0.7 * y1 + 0.3 * middle
    # From 0.7 to 0.1 the line is followed much further: log 7 / 2 with points log(1 / 0.7) apart.
    d2 = y2 / 1.49
    middle = d2 + (d2 - d1) * (math.log(7) / 2) / math.log(1 / 0.7)
    y3 = y2 / 7 + 6 / 7 * middle
    points = run(SOLVERS["dpmpp_2m"], gaussian, jnp.full(ROWS, y0), jnp.array([4, 1, 0.7, 0.1]))
    # float32, with differences of D enlarged threefold.
    for point, wanted in zip(points[1:], (y1, y2, y3), strict=True):
        np.testing.assert_allclose(point, np.full(ROWS, wanted), rtol=2e-6)


def test_ddim_and_heun_by_hand():
    """From 2 to 1 at y = 5 with D(y) = y / (1 + s^2): D = 1, slope (5 - 1) / 2 = 2."""
    y, sigmas = jnp.full(ROWS, 5.0), jnp.array([2.0, 1.0])
    # Euler: 5 - 2 = 3. There D = 3 / 2 and the slope is 3 / 2; their mean 7 / 4.
    assert float(run(SOLVERS["ddim"], gaussian, y, sigmas)[-1][0, 0, 0, 0]) == 3.0
    assert float(run(SOLVERS["heun"], gaussian, y, sigmas)[-1][0, 0, 0, 0]) == 3.25


# Ancestral sampling


def test_ddpm_without_noise_is_ddim(rng):
    y = jnp.asarray(10 * rng.standard_normal(ROWS), jnp.float32)
    sigmas = noise.karras(5, sigma_max=10.0)
    pairs = zip(
        run(solvers.ddpm(eta=0), curved, y, sigmas),
        run(SOLVERS["ddim"], curved, y, sigmas),
        strict=True,
    )
    for ancestral, euler in pairs:
        np.testing.assert_allclose(ancestral, euler, rtol=1e-6, atol=1e-7)
    with_noise = run(SOLVERS["ddpm"], curved, y, sigmas)
    assert np.abs(with_noise[1] - run(SOLVERS["ddim"], curved, y, sigmas)[1]).max() > 0.1


@pytest.mark.parametrize(("before", "after"), [(0.1, 0.4), (0.01, 0.9), (0.5, 0.51)])
def test_ddpm_draws_from_the_posterior(before, after, rng):
    """q(x_{t-1} | x_t, x_0) of Ho et al. 2020, eq. 6 and 7, alpha_bar from `before` to `after`."""
    alpha = before / after
    beta = 1 - alpha
    x_t = rng.standard_normal(ROWS)
    y = x_t / math.sqrt(before)
    sigma, sigma_next = (math.sqrt((1 - a) / a) for a in (before, after))
    x_0 = np.tanh(y) / (1 + sigma)  # what the denoiser says
    mean = (
        math.sqrt(after) * beta / (1 - before) * x_0
        + math.sqrt(alpha) * (1 - after) / (1 - before) * x_t
    )
    variance = (1 - after) / (1 - before) * beta
    y_next = one_step("ddpm", curved, y, sigma, sigma_next, keys_of_rows())
    # Row i is affine in a normal draw from its own key.
    z = jnp.stack([jax.random.normal(key, SHAPE) for key in keys_of_rows()])
    wanted = mean + math.sqrt(variance) * np.asarray(z)
    np.testing.assert_allclose(y_next * math.sqrt(after), wanted, atol=3e-6)


def test_ddpm_between_the_two_keeps_the_marginal_too():
    """20,000 steps from 2 to 1 with eta = 0.5 and D = 0: y' ~ N(y s_down / 2, s_up^2)."""
    n = 20_000
    keys = jax.random.split(jax.random.key(5), n)
    y = jnp.full((n, 1, 1, 1), 2.0)
    y_next, _ = step(solvers.ddpm(0.5), zero, y, (), jnp.float32(2), jnp.float32(1), keys)
    # s_up^2 = 0.5^2 (1 - (1/2)^2), and s_up^2 + s_down^2 = 1.
    s_up, s_down = math.sqrt(3) / 4, math.sqrt(13) / 4
    found = np.asarray(y_next, np.float64)
    # 4.5 standard errors: false alarms 7 in a million.
    assert found.mean() == pytest.approx(s_down, abs=4.5 * s_up / math.sqrt(n))
    assert found.var() == pytest.approx(s_up**2, rel=4.5 * math.sqrt(2 / n))


def test_ddpm_s_noise_belongs_to_the_row_s_key():
    y = np.ones(ROWS)
    first = one_step("ddpm", curved, y, 2.0, 1.0, keys_of_rows())
    reverse = jax.random.wrap_key_data(jax.random.key_data(keys_of_rows())[::-1])
    turned = one_step("ddpm", curved, y, 2.0, 1.0, reverse)
    np.testing.assert_array_equal(turned, first[::-1])
    assert len(np.unique(first)) == first.size


@pytest.mark.core
def test_ddpm_is_finite_where_the_textbook_form_is_not(rng):
    """karras(2) falls from 80 to 0.002 at once, and sqrt(s'^2 - s_up^2) turns NaN there."""
    grid = noise.karras(2)
    ratio = grid[1] / grid[0]
    s_up = grid[1] * np.sqrt(np.float32(1) - ratio**2)
    assert s_up >= grid[1]  # rounded: nothing is left for s_down
    y = jnp.asarray(80 * rng.standard_normal(ROWS), jnp.float32)
    for point in run(SOLVERS["ddpm"], gaussian, y, grid):
        assert np.all(np.isfinite(point))


@pytest.mark.parametrize("eta", [-0.1, 1.5, math.nan])
def test_eta_out_of_range_is_refused(eta):
    with pytest.raises(ValueError, match=r"eta must be in \[0, 1\]; got"):
        solvers.ddpm(eta)


# The last step


@pytest.mark.core
@pytest.mark.parametrize("name", NAMES)
def test_the_last_step_returns_the_denoiser_s_answer(name, rng):
    y = jnp.asarray(3 * rng.standard_normal(ROWS), jnp.float32)
    points = run(SOLVERS[name], curved, y, jnp.array([4.0, 1.0, 0.5, 0.0]))
    np.testing.assert_allclose(points[-1], np.tanh(points[-2]) / 1.5, rtol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_single_step_is_the_denoiser(name, rng):
    y = jnp.asarray(3 * rng.standard_normal(ROWS), jnp.float32)
    points = run(SOLVERS[name], curved, y, jnp.array([4.0, 0.0]))
    np.testing.assert_allclose(points[-1], np.tanh(y) / 5, rtol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_grid_per_row_differentiates_and_asks_for_no_zero(name):
    """Under vmap both branches of heun run, for the row at its last step as well."""
    solver = SOLVERS[name]

    def moved(scale, sigma_next):
        y = scale * jnp.ones(ROWS)
        keys = keys_of_rows()
        return jnp.sum(solver.step(counted, y, solver.init(y), jnp.float32(1), sigma_next, keys)[0])

    EVALUATED.clear()
    gradients = jax.jit(jax.vmap(jax.value_and_grad(moved), (None, 0)))
    values, slopes = gradients(jnp.float32(1), jnp.array([0.0, 0.5]))
    jax.effects_barrier()
    assert min(EVALUATED) > 0
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(slopes))
    # The last step: the sum of tanh(scale) / 2 over six values.
    assert float(slopes[0]) == pytest.approx(3 / math.cosh(1) ** 2, rel=1e-5)


# Cost


@pytest.mark.core
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_steps", [1, 4])
def test_evaluations_are_as_many_as_nfe_says_and_none_at_zero(name, num_steps):
    EVALUATED.clear()
    sigmas = noise.karras(num_steps, sigma_max=4.0)
    run(SOLVERS[name], counted, jnp.ones(ROWS), sigmas)
    jax.effects_barrier()
    assert len(EVALUATED) == SOLVERS[name].nfe(num_steps)
    assert len(EVALUATED) == (2 * num_steps - 1 if name == "heun" else num_steps)
    # heun looks at both ends of a step, but for the last one.
    twice = np.repeat(sigmas, 2)[1:-2] if name == "heun" else sigmas[:-1]
    np.testing.assert_allclose(sorted(EVALUATED), sorted(twice), rtol=1e-6)


def test_memory_is_what_the_solver_says():
    y = jnp.ones(ROWS)
    for name in ("ddim", "heun", "ddpm"):
        assert SOLVERS[name].init(y) == ()
    x_last, sigma_last = SOLVERS["dpmpp_2m"].init(y)
    assert x_last.shape == y.shape
    assert sigma_last == 0
    state = step(
        SOLVERS["dpmpp_2m"],
        curved,
        y,
        (x_last, sigma_last),
        jnp.float32(2),
        jnp.float32(1),
        keys_of_rows(),
    )[1]
    np.testing.assert_allclose(state[0], math.tanh(1) / 3 * np.ones(ROWS), rtol=1e-6)
    assert state[1] == 2


def test_stateless_makes_a_solver_of_a_function():
    halve = solvers.stateless(lambda denoise, y, sigma, sigma_next, keys: y / 2)
    points = run(halve, curved, jnp.ones(ROWS), jnp.array([2.0, 1.0, 0.0]))
    assert float(points[-1][0, 0, 0, 0]) == 0.25
    assert halve.nfe(7) == 7
