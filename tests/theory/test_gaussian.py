"""The Gaussian laws against the real sampler's own linear map, and against closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdiff
from jdiff import noise
from jdiff.denoisers import (
    BottleneckDenoiser,
    EquivariantLinearDenoiser,
    LinearDenoiser,
    LocalLinearDenoiser,
    PolynomialDenoiser,
)
from jdiff.sampling import solve
from jdiff.theory import continuous_law, law
from jdiff.theory.gaussian import FourierAxes, halves, negated

GRID = noise.karras(5, sigma_min=0.05, sigma_max=10.0)
KEY = jax.random.key(3)


def correlated(shape: tuple[int, int, int], num: int = 60) -> np.ndarray:
    """Smooth random images: uint8, neither white nor stationary."""
    rng = np.random.default_rng(5)
    d = int(np.prod(shape))
    mixing = rng.normal(size=(d, d)) * np.exp(-0.3 * np.abs(np.subtract.outer(range(d), range(d))))
    x = 110 + 25 * rng.normal(size=(num, d)) @ mixing + 20 * np.sin(np.arange(d))
    return np.clip(x, 0, 255).astype(np.uint8).reshape(num, *shape)


GRAY, COLOUR = correlated((3, 4, 1)), correlated((3, 3, 2))
CLASSES = {
    "full": lambda x: LinearDenoiser.fit(x),
    "rank 3": lambda x: LinearDenoiser.fit(x, rank=3),
    "N < D": lambda x: LinearDenoiser.fit(x[:5]),
    "weighted": lambda x: LinearDenoiser.fit(x, weights=np.linspace(0, 1, len(x))),
    "local": lambda x: LocalLinearDenoiser.fit(x, patch_size=3),
    "equivariant": lambda x: EquivariantLinearDenoiser.fit(x),
    "local and equivariant": lambda x: EquivariantLinearDenoiser.fit(
        x, patch_size=3 if min(x.shape[1:3]) >= 3 else 1
    ),
    "bottleneck": lambda x: BottleneckDenoiser.fit(x, 4),
    "polynomial of degree 1": lambda x: PolynomialDenoiser.fit(x, 1, GRID),
}


def pushed(denoiser, sigmas, solver, record=None):
    """G and the mean, from the start 0 and scaled basis vectors through the real sampler.

    Every run is sample 0 of the same key, so that the noise of ddpm is the same in all.
    """
    d = int(np.prod(denoiser.image_shape))
    scale = float(sigmas[0])
    ends = []
    for start in np.concatenate([np.zeros((1, d)), scale * np.eye(d)]):
        y = jnp.asarray(start.reshape(1, *denoiser.image_shape), jnp.float32)
        x = solve(denoiser, y, sigmas, solver=solver, key=KEY, record=record)
        ends.append(np.asarray(x if record is None else x[0], np.float64).reshape(-1))
    return (np.array(ends[1:]) - ends[0]).T / scale, ends[0]


def covariance_of_sampler(denoiser, solver, record=None):
    """sigma_0^2 G G^T, and for ddpm the noise of each step through the steps that follow."""
    g, mean = pushed(denoiser, GRID, solver, record)
    total = float(GRID[0]) ** 2 * g @ g.T
    if solver == "ddpm":
        for t, (sigma, sigma_next) in enumerate(itertools.pairwise(GRID[:-1].astype(float))):
            rest, _ = pushed(denoiser, GRID[t + 1 :], solver)
            total += sigma_next**2 * (1 - (sigma_next / sigma) ** 2) * rest @ rest.T
    return total, mean


# In classes that hold no pixel apart from another, colour is more values and nothing else: there
# ddpm, whose every step is a program of its own here, is tried in gray alone.
BY_PIXEL = ("local", "equivariant", "local and equivariant")


def _marks(name: str, images: str, solver: str) -> list:
    if (name, images, solver) == ("local", "gray", "ddpm"):
        return [pytest.mark.core]
    # Colour is tried with ddim every day.
    return [pytest.mark.slow] if images == "colour" and solver != "ddim" else []


MAPS = [
    pytest.param(
        name,
        images,
        solver,
        id=f"{name}-{images}-{solver}",
        marks=_marks(name, images, solver),
    )
    for name, images, solver in itertools.product(
        CLASSES, ("gray", "colour"), ("ddim", "heun", "ddpm")
    )
    if (images, solver) != ("colour", "ddpm") or name in BY_PIXEL
]


@pytest.mark.parametrize(("name", "images", "solver"), MAPS)
def test_the_samplers_own_map(name, images, solver):
    denoiser = CLASSES[name]({"gray": GRAY, "colour": COLOUR}[images])
    predicted = law(denoiser, GRID, solver)
    covariance, mean = covariance_of_sampler(denoiser, solver)
    # Differences of float32 outputs of size 1 to 10, divided by the start's 10: 1e-6 of G.
    scale = np.abs(covariance).max()
    np.testing.assert_allclose(predicted.covariance, covariance, atol=2e-5 * scale)
    if solver != "ddpm":  # the mean of ddpm's samples is that of its deterministic part
        np.testing.assert_allclose(predicted.mean.reshape(-1), mean, atol=1e-5)


@pytest.mark.parametrize("solver", ["ddim", "heun"])
def test_the_sampler_in_coordinates_and_in_images_is_the_same(solver):
    denoiser = LinearDenoiser.fit(COLOUR, rank=4)
    inside = covariance_of_sampler(denoiser, solver)
    # With a record the sampler stays in image space.
    outside = covariance_of_sampler(denoiser, solver, record=("y",))
    for a, b in zip(inside, outside, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_the_mean_of_ddpm_is_that_of_its_maps():
    denoiser = LocalLinearDenoiser.fit(GRAY, patch_size=3)
    starts = jnp.zeros((20_000, *denoiser.image_shape))
    x = np.asarray(solve(denoiser, starts, GRID, solver="ddpm", key=KEY), np.float64)
    predicted = law(denoiser, GRID, "ddpm")
    # The start is 0, as the mean of the starting noise is: the noise of the steps averages out.
    z = (x.mean(0) - predicted.mean) / (x.std(0) / np.sqrt(len(x)))
    assert np.abs(z).max() < 4.0  # 12 values: 4 sigma has p = 8e-4


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_a_reversed_product_is_another_law(solver):
    """For local classes the factors do not commute; no sample shows it, but G does."""
    denoiser = LocalLinearDenoiser.fit(GRAY, patch_size=3)
    right = law(denoiser, GRID, solver).covariance
    maps = []
    for sigma, sigma_next in itertools.pairwise(GRID.astype(float)):
        # One step of the real sampler cannot be cut out; two levels alone give W at the first.
        w, _ = pushed(denoiser, np.array([sigma, 0.0], np.float32), "ddim")
        ratio = sigma_next / sigma
        maps.append(w + (ratio if solver == "ddim" else ratio**2) * (np.eye(len(w)) - w))
    product = lambda factors: np.linalg.multi_dot(factors)
    if solver == "ddim":
        ours, reversed_ = product(maps[::-1]), product(maps)
        difference = np.abs(ours @ ours.T - reversed_ @ reversed_.T).max() * float(GRID[0]) ** 2
        scale = np.abs(right).max()
        np.testing.assert_allclose(right, float(GRID[0]) ** 2 * ours @ ours.T, atol=1e-4 * scale)
        # What the test above would see if the product were reversed: over five times its tolerance.
        assert difference > 1e-4 * scale
    else:
        assert not np.allclose(right, law(denoiser, GRID, "ddim").covariance, rtol=1e-2)


@pytest.mark.parametrize("solver", ["ddim", "heun"])
def test_a_fine_grid_comes_near_the_continuous_law(solver):
    for denoiser in (
        LinearDenoiser.fit(COLOUR),
        LinearDenoiser.fit(GRAY, rank=3),
        EquivariantLinearDenoiser.fit(COLOUR),
        EquivariantLinearDenoiser.fit(GRAY),
        BottleneckDenoiser.fit(GRAY, 2),
    ):
        limit = continuous_law(denoiser, 5.0)
        errors, off = [], []
        for steps in (200, 400, 800):
            fine = law(denoiser, noise.log_linear(steps, sigma_min=1e-4, sigma_max=5.0), solver)
            errors.append(np.abs(fine.covariance - limit.covariance).max())
            off.append(np.abs(fine.mean - limit.mean).max())
        # First order for ddim, second for heun, down to what the last step at 1e-4 leaves.
        order = 0.9 if solver == "ddim" else 1.6
        assert np.log2(errors[0] / errors[1]) > order, errors
        assert np.log2(off[0] / off[1]) > order, off
        assert errors[-1] < 0.02 * np.abs(limit.covariance).max()
        # The mean keeps a part of the start that is not small beside these errors.
        mu = np.asarray(denoiser.mean, np.float64).reshape(-1)
        assert off[-1] < 0.1 * np.abs(limit.mean.reshape(-1, *mu.shape) - mu).max()


def test_the_continuous_law_is_the_ode_s_solution():
    """dv/dsigma = 2 sigma / (l + sigma^2) v along an axis, solved by SciPy."""
    from scipy.integrate import solve_ivp

    denoiser = LinearDenoiser.fit(GRAY)
    l = np.asarray(denoiser.eigenvalues, np.float64)
    start, mu = 3.0, np.asarray(denoiser.mean, np.float64)
    flow = lambda s, y: s / (l + s**2) * y  # (y - D) / sigma about the mean
    gain = solve_ivp(flow, (start, 0), np.ones_like(l), rtol=1e-10, atol=1e-12).y[:, -1]
    limit = continuous_law(denoiser, start)
    np.testing.assert_allclose(limit.eigenvalues, (start * gain) ** 2, rtol=1e-6)
    v = np.asarray(denoiser.basis, np.float64)
    np.testing.assert_allclose(limit.mean.reshape(-1), mu - v @ (gain * (v.T @ mu)), atol=1e-6)


@pytest.mark.core
def test_the_gain_of_one_ddim_step():
    """(l + sigma sigma') / (l + sigma^2), theory section 2, by hand at l = 1: 3/5, then 1/2."""
    points = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
    found = law(LinearDenoiser.fit(points), [2.0, 1.0, 0.0]).eigenvalues
    np.testing.assert_allclose(found, [4 * (3 / 5 * 1 / 2) ** 2], rtol=1e-6)


def test_sixty_karras_steps_give_the_numbers_of_the_theory_page():
    """3.694 / 0.916 / 0.2270 / 0.00886 for l = 4, 1, 0.25, 0.01 (../shared theory, section 2)."""
    l = np.array([4.0, 1.0, 0.25, 0.01])
    denoiser = LinearDenoiser.fit(np.zeros((9, 1, 1, 4), np.float32)).replace(
        basis=jnp.eye(4), eigenvalues=jnp.asarray(l)
    )
    found = law(denoiser, noise.karras(60)).eigenvalues
    np.testing.assert_allclose(found, [3.694, 0.916, 0.2270, 0.00886], rtol=2e-3)


@pytest.mark.parametrize("shape", [(4, 4, 1), (3, 4, 3), (5, 3, 2), (1, 1, 2), (2, 1, 1)])
def test_fourier_axes_are_orthonormal(shape):
    height, width, channels = shape
    rng = np.random.default_rng(0)
    spectrum = np.fft.fft2(rng.normal(size=(20, *shape)), axes=(1, 2))
    power = np.einsum("nhwi,nhwj->hwij", spectrum, spectrum.conj())
    own, first = halves(height, width)
    power = np.where(own[..., None, None], power.real, power)
    colors = np.linalg.eigh(power)[1]
    second = ~(own | first)
    colors[second] = negated(colors, (0, 1)).conj()[second]
    d = height * width * channels
    axes = FourierAxes(colors, rng.permutation(d))
    directions = axes.expand(np.eye(d))
    np.testing.assert_allclose(directions @ directions.T, np.eye(d), atol=1e-12)
    x = rng.normal(size=(7, d))
    np.testing.assert_allclose(axes.project(x), x @ directions.T, atol=1e-12)
    np.testing.assert_allclose(axes.expand(axes.project(x)), x, atol=1e-12)


@pytest.mark.parametrize("name", ["full", "rank 3", "local", "equivariant", "bottleneck"])
def test_draws_have_the_laws_mean_and_covariance(name):
    predicted = law(CLASSES[name](COLOUR), GRID)
    draws = np.asarray(predicted.sample(jax.random.key(0), 200_000), np.float64)
    assert draws.shape == (200_000, 3, 3, 2)
    flat = draws.reshape(len(draws), -1)
    scale = np.abs(predicted.covariance).max()
    # 18 x 18 covariances of 2e5 draws: standard error 0.003 of the scale, 5 of them.
    np.testing.assert_allclose(np.cov(flat.T, ddof=0), predicted.covariance, atol=0.016 * scale)
    np.testing.assert_allclose(flat.mean(0), predicted.mean.reshape(-1), atol=0.012 * scale**0.5)
    assert np.all(np.diff(predicted.eigenvalues) <= 0)
    # And the eigenvalues are the covariance's.
    values = np.linalg.eigvalsh(predicted.covariance)[::-1][: len(predicted.eigenvalues)]
    np.testing.assert_allclose(predicted.eigenvalues, values, atol=1e-10 * scale + 1e-12)


def test_full_rank_of_the_linear_law_keeps_mean_and_covariance_and_the_texture_does_not():
    sigmas = noise.log_linear(1500, sigma_min=1e-4, sigma_max=1e3)
    x = GRAY.reshape(len(GRAY), -1) / 127.5 - 1
    s = np.cov(x.T, ddof=0)
    full = law(LinearDenoiser.fit(GRAY), sigmas, "heun")
    np.testing.assert_allclose(full.covariance, s, atol=1e-3 * np.abs(s).max())
    np.testing.assert_allclose(full.mean.reshape(-1), x.mean(0), atol=1e-3)
    texture = law(EquivariantLinearDenoiser.fit(GRAY), sigmas, "heun")
    # Stationary: every pixel has one variance, and the mean is flat.
    variances = np.diag(texture.covariance)
    np.testing.assert_allclose(variances, variances[0], rtol=1e-9)
    assert np.ptp(texture.mean) == 0
    local = law(LocalLinearDenoiser.fit(GRAY, patch_size=1), sigmas, "heun")
    # A window of one pixel keeps each pixel's variance and no correlation.
    np.testing.assert_allclose(local.covariance, np.diag(np.diag(s)), atol=1e-3 * np.abs(s).max())


def test_distance_of_own_draws_is_the_noise_floor_and_grows_with_the_law():
    predicted = law(LinearDenoiser.fit(GRAY), GRID)
    draws = predicted.sample(jax.random.key(0), 1000)
    floor = predicted.distance(draws)
    assert 0.3 / np.sqrt(1000) < floor < 2 / np.sqrt(1000)
    # Shrunk by half about the mean: W1 of N(0, 1/4) to N(0, 1) is half of E|z| = 0.798 / 2.
    mean = predicted.mean[None]
    shrunk = predicted.distance(np.asarray(draws) / 2 + mean / 2)
    assert shrunk == pytest.approx(0.399, abs=0.03)


def test_big_images_need_no_square_matrix():
    import tracemalloc

    images = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
    denoiser = LinearDenoiser.fit(images)
    tracemalloc.start()
    predicted = law(denoiser, GRID)
    draws = predicted.sample(jax.random.key(0), 25)
    assert predicted.check(draws).row("leakage").passed
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # a square matrix would be 1.2 GB
    assert jdiff.sample(denoiser, KEY, 2, sigmas=GRID).shape == (2, 64, 64, 3)
