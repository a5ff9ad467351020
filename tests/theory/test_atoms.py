"""Laws of finite support on digits: where samples lie."""

import jax
import numpy as np
import pytest

import jdiff
from jdiff import _pixels, noise
from jdiff.denoisers import BottleneckDenoiser, LinearDenoiser, OptimalDenoiser
from jdiff.theory import AtomsLaw, law

GRID = noise.karras(18)


@pytest.fixture(scope="module")
def digits():
    return jdiff.data.load("digits")


@pytest.fixture(scope="module")
def gaussian(digits):
    """Samples that are no copies."""
    return jdiff.sample(LinearDenoiser.fit(digits.images), jax.random.key(1), 400, sigmas=GRID)


FITS = {
    "optimal": lambda x: OptimalDenoiser.fit(x),
    "posterior decoder": lambda x: BottleneckDenoiser.fit(x, 8, decoder="posterior"),
    "posterior code": lambda x: BottleneckDenoiser.fit(x, 8, code="posterior"),
    "posterior code, 2 numbers": lambda x: BottleneckDenoiser.fit(x, 2, code="posterior"),
}


@pytest.mark.parametrize("name", FITS)
def test_samples_lie_at_the_atoms_and_other_samples_do_not(name, digits, gaussian):
    denoiser = FITS[name](digits.images)
    predicted = law(denoiser, GRID)
    samples = np.asarray(jdiff.sample(denoiser, jax.random.key(2), 400, sigmas=GRID))
    found = predicted.check(samples)
    assert found.passed, str(found)
    # The wrong laws that are nearest: some samples of another kind, a part of the atoms, one atom.
    mixed = np.concatenate([samples[:380], gaussian[:20]])
    assert {"at atoms", "distance", "decoder"} & set(predicted.check(mixed).failed)
    assert "at atoms" in predicted.check(gaussian).failed
    part = predicted.atoms[np.random.default_rng(0).integers(0, 300, 400)]
    assert "frequencies" in predicted.check(part).failed
    assert "frequencies" in predicted.check(np.repeat(predicted.atoms[:1], 200, 0)).failed


@pytest.mark.parametrize("solver", ["ddim", "heun", "ddpm"])
def test_blends_are_predicted_for_the_grid_and_the_solver(solver, digits):
    """One number for a digit: nearly all samples are blends, and their law is the grid's own."""
    denoiser = BottleneckDenoiser.fit(digits.images[:500], 1, decoder="posterior")
    samples = jdiff.sample(denoiser, jax.random.key(3), 500, sigmas=GRID, solver=solver)
    predicted = law(denoiser, GRID, solver)
    assert predicted.resolved < 0.1
    found = predicted.check(samples)
    assert found.passed, str(found)
    assert found.row("at atoms").statistic < 0.5
    # Blends of other images than those that share a code, and another solver's blends, are wrong.
    pairs = (predicted.atoms[:100] + predicted.atoms[-100:]) / 2
    assert "decoder" in predicted.check(pairs).failed
    if solver != "ddpm":  # whose blends are too like those of ddim for so few samples
        other = law(denoiser, GRID, "heun" if solver == "ddim" else "ddim")
        assert other.check(samples).failed


@pytest.mark.core
def test_a_right_law_is_rejected_as_rarely_as_alpha_says(rng):
    points = rng.normal(size=(30, 1, 1, 2)).astype(np.float32)
    predicted = law(BottleneckDenoiser.fit(points, 1, decoder="posterior"), GRID)
    draw = lambda i: predicted.sample(jax.random.key(i), 60)
    passed = sum(predicted.check(draw(i), alpha=0.1).passed for i in range(100))
    # 100 checks at alpha 0.1: fewer than 80 passed has a chance of 0.1 % if 10 fail on average.
    assert passed >= 80


def test_the_atoms_are_what_the_theory_page_says(digits):
    x = _pixels.to_model(digits.images).astype(np.float64)
    flat = x.reshape(len(x), -1)
    np.testing.assert_array_equal(law(FITS["optimal"](digits.images), GRID).atoms, x.astype("f4"))
    decoded = law(FITS["posterior decoder"](digits.images), GRID)
    np.testing.assert_array_equal(decoded.atoms, x.astype(np.float32))
    projected = law(FITS["posterior code"](digits.images), GRID)
    mu = flat.mean(0)
    v = np.linalg.svd(flat - mu, full_matrices=False)[2][:8].T
    expected = mu + (flat - mu) @ v @ v.T
    np.testing.assert_allclose(projected.atoms.reshape(len(x), -1), expected, atol=1e-5)


def test_novel_as_images_but_a_copy_in_the_code(digits):
    denoiser = FITS["posterior code"](digits.images)
    samples = np.asarray(jdiff.sample(denoiser, jax.random.key(4), 100, sigmas=GRID))
    train = _pixels.to_model(digits.images).reshape(len(digits.images), -1)
    nearest = np.linalg.norm(samples.reshape(100, 1, -1) - train[None], axis=2).min(1)
    assert np.median(nearest) > 1.0  # model units, images of norm about 5: none is a copy
    codes = np.asarray(denoiser.codes(samples))
    known = np.asarray(denoiser.codes(_pixels.to_model(digits.images)))
    in_code = np.linalg.norm(codes[:, None] - known[None], axis=2).min(1)
    assert np.median(in_code) < 1e-3


