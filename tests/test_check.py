"""Every check: what it accepts, what it returns, what it says."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import _check


def refused(error, *words):
    """pytest.raises(error) whose message holds all words, in order."""
    return pytest.raises(error, match=".*".join(re.escape(word) for word in words))


# Choices


@pytest.mark.core
def test_choice_returns_an_accepted_name():
    assert _check.choice("solver", "heun", ["ddim", "heun"]) == "heun"


@pytest.mark.core
def test_choice_lists_close_matches_first_and_then_all():
    with refused(ValueError, "solver is 'huen'", "Did you mean 'heun'?", "Accepted: ddim, heun."):
        _check.choice("solver", "huen", ["heun", "ddim"])


def test_choice_without_a_close_match_offers_none():
    with refused(ValueError, "solver is 'zzz'. Accepted: ddim, heun."):
        _check.choice("solver", "zzz", ["heun", "ddim"])


@pytest.mark.parametrize("value", [3, None, True, ("heun",)], ids=repr)
def test_choice_takes_only_strings(value):
    with refused(ValueError, "solver is", "Accepted: ddim, heun."):
        _check.choice("solver", value, ["heun", "ddim"])


def test_options_refuse_the_first_unknown_name():
    _check.options("option of unet", ["width"], ["width", "levels"])
    with refused(ValueError, "option of unet is 'widht'", "'width'", "Accepted: levels, width."):
        _check.options("option of unet", {"width": 1, "widht": 2}, ["width", "levels"])


# Numbers


@pytest.mark.parametrize("value", [1, 5, np.int64(5), np.uint8(5)], ids=repr)
def test_integer_returns_a_python_int(value):
    assert type(_check.integer("steps", value)) is int


@pytest.mark.parametrize("value", [1.0, "3", None, True, np.True_, np.float32(2)], ids=repr)
def test_integer_refuses_what_is_not_a_whole_number(value):
    with refused(TypeError, "steps must be a whole number; got", type(value).__name__):
        _check.integer("steps", value)


def test_integer_range():
    assert _check.integer("n", 0, minimum=0) == 0
    assert _check.integer("n", 4, maximum=4) == 4
    with refused(ValueError, "n must be at least 1; got 0."):
        _check.integer("n", 0)
    with refused(ValueError, "n must be from 2 to 4; got 5."):
        _check.integer("n", 5, minimum=2, maximum=4)


@pytest.mark.parametrize("value", [2, 2.5, np.float32(2.5), np.int32(2)], ids=repr)
def test_number_returns_a_python_float(value):
    assert type(_check.number("rho", value)) is float


@pytest.mark.parametrize("value", ["2", None, True, 1j, np.True_], ids=repr)
def test_number_refuses_what_is_not_real(value):
    with refused(TypeError, "rho must be a number; got", type(value).__name__):
        _check.number("rho", value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=repr)
def test_number_refuses_what_is_not_finite(value):
    with refused(ValueError, "rho must be in (-inf, inf)"):
        _check.number("rho", value)


@pytest.mark.parametrize(
    ("closed", "low_end", "high_end", "words"),
    [
        ("", False, False, "(0, 1)"),
        ("[", True, False, "[0, 1)"),
        ("]", False, True, "(0, 1]"),
        ("[]", True, True, "[0, 1]"),
    ],
)
def test_number_ends_belong_only_where_closed(closed, low_end, high_end, words):
    for value, accepted in ((0, low_end), (1, high_end), (0.5, True), (-0.1, False), (1.1, False)):
        if accepted:
            assert _check.number("p", value, above=0, below=1, closed=closed) == value
        else:
            with refused(ValueError, f"p must be in {words}; got {value}."):
                _check.number("p", value, above=0, below=1, closed=closed)


@pytest.mark.parametrize("value", [True, False, np.True_], ids=repr)
def test_boolean_returns_a_python_bool(value):
    assert _check.boolean("skips", value) is bool(value)


@pytest.mark.parametrize("value", [1, 0.0, "true", None], ids=repr)
def test_boolean_refuses_what_only_looks_like_one(value):
    with refused(TypeError, "skips must be True or False; got", repr(value)):
        _check.boolean("skips", value)


# Images, labels, weights


def test_image_shape_takes_tuples_and_lists():
    assert _check.image_shape("image_shape", [8, np.int64(9), 3]) == (8, 9, 3)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1, 1), 8, None, {8, 9, 3}], ids=repr)
def test_image_shape_refuses_another_rank(shape):
    with refused(ValueError, "image_shape must be (height, width, channels); got"):
        _check.image_shape("image_shape", shape)


def test_image_shape_names_the_place():
    with refused(ValueError, "image_shape[1] must be at least 1; got 0."):
        _check.image_shape("image_shape", (8, 0, 1))
    with refused(TypeError, "image_shape[2] must be a whole number"):
        _check.image_shape("image_shape", (8, 8, 1.0))


@pytest.mark.core
def test_images_come_back_unchanged_as_uint8_or_float32():
    bytes_ = np.zeros((2, 3, 4, 1), np.uint8)
    assert _check.images("images", bytes_) is bytes_
    floats = _check.images("images", np.linspace(-1, 1, 24).reshape(2, 3, 4, 1))
    assert floats.dtype == np.float32
    assert isinstance(_check.images("images", jnp.zeros((1, 2, 2, 1))), np.ndarray)


def test_toy_points_may_lie_anywhere_finite():
    assert _check.images("images", np.full((2, 1, 1, 2), 9.0)).max() == 9
    with refused(ValueError, "images holds NaN or infinite values"):
        _check.images("images", np.full((2, 1, 1, 2), np.inf))


@pytest.mark.parametrize(
    ("array", "error", "words"),
    [
        (np.zeros((1, 2, 2, 1), np.int32), TypeError, ["must be uint8", "got dtype int32"]),
        (np.zeros((1, 2, 2, 1), bool), TypeError, ["must be uint8", "got dtype bool"]),
        (np.zeros((2, 2, 1)), ValueError, ["[N, height, width, channels]", "rank 3", "(2, 2, 1)"]),
        (np.zeros((0, 2, 2, 1)), ValueError, ["at least one image", "(0, 2, 2, 1)"]),
        (np.full((1, 2, 2, 1), np.nan), ValueError, ["holds NaN"]),
        (np.full((1, 2, 2, 1), 1.5), ValueError, ["must lie in [-1, 1]", "got [1.5, 1.5]"]),
        (np.full((1, 2, 2, 1), -2.0), ValueError, ["must lie in [-1, 1]", "got [-2, -2]"]),
    ],
    ids=["int", "bool", "rank", "empty", "nan", "high", "low"],
)
def test_images_refuse(array, error, words):
    with refused(error, "images", *words):
        _check.images("images", array)


def test_images_of_another_shape_are_refused():
    with refused(ValueError, "held_out must be images of shape (8, 8, 1); got (2, 2, 1)."):
        _check.images("held_out", np.zeros((1, 2, 2, 1), np.uint8), shape=(8, 8, 1))


def test_labels_come_back_as_int32():
    labels = _check.labels("labels", [0, 2, 1], 3, num_classes=3)
    assert labels.dtype == np.int32
    assert labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("array", "classes", "error", "words"),
    [
        ([0.0, 1.0], None, TypeError, ["must be integers", "float64"]),
        ([True, False], None, TypeError, ["must be integers", "bool"]),
        ([0, 1, 2], None, ValueError, ["must have shape (2,)", "got (3,)"]),
        ([[0], [1]], None, ValueError, ["must have shape (2,)", "got (2, 1)"]),
        ([-1, 0], None, ValueError, ["must lie in 0 .. num_classes - 1", "got -1 .. 0"]),
        ([0, 3], 3, ValueError, ["must lie in 0 .. 2", "got 0 .. 3"]),
    ],
    ids=["float", "bool", "length", "rank", "negative", "high"],
)
def test_labels_refuse(array, classes, error, words):
    with refused(error, "labels", *words):
        _check.labels("labels", array, 2, classes)


def test_weights_come_back_summing_to_one():
    weights = _check.weights("weights", np.array([1, 3], np.float32), 2)
    assert weights.dtype == np.float64
    np.testing.assert_array_equal(weights, [0.25, 0.75])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        ([1.0], ["must have shape (2,)", "got (1,)"]),
        ([[1.0], [1.0, 2.0]], ["must have shape (2,)", "lists in a list"]),
        ([1.0, -1.0], ["must be finite and not negative; got -1.0 at place 1."]),
        ([-np.inf, -1.0], ["must be finite and not negative; got -inf at place 0 and 1 more."]),
        ([1.0, np.nan], ["must be finite and not negative; got nan at place 1."]),
        ([1.0, np.inf], ["must be finite and not negative; got inf at place 1."]),
        ([0.0, 0.0], ["must not all be zero"]),
        ([1e308, 1.7e308], ["must have a finite sum; got up to 1.7e+308."]),
    ],
    ids=["length", "ragged", "negative", "both", "nan", "infinite", "zero", "sum"],
)
def test_weights_refuse(array, words):
    with refused(ValueError, "weights", *words):
        _check.weights("weights", array, 2)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [([1j, 1.0], "complex128"), (["1", "b"], "<U1"), ([None, 1.0], "object")],
    ids=["complex", "words", "none"],
)
def test_weights_that_are_no_real_numbers_are_refused(array, dtype):
    with refused(TypeError, f"weights must be real numbers; got dtype {dtype}."):
        _check.weights("weights", array, 2)


@pytest.mark.parametrize(
    "array",
    [[1, 3], np.array([1, 3], np.uint8), jnp.array([1, 3], jnp.bfloat16)],
    ids=["integers", "bytes", "bfloat16"],
)
def test_weights_may_be_of_any_real_kind(array):
    np.testing.assert_array_equal(_check.weights("weights", array, 2), [0.25, 0.75])


# Noise levels and keys


@pytest.mark.core
def test_sigmas_end_in_zero():
    grid = _check.sigmas("sigmas", [80.0, 1.0, 0.0])
    assert grid.dtype == np.float32
    assert grid.tolist() == [80, 1, 0]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (1.0, ["one-dimensional grid of at least two", "shape ()"]),
        ([0.0], ["one-dimensional grid of at least two", "shape (1,)"]),
        ([[1.0, 0.0]], ["one-dimensional grid", "shape (1, 2)"]),
        (["a", "b"], ["one-dimensional grid", "dtype <U1"]),
        ([2.0, 1.0], ["must decrease strictly to 0", "noise.karras(18)"]),
        ([1.0, 1.0, 0.0], ["must decrease strictly to 0"]),
        ([1.0, 2.0, 0.0], ["must decrease strictly to 0"]),
        ([np.inf, 1.0, 0.0], ["must decrease strictly to 0"]),
        ([np.nan, 0.0], ["must decrease strictly to 0"]),
        ([1.0, 0.0, -1.0], ["must decrease strictly to 0"]),
        # Two levels that float32 cannot tell apart.
        ([1.0 + 1e-12, 1.0, 0.0], ["must decrease strictly to 0"]),
    ],
    ids=str,
)
def test_sigmas_refuse(array, words):
    with refused(ValueError, "sigmas", *words):
        _check.sigmas("sigmas", array)


@pytest.mark.parametrize("array", [[2.0, 1.0], [2.0, 1.0, 0.0], np.array([2, 1])], ids=repr)
def test_levels_leave_off_the_closing_zero(array):
    assert _check.levels("sigmas", array).tolist() == [2, 1]


def test_one_level_is_a_grid_of_one():
    assert _check.levels("sigmas", 0.5).tolist() == [0.5]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        ([], ["must hold at least one positive noise level"]),
        (0.0, ["must be positive noise levels"]),
        ([1.0, -1.0], ["must be positive noise levels"]),
        ([1.0, 0.0, 0.0], ["must be positive noise levels"]),
        ([np.nan], ["must be positive noise levels"]),
        ([[2.0, 1.0]], ["must be positive noise levels"]),
        ([1.0, 2.0], ["must decrease strictly"]),
        ([1.0, 1.0], ["must decrease strictly"]),
    ],
    ids=str,
)
def test_levels_refuse(array, words):
    with refused(ValueError, "sigmas", *words):
        _check.levels("sigmas", array)


@pytest.mark.core
def test_key_passes_typed_threefry_keys_through():
    key = jax.random.key(3)
    assert _check.key("key", key) is key


@pytest.mark.parametrize(
    "value",
    [0, np.zeros(2, np.uint32), jax.random.PRNGKey, "key"],
    ids=["int", "raw", "function", "str"],
)
def test_key_refuses_what_is_not_a_typed_key(value):
    with refused(TypeError, "key must be one typed key, as jax.random.key(0) makes it; got"):
        _check.key("key", value)


def test_key_refuses_raw_jax_keys_and_several_keys():
    with refused(TypeError, "key must be one typed key"):
        _check.key("key", jax.random.key_data(jax.random.key(0)))
    with refused(TypeError, "key must be one typed key"):
        _check.key("key", jax.random.split(jax.random.key(0), 2))


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_key_refuses_other_generators(kind):
    with refused(TypeError, "key must be a threefry2x32 key", "got", "rbg"):
        _check.key("key", jax.random.key(0, impl=kind))


@pytest.mark.core
def test_odd():
    assert _check.odd("side", np.int64(3), 5) == 3
    with refused(ValueError, "side must be odd, from 1 to 5; got 4."):
        _check.odd("side", 4, 5)
    with refused(ValueError, "side must be odd, from 1 to 5, or None; got 2."):
        _check.odd("side", 2, 5, ", or None")
    with refused(ValueError, "side must be from 1 to 5; got 7."):
        _check.odd("side", 7, 5)
    with refused(TypeError, "side must be a whole number; got 3.0"):
        _check.odd("side", 3.0, 5)
