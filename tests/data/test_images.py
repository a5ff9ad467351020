"""ImageData: subsets, fingerprints, and what from_arrays accepts and refuses."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from jdiff.data import ImageData, from_arrays


def numbered(n: int, dtype: type = np.uint8) -> np.ndarray:
    """Images [n, 2, 3, 1] whose every pixel is the image's number (uint8) or a value in [-1, 1]."""
    ramp = np.arange(n) if dtype is np.uint8 else np.linspace(-1, 1, n)
    return np.broadcast_to(ramp[:, None, None, None], (n, 2, 3, 1)).astype(dtype)


def ids(images: np.ndarray) -> np.ndarray:
    return images[:, 0, 0, 0]


def data(**changes) -> ImageData:
    """20 training images with labels and weights, 6 held out."""
    given = {
        "images": numbered(20),
        "labels": np.arange(20) % 4,
        "held_out": numbered(6),
        "held_out_labels": np.arange(6) % 4,
        "weights": np.arange(20.0),
    }
    return from_arrays(**(given | changes))


@pytest.mark.core
def test_fields_have_the_promised_types():
    d = data()
    assert (d.images.dtype, d.held_out.dtype) == (np.uint8, np.uint8)
    assert {np.asarray(d.labels).dtype, np.asarray(d.held_out_labels).dtype} == {np.dtype(np.int32)}
    assert np.asarray(d.weights).dtype == np.float64
    np.testing.assert_allclose(np.asarray(d.weights), np.arange(20) / 190, rtol=1e-15)
    assert (d.image_shape, d.num_train, d.num_classes) == ((2, 3, 1), 20, 4)


def test_is_frozen_and_compares_by_identity():
    d = data()
    with pytest.raises(dataclasses.FrozenInstanceError):
        d.name = "other"  # type: ignore[misc]
    assert d != data()  # An elementwise == would be an array, and raise in `if`.


def test_floats_become_float32_and_jax_arrays_become_numpy():
    d = from_arrays(jax.numpy.zeros((3, 2, 2, 1)), held_out=np.ones((2, 2, 2, 1), np.float64))
    assert type(d.images) is np.ndarray
    assert d.images.dtype == d.held_out.dtype == np.float32


def test_toy_points_may_lie_outside_the_range_and_images_may_not():
    points = np.full((3, 1, 1, 2), 3.0)
    assert from_arrays(points, held_out=points).images.max() == 3.0
    with pytest.raises(ValueError, match=r"images must lie in \[-1, 1\].*got \[0, 3\]"):
        from_arrays(numbered(4).astype(np.float32), held_out=numbered(4))


@pytest.mark.core
def test_subset_takes_the_first_of_the_keys_permutation_and_all_rows_follow():
    d = data()
    s = d.subset(7, jax.random.key(3))
    rows = np.asarray(jax.random.permutation(jax.random.key(3), 20))[:7]
    np.testing.assert_array_equal(ids(s.images), rows)
    np.testing.assert_array_equal(s.labels, rows % 4)
    np.testing.assert_allclose(np.asarray(s.weights), rows / rows.sum(), rtol=1e-14)
    assert s.held_out is d.held_out
    assert s.held_out_labels is d.held_out_labels
    assert (s.name, s.num_classes) == (d.name, d.num_classes)


def test_subset_of_all_is_a_permutation_and_another_key_another_subset():
    d = data(labels=None, held_out_labels=None, weights=None)
    s = d.subset(20, jax.random.key(0))
    assert sorted(ids(s.images)) == list(range(20))
    assert s.labels is None
    assert s.weights is None
    assert set(ids(d.subset(8, jax.random.key(0)).images)) != set(
        ids(d.subset(8, jax.random.key(1)).images)
    )


def test_subset_keeps_a_class_that_it_lost():
    assert data(weights=None).subset(1, jax.random.key(0)).num_classes == 4


@pytest.mark.parametrize("n", [0, 21, -1])
def test_subset_out_of_range(n):
    with pytest.raises(ValueError, match=f"n must be from 1 to 20; got {n}"):
        data().subset(n, jax.random.key(0))


def test_subset_wants_a_whole_number_and_a_typed_threefry_key():
    with pytest.raises(TypeError, match=r"n must be a whole number; got 3\.0"):
        data().subset(3.0, jax.random.key(0))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="key must be one typed key"):
        data().subset(3, jax.random.PRNGKey(0))
    with pytest.raises(TypeError, match="key must be a threefry2x32 key"):
        data().subset(3, jax.random.key(0, impl="rbg"))


def test_subset_of_weight_zero_is_refused():
    last = int(jax.random.permutation(jax.random.key(0), 20)[-1])
    d = data(weights=np.eye(20)[last])
    with pytest.raises(ValueError, match="weights drawn must not all be zero"):
        d.subset(2, jax.random.key(0))


@pytest.mark.core
@pytest.mark.parametrize(
    "changes",
    [
        {"images": numbered(20)[::-1]},
        {
            "images": numbered(20).transpose(0, 2, 1, 3),
            "held_out": numbered(6).transpose(0, 2, 1, 3),
        },
        {"labels": (np.arange(20) + 1) % 4},
        {"labels": None, "held_out_labels": None},
        {"held_out_labels": None},
        {"weights": None},
        {"weights": np.arange(20.0) ** 2},
        {"held_out": numbered(6)[::-1]},
        {"num_classes": 5},
    ],
    ids=str,
)
def test_fingerprint_changes_with_everything_it_covers(changes):
    assert data(**changes).fingerprint() != data().fingerprint()