@pytest.mark.core
def test_moments_weights_and_draws(rng):
    points = rng.normal(size=(5, 1, 1, 3)).astype(np.float32)
    weights = np.array([1.0, 2, 0, 3, 4])
    predicted = law(OptimalDenoiser.fit(points, weights), GRID)
    assert len(predicted.atoms) == 4  # weight zero is no atom
    np.testing.assert_allclose(predicted.weights, [0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    p, flat = weights / weights.sum(), points.reshape(5, 3).astype(np.float64)
    np.testing.assert_allclose(predicted.mean.reshape(-1), p @ flat, atol=1e-6)
    c = (flat - p @ flat).T @ np.diag(p) @ (flat - p @ flat)
    np.testing.assert_allclose(predicted.covariance, c, atol=1e-6)
    values = np.linalg.eigvalsh(c)[::-1]
    np.testing.assert_allclose(predicted.eigenvalues[:3], values, atol=1e-6)
    # In the limit the atoms are drawn by their weights: many steps from far away.
    fine = law(OptimalDenoiser.fit(points, weights), noise.karras(200, sigma_max=500.0))
    draws = np.asarray(fine.sample(jax.random.key(0), 20_000)).reshape(-1, 3)
    which = np.argmin(np.linalg.norm(draws[:, None] - flat[None], axis=2), axis=1)
    shares = np.bincount(which, minlength=5) / 20_000
    np.testing.assert_allclose(shares, p, atol=4 * 0.5 / np.sqrt(20_000))


def test_twins_blend_and_the_law_says_so(rng):
    points = rng.normal(size=(40, 1, 1, 2)).astype(np.float32)
    points[1::2] = points[::2] + np.float32(0.001)  # pairs nearer than the last sigma
    predicted = law(OptimalDenoiser.fit(points), GRID)
    assert predicted.resolved == 0
    apart = law(OptimalDenoiser.fit(points[::2]), GRID)
    assert apart.resolved == pytest.approx(1)
    # Exact repeats are one atom.
    assert law(OptimalDenoiser.fit(np.repeat(points[::2], 2, 0)), GRID).resolved == pytest.approx(1)


def test_a_single_atom():
    one = np.full((1, 2, 2, 1), 0.25, np.float32)
    predicted = AtomsLaw(one, [1.0], one.reshape(1, -1), [1.0, 0.01, 0.0])
    assert predicted.check(np.repeat(one, 20, 0)).passed
    assert not predicted.check(np.repeat(one, 20, 0) + 0.5).passed


@pytest.mark.core
@pytest.mark.parametrize("weights", [None, np.r_[0.5, np.full(19, 0.5 / 19)]])
def test_repeats_and_unequal_weights_are_visited_as_often_as_they_weigh(weights, rng):
    points = rng.normal(size=(20, 1, 1, 2)).astype(np.float32)
    if weights is None:
        points = np.repeat(points[:4], 5, 0)
    predicted = law(OptimalDenoiser.fit(points, weights), GRID)
    samples = jdiff.sample(
        OptimalDenoiser.fit(points, weights), jax.random.key(0), 400, sigmas=GRID
    )
    found = predicted.check(samples)
    assert found.passed, str(found)
    # Another atom in the place of the heaviest is another law.
    at_first = np.linalg.norm(np.asarray(samples) - points[:1], axis=-1) < 0.01
    swapped = np.where(at_first[..., None], points[-1:], samples)
    assert "frequencies" in predicted.check(swapped).failed


def test_codes_that_all_but_collide_are_decoded():
    """float32 cannot tell codes 1e-6 apart; the images between which it cannot are the decoder's"""
    for gap in (0.0, 1e-7, 1e-6, 1e-5, 1e-4):
        x = np.array([[0.7, 0.3], [0.7 + gap, -0.3], [-0.7, 0.3], [-0.7 - gap, -0.3], [0.1, 0]])
        denoiser = BottleneckDenoiser.fit(x.reshape(-1, 1, 1, 2), 1, decoder="posterior")
        predicted = law(denoiser, GRID)
        for samples in (
            predicted.sample(jax.random.key(5), 300),
            jdiff.sample(denoiser, jax.random.key(6), 300, sigmas=GRID),
        ):
            assert predicted.check(samples).row("decoder").passed, gap
        wrong = np.tile(np.array([0.1, 0.2], np.float32), (30, 1)).reshape(30, 1, 1, 2)
        assert "decoder" in predicted.check(wrong).failed


def test_its_own_first_draws_are_not_what_it_compares_with(rng):
    points = rng.normal(size=(9, 1, 1, 2)).astype(np.float32)
    predicted = law(OptimalDenoiser.fit(points), GRID)
    found = predicted.check(predicted.sample(jax.random.key(0), 200))
    assert found.passed
    assert found.row("frequencies").statistic > 0
