"""Checks on real digits: the right law passes, and every wrong law must fail at the same size."""

import jax
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
from jdiff.theory import CheckRow, LawCheck, law
from jdiff.theory.checks import Rows

N = 1000
GRID = noise.karras(18)


@pytest.fixture(scope="module")
def digits():
    return jdiff.data.load("digits")


FITS = {
    "linear": lambda x: LinearDenoiser.fit(x),
    "linear:rank=16": lambda x: LinearDenoiser.fit(x, rank=16),
    "local_linear:patch_size=3": lambda x: LocalLinearDenoiser.fit(x, patch_size=3),
    "equivariant_linear": lambda x: EquivariantLinearDenoiser.fit(x),
    "equivariant_linear:patch_size=3": lambda x: EquivariantLinearDenoiser.fit(x, patch_size=3),
    "bottleneck:code_dim=8": lambda x: BottleneckDenoiser.fit(x, 8),
    "polynomial:degree=1": lambda x: PolynomialDenoiser.fit(x, 1, GRID),
}
# Whose samples each law must reject: another class, another rank, another window.
WRONG = {
    "linear": "local_linear:patch_size=3",
    "linear:rank=16": "bottleneck:code_dim=8",
    "local_linear:patch_size=3": "linear",
    "equivariant_linear": "linear",
    "equivariant_linear:patch_size=3": "equivariant_linear",
    "bottleneck:code_dim=8": "linear:rank=16",
    "polynomial:degree=1": "equivariant_linear",
}


@pytest.fixture(scope="module")
def drawn(digits):
    """Denoisers and samples by name, made once."""
    made = {}

    def make(name, solver="ddim"):
        if (name, solver) not in made:
            denoiser = FITS[name](digits.images)
            x = jdiff.sample(denoiser, jax.random.key(1), N, sigmas=GRID, solver=solver)
            made[name, solver] = denoiser, np.asarray(x)
        return made[name, solver]

    return make


@pytest.mark.parametrize("name", FITS)
def test_samples_of_the_right_law_pass_and_of_a_wrong_one_fail(name, digits, drawn):
    denoiser, samples = drawn(name)
    predicted = law(denoiser, GRID)
    found = predicted.check(samples, train=digits.images, held_out=digits.held_out)
    assert found.passed, str(found)
    names = {row.name for row in found.rows}
    assert {"mean", "covariance", "variance", "shape", "radius", "nearest"} <= names
    _, wrong = drawn(WRONG[name])
    rejected = predicted.check(wrong, train=digits.images)
    # The leading 8 of 16 axes are those of the code of 8: what betrays the others is outside.
    nested = name == "bottleneck:code_dim=8"
    by = {"leakage", "nearest"} if nested else {"covariance", "variance"}
    assert by <= set(rejected.failed), str(rejected)


@pytest.mark.parametrize("solver", ["heun", "ddpm"])
def test_each_solver_has_its_own_law(solver, drawn):
    denoiser, samples = drawn("linear", solver)
    assert law(denoiser, GRID, solver).check(samples).passed
    assert not law(denoiser, GRID, "ddim").check(samples).passed


def test_the_training_set_itself_must_fail(digits, drawn):
    denoiser, _ = drawn("linear")
    from jdiff._pixels import to_model

    predicted = law(denoiser, GRID, "heun")
    found = predicted.check(to_model(digits.images[:N]), train=digits.images)
    # Its mean and covariance are nearly the law's; its radius and its distances are not.
    assert {"radius", "nearest"} <= set(found.failed)
    assert found.row("radius").p_value < 1e-10
    held_out = predicted.check(to_model(digits.held_out))
    assert "radius" in held_out.failed


@pytest.mark.core
def test_the_radius_alone_rejects_training_points_with_the_right_moments():
    """Points of constant norm: mean 0, covariance I, projections that look Gaussian."""
    rng = np.random.default_rng(0)
    d = 20
    images = np.clip(rng.normal(size=(300, 4, 5, 1)) * 0.2, -1, 1).astype(np.float32)
    predicted = law(LinearDenoiser.fit(images), noise.karras(60), "heun")
    directions = rng.normal(size=(N, d))
    directions *= np.sqrt(d) / np.linalg.norm(directions, axis=1, keepdims=True)
    x = predicted.axes.expand(directions * np.sqrt(predicted.eigenvalues))
    x = (x + predicted.mean.reshape(1, -1)).reshape(N, 4, 5, 1)
    found = predicted.check(x)
    assert found.failed == ("radius",), str(found)


@pytest.mark.parametrize(
    ("spoil", "by"),
    [
        (lambda u: u + np.r_[0.3, np.zeros(9)], "mean"),
        (lambda u: u * np.r_[np.ones(9), 1.25], "variance"),
        (lambda u: u @ (np.eye(10) + 0.2 * np.eye(10, k=1)), "covariance"),
        (lambda u: np.sign(u) * np.sqrt(np.abs(u)) / 0.893, "shape"),
    ],
    ids=["a shifted mean", "one variance too large", "correlated axes", "another shape"],
)
def test_each_statistic_sees_what_it_is_for(spoil, by):
    rng = np.random.default_rng(0)
    images = np.clip(rng.normal(size=(200, 2, 5, 1)) * 0.2, -1, 1).astype(np.float32)
    predicted = law(LinearDenoiser.fit(images), noise.karras(18))
    make = lambda u: (
        predicted.axes.expand(u * np.sqrt(predicted.eigenvalues)) + predicted.mean.reshape(1, -1)
    ).reshape(-1, 2, 5, 1)
    u = rng.normal(size=(N, 10))
    assert predicted.check(make(u)).passed
    assert by in predicted.check(make(spoil(u))).failed