def test_fingerprint_sees_dtype_and_not_name_or_memory_layout():
    zeros = np.zeros((4, 2, 2, 1), np.uint8)
    as_uint8 = from_arrays(zeros, held_out=zeros)
    as_float = from_arrays(zeros.astype(np.float32), held_out=zeros.astype(np.float32))
    assert as_uint8.fingerprint() != as_float.fingerprint()
    assert data(name="other").fingerprint() == data().fingerprint()
    assert data(images=np.asfortranarray(numbered(20))).fingerprint() == data().fingerprint()
    assert re.fullmatch("[0-9a-f]{16}", data().fingerprint())


@pytest.mark.core
def test_a_fraction_splits_off_by_key_and_loses_nothing():
    d = data(held_out=0.3, key=jax.random.key(5), weights=None, held_out_labels=None)
    assert (d.num_train, len(d.held_out)) == (14, 6)
    assert sorted([*ids(d.images), *ids(d.held_out)]) == list(range(20))
    np.testing.assert_array_equal(d.labels, ids(d.images) % 4)
    np.testing.assert_array_equal(d.held_out_labels, ids(d.held_out) % 4)
    again = data(held_out=0.3, key=jax.random.key(5), weights=None, held_out_labels=None)
    other = data(held_out=0.3, key=jax.random.key(6), weights=None, held_out_labels=None)
    assert d.fingerprint() == again.fingerprint() != other.fingerprint()


def test_num_classes_is_inferred_from_both_sets_of_labels():
    assert data(held_out_labels=np.full(6, 8)).num_classes == 9
    assert data(held_out_labels=None).num_classes == 4
    assert data(num_classes=10).num_classes == 10
    assert data(labels=None, held_out_labels=None).num_classes is None


def test_repr_is_one_line():
    assert repr(data()) == (
        "ImageData('arrays': 20 training and 6 held-out images, 2x3x1 uint8, 4 classes, weighted)"
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": numbered(20)[0]}, ValueError, r"images must have shape \[N, height.*rank 3"),
        ({"images": numbered(20).astype(int)}, TypeError, "images must be uint8.*got dtype int64"),
        ({"images": numbered(0)}, ValueError, "images must hold at least one image"),
        ({"images": np.full((4, 2, 3, 1), np.nan)}, ValueError, "images holds NaN"),
        ({"labels": np.arange(19)}, ValueError, r"labels must have shape \(20,\); got \(19,\)"),
        ({"labels": np.zeros(20)}, TypeError, "labels must be integers; got dtype float64"),
        (
            {"labels": np.arange(20), "num_classes": 4},
            ValueError,
            r"lie in 0 \.\. 3; got 0 \.\. 19",
        ),
        ({"labels": np.arange(20) - 1}, ValueError, r"labels must lie in .*got -1 \.\. 18"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1; got 0"),
        ({"labels": None}, ValueError, "held_out_labels is given without labels"),
        (
            {"labels": None, "held_out_labels": None, "num_classes": 3},
            ValueError,
            "num_classes is given without labels",
        ),
        ({"weights": np.ones(3)}, ValueError, r"weights must have shape \(20,\); got \(3,\)"),
        ({"weights": -np.ones(20)}, ValueError, r"not negative; got -1\.0 at place 0"),
        ({"weights": np.zeros(20)}, ValueError, "weights must not all be zero"),
        ({"held_out": None}, ValueError, "held_out= is missing"),
        (
            {"held_out": numbered(6)[:, :1]},
            ValueError,
            r"held_out must be images of shape \(2, 3, 1\)",
        ),
        (
            {"held_out": numbered(6, np.float32)},
            TypeError,
            "held_out must have the dtype of images",
        ),
        ({"held_out": "test"}, TypeError, "held_out must be uint8"),
        ({"held_out_labels": np.arange(5)}, ValueError, r"held_out_labels must have shape \(6,\)"),
        (
            {"held_out_labels": np.arange(6), "num_classes": 4},
            ValueError,
            r"held_out_labels must lie in 0 \.\. 3",
        ),
        (
            {"held_out": 0.2},
            ValueError,
            "held_out_labels cannot be used with held_out as a fraction",
        ),
        ({"held_out": 0.2, "held_out_labels": None}, ValueError, "weights cannot be used with"),
    ],
)
def test_bad_input(changes, error, message):
    with pytest.raises(error, match=message):
        data(**changes)


@pytest.mark.parametrize(
    ("held_out", "key", "error", "message"),
    [
        (0.2, None, ValueError, "key= is missing"),
        (0.2, 0, TypeError, "key must be one typed key"),
        (1.0, None, ValueError, r"held_out \(a fraction\) must be in \(0\.0, 1\.0\); got 1\.0"),
        (0, None, ValueError, r"held_out \(a fraction\) must be in \(0\.0, 1\.0\); got 0"),
        (True, None, TypeError, "held_out .* must be a number; got True"),
    ],
)
def test_bad_fraction(held_out, key, error, message):
    with pytest.raises(error, match=message):
        from_arrays(numbered(20), held_out=held_out, key=key)


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_a_fraction_that_leaves_a_side_empty(fraction):
    with pytest.raises(ValueError, match=f"at least one image on both sides; got {fraction} of 20"):
        from_arrays(numbered(20), held_out=fraction, key=jax.random.key(0))
