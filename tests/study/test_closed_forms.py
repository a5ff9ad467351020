"""Closed forms by name: each is fitted as its class would be, at the levels of the study."""

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
    PatchPolynomialDenoiser,
    PolynomialDenoiser,
    RandomPolynomialDenoiser,
)
from jdiff.study import Architecture
from jdiff.study.closed_forms import CLOSED_FORMS, shrinking_features, shrinking_windows

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), dtype=np.uint8)
DATA = jdiff.data.from_arrays(IMAGES, held_out=IMAGES[:6] // 2)
GRID = noise.karras(3, sigma_min=0.1, sigma_max=5.0)
KEY = jax.random.key(7)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("linear:rank=3", lambda x: LinearDenoiser.fit(x, rank=3)),
        ("local_linear:patch_size=3", lambda x: LocalLinearDenoiser.fit(x, patch_size=3)),
        ("equivariant_linear", lambda x: EquivariantLinearDenoiser.fit(x)),
        (
            "equivariant_linear:patch_size=3",
            lambda x: EquivariantLinearDenoiser.fit(x, patch_size=3),
        ),
        ("polynomial:degree=1", lambda x: PolynomialDenoiser.fit(x, 1, GRID)),
        (
            "polynomial:degree=1,sigmas=karras:2",
            lambda x: PolynomialDenoiser.fit(x, 1, noise.karras(2)),
        ),
        (
            "random_polynomial:degree=3,num_features=8",
            lambda x: RandomPolynomialDenoiser.fit(x, 3, GRID, KEY, 8),
        ),
        (
            "patch_polynomial:degree=2,num_features=8",
            lambda x: PatchPolynomialDenoiser.fit(
                x, 2, GRID, (None, 3, 3), KEY, num_features=(8, 8, 8)
            ),
        ),
        (
            "bottleneck:code_dim=2,decoder=posterior",
            lambda x: BottleneckDenoiser.fit(x, 2, decoder="posterior"),
        ),
    ],
)
def test_a_string_fits_what_the_class_fits(spec, expected):
    found = Architecture.parse(spec).fit(DATA, GRID, seed=7)
    wanted = expected(IMAGES)
    assert type(found) is type(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_of_the_data_are_used():
    weights = np.linspace(0, 1, 30)
    weighted = jdiff.data.from_arrays(IMAGES, held_out=IMAGES[:6], weights=weights)
    for spec in (
        *("linear", "local_linear:patch_size=3", "equivariant_linear", "polynomial:degree=1"),
        *("bottleneck:code_dim=2", "random_polynomial:degree=1,num_features=4", "optimal"),
    ):
        found, plain = (Architecture.parse(spec).fit(data, GRID) for data in (weighted, DATA))
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True)
        assert any(a.shape != b.shape or np.any(np.asarray(a != b)) for a, b in pairs), spec


@pytest.mark.core
@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("linear:rank=17", ValueError, "rank must be from 1 to 16; got 17"),
        ("bottleneck:code_dim=0", ValueError, "code_dim must be from 1 to 16; got 0"),
        ("polynomial:degree=0", ValueError, "degree must be at least 1; got 0"),
        ("random_polynomial:degree=1.5", TypeError, "degree must be a whole number; got 1.5"),
        ("optimal:labels=true", ValueError, "needs labels, and .* has none"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_the_work(spec, error, message):
    with pytest.raises(error, match=message):
        Architecture.parse(spec).check(DATA)


@pytest.mark.core
def test_windows_and_features_shrink():
    # The published ten for 64 pixels: 64 55 45 35 27 21 15 11 7 3, evenly spaced within a few.
    found = shrinking_windows(10, (64, 64, 3))
    assert found[0] is None
    assert found[-1] == 3
    sides = [side for side in found if side is not None]
    assert all(side % 2 == 1 for side in sides)
    assert sides == sorted(sides, reverse=True)
    assert shrinking_windows(1, (8, 8, 1)) == [None]
    assert all(side >= 1 for side in shrinking_windows(6, (2, 2, 1))[1:] if side)
    features = shrinking_features(10, 1024)
    assert (features[0], features[-1]) == (1024, 8)
    assert features == sorted(features, reverse=True)
    assert shrinking_features(3, 4) == [4, 4, 4]


@pytest.mark.core
def test_every_form_names_its_options():
    for name, form in CLOSED_FORMS.items():
        assert set(form.needed) <= set(form.options), name
