"""The rank of a denoiser's Jacobian and of its samples."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdiff
from jdiff.denoisers import (
    BottleneckDenoiser,
    LinearDenoiser,
    NetworkDenoiser,
    PolynomialDenoiser,
)
from jdiff.networks import BottleneckMLP
from jdiff.theory import check_rank, jacobian_rank, jacobian_spectrum, local_spectrum

SHAPE = (3, 3, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (60, *SHAPE), dtype=np.uint8)
Y = jnp.asarray(np.random.default_rng(1).normal(size=(4, *SHAPE)), jnp.float32)


@pytest.mark.core
def test_spectrum_of_an_affine_denoiser_is_its_gains():
    denoiser = LinearDenoiser.fit(IMAGES, rank=5)
    l = np.asarray(denoiser.eigenvalues)
    found = jacobian_spectrum(denoiser, Y, 0.3)
    expected = np.r_[np.sort(l / (l + 0.09))[::-1], np.zeros(4)]
    np.testing.assert_allclose(found, np.tile(expected, (4, 1)), atol=1e-5)
    assert jacobian_rank(denoiser, Y, 0.3).tolist() == [5] * 4


@pytest.mark.parametrize(
    ("preconditioning", "full"), [("x0", False), ("edm", True), ("eps", True), ("v", True)]
)
def test_only_x0_bounds_the_rank_by_the_code(preconditioning, full):
    network = BottleneckMLP(code_dim=2, width=16)
    variables = jdiff.networks.init(network, jax.random.key(0), SHAPE)
    make = lambda: NetworkDenoiser.create(
        network, variables, SHAPE, data_std=0.5, preconditioning=preconditioning
    )
    if full:
        with pytest.warns(UserWarning, match="goes round BottleneckMLP"):
            denoiser = make()
    else:
        denoiser = make()
    rank = jacobian_rank(denoiser, Y, 0.002 if not full else 0.5)
    assert np.all(rank == 9) if full else np.all(rank <= 2)


def test_a_trained_bottleneck_of_digits_keeps_its_bound_and_breaks_it_with_a_skip():
    digits = jdiff.data.load("digits")
    config = jdiff.TrainConfig(steps=40, batch_size=64, learning_rate=2e-3, warmup=5)
    network = BottleneckMLP(code_dim=8, width=32)
    trained = jdiff.train(network, digits, config, key=jax.random.key(0)).denoiser
    last = 0.002
    y = digits.images[:5].astype(np.float32) / 127.5 - 1
    y = y + last * np.random.default_rng(0).normal(size=y.shape).astype(np.float32)
    found = check_rank(trained, y, last, 8)
    assert found.passed, str(found)
    assert found.row("rank").statistic > 0  # a network that ignores its input would pass as well
    skipped = dataclasses.replace(trained, preconditioning="edm")
    assert check_rank(skipped, y, last, 8).failed == ("rank",)
    # A code of eight numbers is not one of a single number.
    assert check_rank(trained, y, last, 1).failed == ("rank",)


@pytest.mark.parametrize("code", ["linear", "posterior"])
def test_closed_bottlenecks(code):
    denoiser = BottleneckDenoiser.fit(IMAGES, 3, code=code)
    assert np.all(jacobian_rank(denoiser, Y, 0.5) <= 3)


def test_local_spectrum_of_a_curve_and_of_a_cloud(rng):
    t = rng.uniform(0, 2 * np.pi, 2000)
    circle = np.stack([np.cos(t), np.sin(t)], 1).reshape(-1, 1, 1, 2)
    assert local_spectrum(circle)[0] > 0.999
    cloud = rng.normal(size=(2000, 1, 1, 2))
    assert local_spectrum(cloud)[0] < 0.85
    assert local_spectrum(cloud).sum() == pytest.approx(1)


@pytest.mark.core
def test_bad_input():
    denoiser = LinearDenoiser.fit(IMAGES)
    with pytest.raises(TypeError, match="denoiser must be callable with image_shape"):
        jacobian_rank("linear", Y, 0.3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"y must be a float array \[B, 3, 3, 1\]"):
        jacobian_rank(denoiser, Y[0], 0.3)
    with pytest.raises(ValueError, match=r"sigma must be in \(0"):
        jacobian_rank(denoiser, Y, 0.0)
    with pytest.raises(ValueError, match=r"tolerance must be in \(0"):
        jacobian_rank(denoiser, Y, 0.3, tolerance=0.0)
    with pytest.raises(ValueError, match="rank must be from 1 to 8; got 9"):
        check_rank(denoiser, Y, 0.3, 9)
    with pytest.raises(ValueError, match="y must hold at least one point, all finite; got 0"):
        check_rank(denoiser, Y[:0], 0.3, 2)
    with pytest.raises(ValueError, match="y must hold at least one point, all finite; got 4"):
        check_rank(denoiser, Y.at[0, 0, 0].set(np.nan), 0.3, 2)
    points = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
    with pytest.raises(ValueError, match="denoiser must be of at least 2 values"):
        check_rank(LinearDenoiser.fit(points), jnp.zeros((1, 1, 1, 1)), 0.3, 1)
    square = PolynomialDenoiser.fit(IMAGES, 2, [0.5])
    with pytest.raises(ValueError, match="denoiser has no finite Jacobian at 4 of 4 points"):
        check_rank(square, 1e38 * jnp.sign(Y), 0.5, 2)
    with pytest.raises(ValueError, match="num_neighbors must be from 2 to 3; got 12"):
        local_spectrum(Y)


def test_levels_that_were_not_fitted_and_copies_are_refused():
    polynomial = PolynomialDenoiser.fit(IMAGES, 1, [0.5])
    assert jacobian_rank(polynomial, Y, 0.5).shape == (4,)
    with pytest.raises(ValueError, match="sigmas asks for level 0.7, but this PolynomialDenoiser"):
        jacobian_rank(polynomial, Y, 0.7)
    copies = np.repeat(np.asarray(Y[:2]), 20, 0)
    with pytest.raises(ValueError, match="samples are copies of each other"):
        local_spectrum(copies, num_neighbors=5)
