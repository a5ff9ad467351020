"""Which denoiser has which law, and what is said of those that have none."""

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
    NetworkDenoiser,
    OptimalDenoiser,
    PatchPolynomialDenoiser,
    PolynomialDenoiser,
    RandomPolynomialDenoiser,
)
from jdiff.theory import AtomsLaw, GaussianLaw, Law, PushForwardLaw, continuous_law, law

GRID = noise.karras(4)
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 3, 3, 1), dtype=np.uint8)
POINTS = np.array([-1.0, 0.2, 1.0]).reshape(3, 1, 1, 1)


@pytest.mark.core
@pytest.mark.parametrize(
    ("denoiser", "kind"),
    [
        (LinearDenoiser.fit(IMAGES), GaussianLaw),
        (LocalLinearDenoiser.fit(IMAGES, patch_size=3), GaussianLaw),
        (EquivariantLinearDenoiser.fit(IMAGES), GaussianLaw),
        (BottleneckDenoiser.fit(IMAGES, 2), GaussianLaw),
        (BottleneckDenoiser.fit(IMAGES, 2, decoder="posterior"), AtomsLaw),
        (BottleneckDenoiser.fit(IMAGES, 2, code="posterior"), AtomsLaw),
        (OptimalDenoiser.fit(IMAGES), AtomsLaw),
        (PolynomialDenoiser.fit(POINTS, 2, GRID), PushForwardLaw),
        (PolynomialDenoiser.fit(IMAGES, 1, GRID), GaussianLaw),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "sigmas") else "",
)
def test_every_law_has_the_same_face(denoiser, kind):
    predicted: Law = law(denoiser, GRID)
    assert isinstance(predicted, kind)
    d = int(np.prod(denoiser.image_shape))
    assert predicted.image_shape == denoiser.image_shape
    assert predicted.mean.shape == denoiser.image_shape
    assert predicted.covariance.shape == (d, d)
    trace = float(np.trace(predicted.covariance))
    assert np.sum(predicted.eigenvalues) == pytest.approx(trace, rel=1e-6)
    draws = predicted.sample(jax.random.key(0), 25)
    assert draws.shape == (25, *denoiser.image_shape)
    assert draws.dtype == np.float32
    assert isinstance(str(predicted.check(draws)), str)
    with pytest.raises(TypeError, match="key must be one typed key"):
        predicted.sample(0, 5)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("denoiser", "message"),
    [
        (
            lambda: PolynomialDenoiser.fit(IMAGES[..., :1], 2, GRID),
            "PolynomialDenoiser of degree 2 in 9 dimensions has no law in closed form",
        ),
        (
            lambda: RandomPolynomialDenoiser.fit(
                IMAGES, 3, GRID, jax.random.key(0), num_features=8
            ),
            "RandomPolynomialDenoiser has no law: divided by its largest entry, h.y. has degree 0",
        ),
        (
            lambda: PatchPolynomialDenoiser.fit(
                IMAGES, 3, GRID, [None, 3, 3, 3], jax.random.key(0), num_features=8
            ),
            "PatchPolynomialDenoiser has no law",
        ),
        (
            lambda: NetworkDenoiser.create(
                jdiff.networks.MLP(width=4, depth=1),
                {"params": {}},
                (3, 3, 1),
                data_std=0.5,
            ),
            r"NetworkDenoiser \(MLP, preconditioning x0\) has no law in closed form",
        ),
        (
            lambda: jdiff.denoisers.wrap(lambda y, sigma: y, (3, 3, 1)),
            "FunctionDenoiser has no law. Those that have a law: LinearDenoiser, Local",
        ),
    ],
    ids=["polynomial in 9-D", "random", "patch", "network", "function"],
)
def test_those_without_say_why(denoiser, message):
    with pytest.raises(ValueError, match=message):
        law(denoiser(), GRID)


@pytest.mark.core
def test_bad_solver_grid_and_levels():
    linear = LinearDenoiser.fit(IMAGES)
    with pytest.raises(ValueError, match="solver 'dpmpp_2m' has no law. Those .* ddim, heun, ddpm"):
        law(linear, GRID, "dpmpp_2m")
    with pytest.raises(ValueError, match="Did you mean 'ddim'"):
        law(linear, GRID, "dimm")
    with pytest.raises(TypeError, match="solver must be one of ddim, heun, ddpm; got Solver"):
        law(linear, GRID, jdiff.sampling.solvers.ddim)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="sigmas must decrease strictly to 0"):
        law(linear, [1.0, 2.0, 0.0])
    polynomial = PolynomialDenoiser.fit(POINTS, 2, GRID)
    with pytest.raises(ValueError, match="sigmas asks for level 3, but this PolynomialDenoiser"):
        law(polynomial, [3.0, 0.0])
    with pytest.raises(ValueError, match="solver 'ddpm' has no law for a polynomial denoiser"):
        law(polynomial, GRID, "ddpm")
    with pytest.raises(TypeError, match="denoiser must be callable"):
        law("linear", GRID)


@pytest.mark.core
def test_the_default_grid_is_the_samplers():
    linear = LinearDenoiser.fit(IMAGES)
    np.testing.assert_array_equal(
        law(linear).eigenvalues, law(linear, noise.karras(18)).eigenvalues
    )
    polynomial = PolynomialDenoiser.fit(POINTS, 2, GRID)
    np.testing.assert_array_equal(law(polynomial).points, law(polynomial, GRID).points)


@pytest.mark.core
@pytest.mark.parametrize(
    "denoiser",
    [
        LocalLinearDenoiser.fit(IMAGES, patch_size=3),
        EquivariantLinearDenoiser.fit(IMAGES, patch_size=3),
        BottleneckDenoiser.fit(IMAGES, 2, code="posterior"),
        OptimalDenoiser.fit(IMAGES),
    ],
    ids=["local", "local and equivariant", "posterior code", "optimal"],
)
def test_no_continuous_law(denoiser):
    with pytest.raises(ValueError, match="has no continuous law in closed form; those that have"):
        continuous_law(denoiser, 80.0)
    with pytest.raises(ValueError, match="sigma_max must be in"):
        continuous_law(LinearDenoiser.fit(IMAGES), 0.0)
