"""What is admitted as a denoiser, and what the checks shared by all of them refuse."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff.denoisers import Denoiser, LinearDenoiser, wrap
from jdiff.denoisers.protocol import (
    check_denoiser,
    check_labels,
    check_levels,
    check_rows,
    flatten,
)

SHAPE = (2, 3, 1)


def refused(error, *words):
    """pytest.raises(error) whose message holds all words, in order."""
    return pytest.raises(error, match=".*".join(re.escape(word) for word in words))


def shrink(y, sigma):
    return y / (1 + sigma**2)


class Classes:
    """A denoiser of two classes, no more than the checks look at."""

    image_shape = SHAPE
    sigmas = None
    num_classes = 2

    def __call__(self, y, sigma, labels=None):
        return y


# wrap


@pytest.mark.core
def test_wrap_makes_a_denoiser_of_a_function(rng):
    denoiser = wrap(shrink, SHAPE)
    assert isinstance(denoiser, Denoiser)
    assert denoiser.image_shape == SHAPE
    assert denoiser.sigmas is None
    y = jnp.asarray(rng.standard_normal((4, *SHAPE)), jnp.float32)
    through_jit = jax.jit(lambda d, y, s: d(y, s))(denoiser, y, jnp.float32(0.5))
    np.testing.assert_allclose(through_jit, np.asarray(y) / 1.25, rtol=1e-6)
    np.testing.assert_allclose(denoiser(y, jnp.float32(0.5)), through_jit, rtol=1e-6)


def test_wrap_hands_labels_over_only_where_given():
    with_labels = lambda y, sigma, labels=7: jnp.zeros_like(y) + labels
    denoiser, y = wrap(with_labels, SHAPE), jnp.zeros((1, *SHAPE))
    assert float(denoiser(y, jnp.float32(1))[0, 0, 0, 0]) == 7
    assert float(denoiser(y, jnp.float32(1), jnp.int32(3))[0, 0, 0, 0]) == 3


@pytest.mark.parametrize("sigmas", [[2.0, 0.5], [2.0, 0.5, 0.0]], ids=["open", "closed"])
def test_levels_are_an_array_leaf_without_the_closing_zero(sigmas):
    denoiser = wrap(shrink, SHAPE, sigmas=sigmas)
    (leaf,) = jax.tree.leaves(denoiser)
    assert leaf.dtype == jnp.float32
    assert leaf.tolist() == [2.0, 0.5]
    # Other levels, the same compiled program.
    other = wrap(shrink, SHAPE, sigmas=[3.0, 1.0])
    assert jax.tree.structure(denoiser) == jax.tree.structure(other)


@pytest.mark.parametrize(
    ("function", "shape", "sigmas", "error", "words"),
    [
        (3, SHAPE, None, TypeError, ["function must be callable; got 3"]),
        (shrink, (2, 3), None, ValueError, ["image_shape must be (height, width, channels); got"]),
        (shrink, (2, 0, 1), None, ValueError, ["image_shape[1] must be at least 1; got 0"]),
        (shrink, SHAPE, [1.0, 2.0], ValueError, ["sigmas must decrease strictly; got [1. 2.]"]),
        (shrink, SHAPE, [-1.0], ValueError, ["sigmas must be positive noise levels", "[-1.]"]),
    ],
    ids=["function", "rank", "size", "order", "sign"],
)
def test_wrap_refuses(function, shape, sigmas, error, words):
    with refused(error, *words):
        wrap(function, shape, sigmas=sigmas)


def test_a_function_that_changes_the_shape_is_an_assertion():
    with pytest.raises(AssertionError):
        wrap(lambda y, sigma: y[:, :1], SHAPE)(jnp.zeros((1, *SHAPE)), jnp.float32(1))


# Rows


@pytest.mark.core
@pytest.mark.parametrize(
    ("array", "words"),
    [
        (jnp.zeros((2, 3, 1)), "got float32 [2, 3, 1]."),
        (jnp.zeros((1, 3, 2, 1)), "got float32 [1, 3, 2, 1]."),
        (jnp.zeros((1, *SHAPE), jnp.uint8), "got uint8 [1, 2, 3, 1]."),
    ],
    ids=["rank", "shape", "dtype"],
)
def test_rows_refuse(array, words):
    for checked in (check_rows, jax.jit(check_rows, static_argnums=(0, 2))):
        with refused(ValueError, "y must be a float array [B, 2, 3, 1];", words):
            checked("y", array, SHAPE)


def test_any_float_is_accepted_as_rows():
    for dtype in (jnp.float32, jnp.bfloat16):
        check_rows("y", jnp.zeros((0, *SHAPE), dtype), SHAPE)


def test_flatten_gives_every_row_its_level(rng):
    y = jnp.asarray(rng.standard_normal((2, *SHAPE)), jnp.float32)
    flat, level = flatten(y, 0.5, SHAPE)
    np.testing.assert_array_equal(flat, np.asarray(y).reshape(2, 6))
    np.testing.assert_array_equal(level, [[0.5], [0.5]])
    np.testing.assert_array_equal(flatten(y, jnp.array([1.0, 2.0]), SHAPE)[1], [[1], [2]])


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 1)], ids=str)
def test_flatten_refuses_levels_for_other_rows(shape):
    with refused(ValueError, "sigma must be a scalar or [2]; got shape", str(shape)):
        flatten(jnp.zeros((2, *SHAPE)), jnp.ones(shape), SHAPE)


# Denoisers


def test_check_denoiser_accepts_any_object_with_the_three():
    check_denoiser(Classes())
    check_denoiser(wrap(shrink, SHAPE))


class NotCallable:
    image_shape = SHAPE
    sigmas = None


@pytest.mark.core
@pytest.mark.parametrize(
    ("value", "name"),
    [(shrink, "function"), (None, "NoneType"), (NotCallable(), "NotCallable")],
    ids=["function", "none", "not-callable"],
)
def test_check_denoiser_refuses(value, name):
    with refused(
        TypeError,
        "denoiser must be callable with image_shape and sigmas (see jdiff.denoisers.wrap",
        f"got {name}.",
    ):
        check_denoiser(value)


# Levels


def test_levels_are_compared_at_a_relative_1e_5():
    denoiser = wrap(shrink, SHAPE, sigmas=[80.0, 0.002])
    for factor in (1.0, 1 + 5e-6, 1 - 5e-6):
        check_levels(denoiser, np.array([80.0 * factor, 0.002 * factor, 0.0]))
    for factor in (1 + 2e-5, 1 - 2e-5):
        with refused(ValueError, "sigmas asks for level"):
            check_levels(denoiser, np.array([80.0, 0.002 * factor, 0.0]))


def test_a_denoiser_without_levels_takes_any():
    check_levels(wrap(shrink, SHAPE), np.array([123.0, 0.0]))


def test_check_levels_names_the_first_level_that_is_missing():
    denoiser = wrap(shrink, SHAPE, sigmas=[2.0, 0.5])
    check_levels(denoiser, np.array([0.5, 0.0]))  # some of them will do
    with refused(
        ValueError,
        "sigmas asks for level 1.5, but this FunctionDenoiser is defined only at 2, 0.5.",
    ):
        check_levels(denoiser, np.array([2.0, 1.5, 0.7, 0.0]))


# Labels


@pytest.mark.core
def test_labels_come_back_as_int32_rows():
    for given in ([0, 1, 2], np.array([0, 1, 2], np.uint8), jnp.array([0, 1, 2])):
        labels = check_labels(Classes(), given, 3)
        assert labels is not None
        assert labels.dtype == np.int32
        assert labels.tolist() == [0, 1, 2]  # 2 is the null class


def test_one_label_serves_all_rows():
    labels = check_labels(Classes(), 1, 3)
    assert labels is not None
    assert labels.tolist() == [1, 1, 1]


def test_no_labels_stay_no_labels():
    assert check_labels(Classes(), None, 3) is None
    assert check_labels(LinearDenoiser.fit(np.zeros((2, *SHAPE), np.uint8)), None, 3) is None


def test_a_wrapped_function_may_take_any_label():
    labels = check_labels(wrap(shrink, SHAPE), [0, 99], 2)
    assert labels is not None
    assert labels.tolist() == [0, 99]


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        ([0, 1], ValueError, ["labels must have shape (3,); got (2,)"]),
        ([[0, 1, 1]], ValueError, ["labels must have shape (3,); got (1, 3)"]),
        ([0, 1, 3], ValueError, ["labels must lie in 0 .. 2; got 0 .. 3"]),
        (-1, ValueError, ["labels must lie in 0 .. 2; got -1 .. 0"]),
        (3, ValueError, ["labels must lie in 0 .. 2; got 0 .. 3"]),
        ([0.0, 1.0, 1.0], TypeError, ["labels must be integers; got dtype float64"]),
    ],
    ids=["length", "rank", "high", "negative", "one-high", "float"],
)
def test_labels_refuse(labels, error, words):
    with refused(error, *words):
        check_labels(Classes(), labels, 3)


def test_labels_without_classes_are_refused():
    denoiser = LinearDenoiser.fit(np.zeros((2, *SHAPE), np.uint8))
    with refused(ValueError, "labels were given, but this LinearDenoiser has no classes."):
        check_labels(denoiser, [0], 1)
