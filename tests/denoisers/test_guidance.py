"""Classifier-free guidance of a denoiser with classes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdiff
from jdiff.denoisers import Denoiser, guide

X = np.array([[-1.0, 0.5], [0.2, 0.9], [0.8, -0.7], [-0.3, -0.4]]).reshape(4, 1, 1, 2)
CLASSES = np.array([0, 1, 1, 0])


def refused(error, *words):
    """pytest.raises(error) whose message holds all words, in order."""
    return pytest.raises(error, match=".*".join(re.escape(word) for word in words))


@pytest.fixture(scope="module")
def optimal():
    return jdiff.OptimalDenoiser.fit(X, labels=CLASSES)


def posterior_mean(y, sigma, points):
    """E[x | y] over equally likely points, float64."""
    squared = ((y[:, None] - points[None]) ** 2).sum(-1)
    p = np.exp(-(squared - squared.min(1, keepdims=True)) / (2 * sigma**2))
    return (p / p.sum(1, keepdims=True)) @ points


@pytest.mark.core
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_the_formula_by_hand(optimal, scale, rng):
    y = rng.standard_normal((2, 2))
    points = X.reshape(4, 2)
    plain = posterior_mean(y, 0.7, points)
    own = np.concatenate(
        [posterior_mean(y[i : i + 1], 0.7, points[CLASSES == c]) for i, c in enumerate((1, 0))]
    )
    call = jax.jit(lambda denoiser, *arguments: denoiser(*arguments))
    noisy = jnp.asarray(y.reshape(2, 1, 1, 2), jnp.float32)
    guided = call(guide(optimal, scale), noisy, jnp.float32(0.7), jnp.array([1, 0]))
    # float32 on numbers of order 1, times the scale.
    wanted = plain + scale * (own - plain)
    np.testing.assert_allclose(guided.reshape(2, 2), wanted, atol=3e-6)
    assert np.abs(own - plain).max() > 0.1  # the classes do matter


def test_the_null_class_is_guided_to_itself(optimal, rng):
    y = jnp.asarray(rng.standard_normal((3, 1, 1, 2)), jnp.float32)
    null = guide(optimal, 4.0)(y, jnp.float32(0.5), jnp.full(3, optimal.num_classes))
    np.testing.assert_allclose(null, optimal(y, jnp.float32(0.5)), atol=1e-6)


def test_samples_of_a_class_are_its_points(optimal):
    guided = guide(optimal, 1.0)
    assert isinstance(guided, Denoiser)
    samples = np.asarray(jdiff.sample(guided, jax.random.key(0), 16, labels=1, solver="heun"))
    own = X[CLASSES == 1].reshape(-1, 2)
    distance = np.abs(samples.reshape(16, 1, 2) - own[None]).max(-1).min(1)
    assert distance.max() < 1e-3  # the last level is 0.002


def test_another_scale_does_not_compile_again(optimal):
    structures = {jax.tree.structure(guide(optimal, scale)) for scale in (0.5, 2.0)}
    assert len(structures) == 1


@pytest.mark.core
def test_bad_input_is_refused(optimal):
    with refused(ValueError, "denoiser must have classes", "OptimalDenoiser has none"):
        guide(jdiff.OptimalDenoiser.fit(X), 2.0)
    with refused(TypeError, "denoiser must be callable with image_shape"):
        guide(jnp.tanh, 2.0)  # pyright: ignore[reportArgumentType]
    for scale in (-1.0, np.nan, np.inf):
        with refused(ValueError, "scale must be in [0, inf)"):
            guide(optimal, scale)
    guided = guide(optimal, 2.0)
    with refused(ValueError, "labels must be given to a guided denoiser"):
        guided(jnp.zeros((1, 1, 1, 2)), jnp.float32(1.0))
    # On the host, before anything is traced.
    with refused(ValueError, "labels must be given: this is a GuidedDenoiser."):
        jdiff.sample(guided, jax.random.key(0), 2)
    with refused(ValueError, "labels"):
        jdiff.sample(guided, jax.random.key(0), 2, labels=3)
