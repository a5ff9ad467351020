"""Every formula of noise.py against float64 written out here; every message it can give."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jdiff import noise

GRIDS = [noise.karras, noise.log_linear, noise.vp_linear, noise.vp_cosine]
# Grids are computed in float64 and rounded to float32 once: half a unit in the last place.
ONE_ROUNDING = 2.0**-24


def refused(error, *words):
    """pytest.raises(error) whose message holds all words, in order."""
    return pytest.raises(error, match=".*".join(re.escape(word) for word in words))


# Sampling grids


@pytest.mark.core
@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.__name__)
@pytest.mark.parametrize("num_steps", [1, 2, 18, 1000])
def test_every_grid_decreases_strictly_to_zero(grid, num_steps):
    sigmas = grid(num_steps)
    assert sigmas.dtype == np.float32
    assert sigmas.shape == (num_steps + 1,)
    assert np.all(np.diff(sigmas) < 0)
    assert sigmas[-1] == 0
    assert np.all(sigmas[:-1] > 0)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.__name__)
def test_one_step_starts_at_the_largest_level(grid):
    assert grid(1)[0] == grid(1000)[0]


@pytest.mark.core
@pytest.mark.parametrize(
    ("num_steps", "low", "high", "rho"), [(18, 0.002, 80.0, 7.0), (5, 0.1, 3.0, 2.5)]
)
def test_karras_is_equation_5(num_steps, low, high, rho):
    wanted = []
    for i in range(num_steps):
        ends = high ** (1 / rho), low ** (1 / rho)
        wanted.append((ends[0] + i / (num_steps - 1) * (ends[1] - ends[0])) ** rho)
    found = noise.karras(num_steps, sigma_min=low, sigma_max=high, rho=rho)
    np.testing.assert_allclose(found[:-1], wanted, rtol=2 * ONE_ROUNDING)


def test_karras_by_hand():
    # rho = 2: square roots 3, 2, 1.
    np.testing.assert_array_equal(noise.karras(3, 1.0, 9.0, 2.0), [9, 4, 1, 0])


def test_karras_with_a_large_rho_is_log_linear():
    # The next order in 1 / rho is log(80 / 0.002)^2 / (8 rho) = 14 / rho.
    np.testing.assert_allclose(noise.karras(9, rho=1e6), noise.log_linear(9), rtol=5e-5)


def test_log_linear_has_one_ratio():
    sigmas = noise.log_linear(7, sigma_min=0.01, sigma_max=10.0)[:-1].astype(np.float64)
    # (10 / 0.01)^(1/6) = 1000^(1/6) = sqrt(10); two rounded levels a ratio.
    np.testing.assert_allclose(sigmas[:-1] / sigmas[1:], math.sqrt(10), rtol=4 * ONE_ROUNDING)
    np.testing.assert_allclose(sigmas[[0, -1]], [10, 0.01], rtol=ONE_ROUNDING)


@pytest.mark.core
def test_vp_linear_is_the_product_of_ddpm_s_alphas():
    product, wanted = 1.0, []
    for t in range(1000):
        product *= 1 - (1e-4 + t / 999 * (0.02 - 1e-4))
        wanted.append(math.sqrt((1 - product) / product))
    # The first entries lose digits in 1 - product: 1e-16 / 1e-4.
    np.testing.assert_allclose(noise.vp_linear(1000)[:-1], wanted[::-1], rtol=2 * ONE_ROUNDING)
    # Ho et al. 2020: alpha_bar_T = 4.04e-5.
    assert noise.vp_linear(1)[0] == pytest.approx(157.4, abs=0.05)
    assert noise.vp_linear(1000)[-2] == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)), rel=1e-6)


def test_vp_linear_takes_other_betas():
    # One beta for all: alpha_bar_t = 0.99^t, or nearly so.
    sigmas = noise.vp_linear(1000, beta_min=0.01, beta_max=0.0100001).astype(np.float64)
    alpha_bar = 0.99 ** np.arange(1000, 0, -1)
    np.testing.assert_allclose(sigmas[:-1], np.sqrt((1 - alpha_bar) / alpha_bar), rtol=1e-4)


@pytest.mark.core
def test_vp_cosine_is_equation_17():
    f = lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    sigmas = noise.vp_cosine(1000).astype(np.float64)
    alpha_bar = np.array([f(t / 1000) / f(0) for t in range(999, 0, -1)])
    np.testing.assert_allclose(
        sigmas[1:-1], np.sqrt((1 - alpha_bar) / alpha_bar), rtol=2 * ONE_ROUNDING
    )
    # At t = 1 f vanishes; the beta there is capped at 0.999.
    capped = alpha_bar[0] * 0.001
    assert sigmas[0] == pytest.approx(math.sqrt((1 - capped) / capped), rel=2 * ONE_ROUNDING)


def test_vp_cosine_offset_sets_the_smallest_level():
    f = lambda t: math.cos((t + 0.1) / 1.1 * math.pi / 2) ** 2
    ratio = f(0.001) / f(0)
    assert noise.vp_cosine(1000, s=0.1)[-2] == pytest.approx(math.sqrt(1 / ratio - 1), rel=1e-6)


@pytest.mark.parametrize("grid", [noise.vp_linear, noise.vp_cosine], ids=lambda g: g.__name__)
@pytest.mark.parametrize("num_steps", [2, 10, 333])
def test_vp_grids_are_even_subsets_of_the_thousand(grid, num_steps):
    whole, part = grid(1000), grid(num_steps)
    places = np.array([np.flatnonzero(whole == level)[0] for level in part[:-1]])
    assert places[0] == 0
    assert places[-1] == 999
    spacing = 999 / (num_steps - 1)
    assert np.all(np.abs(np.diff(places) - spacing) < 1)


@pytest.mark.parametrize(
    ("grid", "arguments", "error", "words"),
    [
        (noise.karras, {"num_steps": 0}, ValueError, "num_steps must be at least 1; got 0"),
        (noise.karras, {"num_steps": 2.0}, TypeError, "num_steps must be a whole number; got 2.0"),
        (noise.karras, {"sigma_min": 0}, ValueError, "sigma_min must be in (0, inf); got 0"),
        (noise.karras, {"sigma_max": 0.002}, ValueError, "sigma_max must be in (0.002, inf); got"),
        (noise.karras, {"rho": 0}, ValueError, "rho must be in (0, inf); got 0"),
        (noise.karras, {"rho": math.nan}, ValueError, "rho must be in (0, inf); got nan"),
        (noise.log_linear, {"num_steps": -1}, ValueError, "num_steps must be at least 1; got -1"),
        (noise.log_linear, {"sigma_min": -1}, ValueError, "sigma_min must be in (0, inf); got -1"),
        (noise.log_linear, {"sigma_min": 90}, ValueError, "sigma_max must be in (90.0, inf); got"),
        (noise.vp_linear, {"num_steps": 1001}, ValueError, "num_steps must be from 1 to 1000; got"),
        (noise.vp_linear, {"beta_min": 0}, ValueError, "beta_min must be in (0, 1); got 0"),
        (noise.vp_linear, {"beta_min": 0.5}, ValueError, "beta_max must be in (0.5, 1); got 0.02"),
        (noise.vp_linear, {"beta_max": 1.0}, ValueError, "beta_max must be in (0.0001, 1); got 1"),
        (noise.vp_cosine, {"num_steps": 0}, ValueError, "num_steps must be from 1 to 1000; got 0"),
        (noise.vp_cosine, {"s": 0}, ValueError, "s must be in (0, inf); got 0"),
        (noise.vp_cosine, {"s": "a"}, TypeError, "s must be a number; got 'a'"),
    ],
)
def test_grids_refuse(grid, arguments, error, words):
    with refused(error, words):
        grid(**{"num_steps": 5, **arguments})


@pytest.mark.parametrize("name", list(noise.GRIDS))
def test_parse_grid_reads_every_name(name):
    np.testing.assert_array_equal(noise.parse_grid(f"{name}:7"), noise.GRIDS[name](7))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("karas:18", ["sigmas is 'karas'. Did you mean 'karras'?", "Accepted: karras, log_linear"]),
        ("karras", ["sigmas must read NAME:STEPS, for example karras:18; got 'karras'"]),
        ("karras:", ["sigmas must read NAME:STEPS", "got 'karras:'"]),
        ("karras:-3", ["sigmas must read NAME:STEPS", "got 'karras:-3'"]),
        ("karras:1.5", ["sigmas must read NAME:STEPS", "got 'karras:1.5'"]),
        ("karras:0", ["num_steps must be at least 1; got 0"]),
    ],
)
def test_parse_grid_refuses(spec, words):
    with refused(ValueError, *words):
        noise.parse_grid(spec)


# Conversions and corruption


@pytest.mark.core
def test_alpha_bar_and_sigma_are_inverse():
    sigma = np.geomspace(1e-3, 1e3, 25)
    alpha_bar = noise.sigma_to_alpha_bar(sigma)
    # 1 - alpha_bar keeps 16 digits less the 6 of sigma^2.
    np.testing.assert_allclose(noise.alpha_bar_to_sigma(alpha_bar), sigma, rtol=1e-9)
    assert noise.sigma_to_alpha_bar(1.0) == 0.5
    assert noise.alpha_bar_to_sigma(0.5) == 1.0
    assert noise.alpha_bar_to_sigma(1.0) == 0.0
    # By hand: sigma^2 = 0.9 / 0.1.
    assert noise.alpha_bar_to_sigma(0.1) == pytest.approx(3.0)


def test_corrupt_is_ddpm_s_x_t_rescaled(rng):
    x, z = rng.standard_normal((2, 3, 2, 2, 1))
    alpha_bar = np.array([0.9, 0.5, 0.01]).reshape(3, 1, 1, 1)
    x_t = np.sqrt(alpha_bar) * x + np.sqrt(1 - alpha_bar) * z
    sigma = jnp.asarray(noise.alpha_bar_to_sigma(alpha_bar).ravel())
    y = jax.jit(noise.corrupt)(jnp.asarray(x), sigma, jnp.asarray(z))
    # Numbers up to 30 in float32.
    np.testing.assert_allclose(y, x_t / np.sqrt(alpha_bar), rtol=1e-5, atol=1e-5)


def test_a_scalar_level_is_the_same_level_in_every_row(rng):
    x, z = (jnp.asarray(v, jnp.float32) for v in rng.standard_normal((2, 3, 2, 2, 1)))
    scalar = noise.corrupt(x, jnp.float32(0.7), z)
    np.testing.assert_array_equal(scalar, noise.corrupt(x, jnp.full(3, 0.7), z))
    np.testing.assert_allclose(scalar, np.asarray(x) + 0.7 * np.asarray(z), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("values", [2.0, [2.0, 3.0]], ids=["scalar", "rows"])
def test_per_row_multiplies_rows(values):
    like = jnp.ones((2, 1, 3, 1))
    product = noise.per_row(jnp.asarray(values), like) * like
    np.testing.assert_array_equal(
        product, np.broadcast_to(np.reshape(np.broadcast_to(values, 2), (2, 1, 1, 1)), like.shape)
    )


# Training distributions

LOG_LAWS = {
    "edm_lognormal": scipy.stats.norm(-1.2, 1.2),
    "log_uniform": scipy.stats.uniform(math.log(0.002), math.log(80) - math.log(0.002)),
}
WRONG_LAWS = {
    "edm_lognormal": scipy.stats.norm(-1.2, 1.4),
    "log_uniform": scipy.stats.uniform(math.log(0.002), math.log(100) - math.log(0.002)),
}


@pytest.fixture(scope="module")
def log_draws():
    def draw(seed, name):
        keys = jax.random.split(jax.random.key(seed), 20_000)
        levels = jax.jit(jax.vmap(noise.training_noise(name)))(keys)
        return np.log(np.asarray(levels, np.float64))

    return {name: draw(seed, name) for seed, name in enumerate(noise.TRAINING_NOISE)}


@pytest.mark.parametrize("name", list(noise.TRAINING_NOISE))
def test_training_levels_follow_their_law(log_draws, name):
    found, law = log_draws[name], LOG_LAWS[name]
    # One fixed draw; of other keys one in 10,000 would fail this.
    assert scipy.stats.kstest(found, law.cdf).pvalue > 1e-4
    assert scipy.stats.kstest(found, WRONG_LAWS[name].cdf).pvalue < 1e-6
    # Moments at 4.5 standard errors: false alarms 7 in a million each. The variance's error is
    # sqrt((kurtosis + 2) / n) relative to it.
    n = len(found)
    assert abs(found.mean() - law.mean()) < 4.5 * law.std() / math.sqrt(n)
    spread = math.sqrt((float(law.stats("k")) + 2) / n)
    assert abs(found.var() / law.var() - 1) < 4.5 * spread


def test_log_uniform_stays_inside_its_ends(log_draws):
    found = log_draws["log_uniform"]
    assert math.log(0.002) - 1e-6 <= found.min() < math.log(0.002) + 0.01
    assert math.log(80) - 0.01 < found.max() <= math.log(80) + 1e-6


@pytest.mark.core
@pytest.mark.parametrize("level", [0.5, 2, np.float32(0.25)], ids=repr)
def test_one_level_is_drawn_always(level):
    draw = noise.training_noise(level)
    for seed in (0, 1):
        found = draw(jax.random.key(seed))
        assert found.dtype == jnp.float32
        assert found == level


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ("edm", ValueError, ["noise is 'edm'.", "Accepted: edm_lognormal, log_uniform"]),
        ("log_unifrom", ValueError, ["noise is 'log_unifrom'. Did you mean 'log_uniform'"]),
        (0.0, ValueError, ["noise must be in (0, inf); got 0.0"]),
        (-1, ValueError, ["noise must be in (0, inf); got -1"]),
        (math.inf, ValueError, ["noise must be in (0, inf); got inf"]),
        (None, TypeError, ["noise must be a number; got None"]),
        (True, TypeError, ["noise must be a number; got True"]),
    ],
)
def test_training_noise_refuses(value, error, words):
    with refused(error, *words):
        noise.training_noise(value)