def test_false_alarms_are_as_rare_as_stated():
    images = np.random.default_rng(0).integers(0, 256, (200, 3, 3, 1), dtype=np.uint8)
    predicted = law(LinearDenoiser.fit(images), noise.karras(12))
    alpha, trials = 0.1, 150
    failed = sum(
        not predicted.check(predicted.sample(jax.random.key(seed), 60), alpha=alpha).passed
        for seed in range(trials)
    )
    # Bonferroni bounds the rate by alpha = 15 of 150; binomial, four deviations above: 30. That it
    # is no empty bound: at least one in 150 is seen with probability 1 - 1e-4 at a rate of 6 %.
    assert 1 <= failed <= 30


def test_leakage_outside_the_predicted_subspace_fails(drawn):
    denoiser, samples = drawn("linear:rank=16")
    predicted = law(denoiser, GRID)
    assert predicted.check(samples).row("leakage").passed
    other = predicted.axes.expand(np.eye(16))
    rng = np.random.default_rng(0)
    outside = rng.normal(size=(N, 64))
    outside -= outside @ other.T @ other
    spoiled = samples + 0.005 * outside.reshape(samples.shape)
    assert predicted.check(spoiled).failed == ("leakage",)


def test_overflowed_samples_are_counted_and_fail(drawn):
    denoiser, samples = drawn("linear:rank=16")
    spoiled = samples.copy()
    spoiled[3, 0, 0, 0], spoiled[9, 1, 1, 0] = np.nan, np.inf
    found = law(denoiser, GRID).check(spoiled)
    assert found.failed == ("finite",)
    assert (found.overflowed, found.num_samples) == (2, N)
    assert "2 overflowed" in str(found)


@pytest.mark.core
@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (np.zeros((30, 8, 8)), ValueError, r"samples must have shape \[n, 8, 8, 1\]; got"),
        (np.zeros((30, 8, 8, 1), int), TypeError, "samples must be float in model units, or uint8"),
        (np.zeros((5, 8, 8, 1)), ValueError, "at least 20 finite ones; got 5, of which 5"),
        (np.full((30, 8, 8, 1), np.nan), ValueError, "got 30, of which 0 are finite"),
    ],
)
def test_bad_samples(samples, error, message, digits):
    predicted = law(LinearDenoiser.fit(digits.images, rank=3), GRID)
    with pytest.raises(error, match=message):
        predicted.check(samples)
    with pytest.raises(ValueError, match="alpha must be in"):
        predicted.check(np.zeros((30, 8, 8, 1)), alpha=0.0)


def test_distance_refuses_samples_that_overflowed(digits):
    predicted = law(LinearDenoiser.fit(digits.images, rank=3), GRID)
    with pytest.raises(ValueError, match="samples holds 30 of 30 samples with NaN or infinite"):
        predicted.distance(np.full((30, 8, 8, 1), np.nan))


@pytest.mark.core
def test_bonferroni_and_words():
    tests = Rows(0.04)
    for p in (0.009, 0.011, 0.5):
        tests.test(f"p {p}", 1.0, 2.0, p, "detail")
    tests.fact("fact", 1, 1, True, "nothing to chance")
    found = tests.finish("some law", 30, 0)
    # Three p-values: each against 0.04 / 3.
    assert [row.passed for row in found.rows] == [False, False, True, True]
    assert found.failed == ("p 0.009", "p 0.011")
    assert "some law: rejected by p 0.009, p 0.011 (30 samples" in str(found)
    assert found.row("fact") == CheckRow("fact", 1, 1, None, True, "nothing to chance")
    with pytest.raises(ValueError, match="name is 'fakt'. Did you mean 'fact'"):
        found.row("fakt")
    assert LawCheck("a", found.rows[3:], 30, 0, 0.01).passed


@pytest.mark.core
def test_a_statistic_that_is_no_number_passes_nothing():
    tests = Rows(0.01)
    tests.test("nan", float("nan"), 1, float("nan"), "")
    assert not tests.finish("some law", 30, 0).passed


@pytest.mark.core
@pytest.mark.parametrize("num", [1, 5], ids=["one image", "five alike"])
def test_a_law_of_one_point(num):
    images = np.full((num, 3, 3, 1), 7, np.uint8)
    predicted = law(LinearDenoiser.fit(images), GRID)
    found = predicted.check(predicted.sample(jax.random.key(0), 30))
    assert found.passed, str(found)
    assert "point" in predicted.check(np.zeros((30, 3, 3, 1))).failed
    with pytest.raises(ValueError, match="distance needs at least 2 samples, and a law of which"):
        predicted.distance(np.zeros((30, 3, 3, 1)))
