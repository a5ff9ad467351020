"""The three ranges of an image and the ways between them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import _pixels

LEVELS = np.arange(256, dtype=np.uint8)


@pytest.mark.core
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize(
    ("convert", "expected"),
    [(_pixels.to_model, LEVELS / 127.5 - 1), (_pixels.to_unit, LEVELS / 255)],
    ids=["model", "unit"],
)
def test_all_256_levels(convert, expected, array):
    x = convert(array(LEVELS))
    assert isinstance(x, type(array(LEVELS))) or isinstance(x, jax.Array)
    assert x.dtype == np.float32
    # Two roundings of numbers up to 2.
    np.testing.assert_allclose(np.asarray(x), expected, atol=2.5e-7)


def test_numpy_stays_numpy_and_jax_stays_jax():
    for convert in (_pixels.to_model, _pixels.to_unit):
        assert type(convert(LEVELS)) is np.ndarray
        assert isinstance(convert(jnp.asarray(LEVELS)), jax.Array)


def test_ends_and_middle_are_exact():
    np.testing.assert_array_equal(_pixels.to_model(np.array([0, 255], np.uint8)), [-1, 1])
    np.testing.assert_array_equal(_pixels.to_unit(np.array([0, 255], np.uint8)), [0, 1])
    np.testing.assert_array_equal(_pixels.to_unit(np.array([-1.0, 0.0, 1.0])), [0, 0.5, 1])


def test_floats_are_model_units_and_are_never_clipped():
    wild = np.array([-3.0, 1.5], np.float32)
    np.testing.assert_array_equal(_pixels.to_model(wild), wild)
    np.testing.assert_array_equal(_pixels.to_unit(wild), [-1.0, 1.25])


def test_float64_becomes_float32():
    assert _pixels.to_model(np.zeros(3)).dtype == np.float32
    assert _pixels.to_unit(np.zeros(3)).dtype == np.float32


@pytest.mark.core
def test_uint8_survives_the_way_to_model_units_and_back():
    np.testing.assert_array_equal(_pixels.to_uint8(_pixels.to_model(LEVELS)), LEVELS)
    np.testing.assert_array_equal(_pixels.to_uint8(LEVELS), LEVELS)


def test_pictures_round_and_clip():
    x = np.array([-2.0, -1.0, 1.0, 7.0, 10.4 / 127.5 - 1, 10.6 / 127.5 - 1])
    np.testing.assert_array_equal(_pixels.to_uint8(x), [0, 0, 255, 255, 10, 11])


def test_conversions_trace_under_jit():
    x = jax.jit(_pixels.to_model)(jnp.asarray(LEVELS))
    np.testing.assert_allclose(np.asarray(x), LEVELS / 127.5 - 1, atol=2.5e-7)
