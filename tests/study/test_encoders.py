"""Feature spaces: against NumPy, the same in any batch and process, kept and found again."""

import dataclasses
import functools
import json
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import data as datasets
from jdiff.data import from_arrays
from jdiff.study import classifier, encoders

pytestmark = pytest.mark.optimized


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


@pytest.fixture(scope="module")
def small():
    """Few digits, for classifiers of few steps, with held-out images of each class."""
    return datasets.load("digits").subset(100, jax.random.key(5))


@pytest.fixture
def never_trains(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("the classifier was trained")

    monkeypatch.setattr(classifier, "train", refuse)


create = functools.partial(encoders.create, progress=False)


def squared_distances(a):
    return np.sum((a[:, None] - a[None]) ** 2, axis=-1, dtype=np.float64)


def unit(images):
    """Images as float64 rows on [0, 1]."""
    return images.reshape(len(images), -1) / 255.0


@pytest.mark.core
def test_pixels_are_the_images_on_the_unit_scale(digits, rng):
    encoder = create("pixels", digits)
    assert encoder.name == "pixels"
    found = encoder(digits.held_out)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, unit(digits.held_out), atol=1e-7)
    # Samples in model units are not clipped: 1.8 is 1.4.
    samples = rng.uniform(-2, 2, (5, 8, 8, 1))
    np.testing.assert_allclose(encoder(samples), (samples.reshape(5, -1) + 1) / 2, atol=1e-6)


@pytest.mark.core
@pytest.mark.parametrize("num_train", [1000, 40], ids=["covariance", "thin svd"])
def test_pca_is_the_leading_subspace_of_the_training_pixels(digits, num_train):
    train = digits.subset(num_train, jax.random.key(2))
    encoder = create("pca:dim=7", train)
    assert encoder.name == "pca 7"
    mean = unit(train.images).mean(0)
    _, singular, axes = np.linalg.svd(unit(train.images) - mean, full_matrices=False)
    expected = (unit(digits.held_out[:50]) - mean) @ axes[:7].T
    found = encoder(digits.held_out[:50])
    # The axes' signs are free, the distances are not. float32 features of size 1: 1e-7 each.
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-6)
    np.testing.assert_allclose(
        squared_distances(found), squared_distances(expected), atol=1e-5, rtol=1e-6
    )
    variances = encoder(train.images).var(0, dtype=np.float64)
    np.testing.assert_allclose(variances, singular[:7] ** 2 / num_train, rtol=1e-5)


def test_all_axes_keep_all_distances_on_the_training_set(digits):
    train = digits.subset(30, jax.random.key(3))
    encoder = create("pca", train)
    assert encoder.name == "pca 29"  # 30 images span no more about their mean
    np.testing.assert_allclose(
        squared_distances(encoder(train.images)), squared_distances(unit(train.images)), atol=1e-4
    )


def test_pca_takes_weights_as_repeated_images(digits):
    images, counts = digits.images[:60], 1 + np.arange(60) % 3
    weighted = from_arrays(images, held_out=digits.held_out, weights=counts)
    repeated = from_arrays(np.repeat(images, counts, axis=0), held_out=digits.held_out)
    plain = from_arrays(images, held_out=digits.held_out)
    found, expected, other = (
        squared_distances(create("pca:dim=3", d)(digits.held_out[:20]))
        for d in (weighted, repeated, plain)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - other).max() > 1e-2


@pytest.mark.core
@pytest.mark.parametrize(
    "spec", ["pixels", "pca:dim=5", "random_conv:dim=6", "classifier:steps=2,dim=16"]
)
def test_features_depend_on_neither_batch_nor_order(spec, small):
    encoder = create(spec, small)
    images = small.held_out[:37]
    expected = encoder(images)
    assert len(expected) == 37
    assert np.ptp(expected, axis=0).max() > 0
    sizes = []

    def counted(x):
        sizes.append(len(x))
        return encoder.function(x)

    for batch_size in (37, 8, 1):
        other = dataclasses.replace(encoder, function=counted, batch_size=batch_size)
        # Other shapes may sum in another order.
        np.testing.assert_allclose(other(images), expected, rtol=1e-5, atol=1e-5)
    assert sizes == [37] + [8] * 5 + [1] * 37
    order = np.random.default_rng(1).permutation(37)
    np.testing.assert_allclose(encoder(images[order]), expected[order], rtol=1e-5, atol=1e-5)


def test_values_outside_the_range_are_not_clipped(small):
    far = np.full((1, 8, 8, 1), 1.0)
    for spec in ("pca:dim=5", "random_conv:dim=6"):
        encoder = create(spec, small)
        assert np.abs(encoder(3 * far) - encoder(far)).max() > 0.1


def test_any_number_of_images_shares_one_compilation(digits):
    encoder = create("random_conv:dim=9", digits)
    module: Any = encoders.ConvFeatures(9)
    encoder(digits.held_out[:1])
    for count in (2, 255, 300):
        encoder(digits.held_out[:count])
    other = create("random_conv:dim=9", digits, seed=1)
    other(digits.held_out)
    assert encoders._program(module)._cache_size() == 1


# Prints random features of eight images, in a process with four devices.
_PROGRAM = """
import json, sys, jax, jdiff
from jdiff.study import encoders
data = jdiff.data.load("digits")
features = encoders.create("random_conv:dim=6", data, seed=3)(data.held_out[:8])
print(json.dumps([jax.device_count(), features.tolist()]))
"""


@pytest.mark.devices
def test_random_convolutions_are_the_same_in_every_process(digits, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    devices, features = json.loads(done.stdout)
    assert devices == 4
    images = digits.held_out[:8]
    found = create("random_conv:dim=6", digits, seed=3)(images)
    np.testing.assert_allclose(found, features, rtol=1e-5, atol=1e-5)
    other = create("random_conv:dim=6", digits, seed=4)
    assert other.name == "random_conv 6, seed 4"
    assert np.abs(other(images) - found).max() > 0.1


def test_the_classifier_knows_digits_that_it_never_saw(digits, tmp_path):
    # Over seeds 300 steps give 98 % or 99 %; guessing gives 10 %.
    encoder = create("classifier:steps=300", digits, cache_dir=tmp_path)
    *_, accuracy = encoder.name.split()
    assert encoder.name == f"classifier 128, held-out accuracy {accuracy}"
    assert float(accuracy) >= 0.95
    # A linear probe fitted by least squares to the features of training images, in NumPy.
    one = lambda images: np.insert(encoder(images).astype(np.float64), 0, 1.0, axis=1)
    target = np.eye(10)[digits.labels]
    probe, *_ = np.linalg.lstsq(one(digits.images), target, rcond=None)
    right = np.argmax(one(digits.held_out) @ probe, axis=1) == digits.held_out_labels
    assert right.mean() >= 0.93
    # The accuracy that is told is that of the kept weights.
    with np.load(tmp_path / "classifier.npz") as kept:
        head = [kept[f"params/head/{name}"] for name in ("kernel", "bias")]
        stored = float(kept["accuracy"])
    logits = encoder(digits.held_out) @ head[0] + head[1]
    assert np.mean(np.argmax(logits, axis=1) == digits.held_out_labels) == pytest.approx(stored)
    assert f"{stored:.3f}" == accuracy


SPEC = "classifier:steps=3,dim=16"


def test_a_kept_classifier_is_found_again_without_training(small, tmp_path, request):
    first = create(SPEC, small, cache_dir=tmp_path / "run")
    features = first(small.held_out)
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["classifier.npz"]
    request.getfixturevalue("never_trains")
    again = create(SPEC, small, cache_dir=tmp_path / "run")
    assert again.name == first.name
    np.testing.assert_array_equal(again(small.held_out), features)


@pytest.mark.parametrize("what", ["steps", "dim", "seed", "data"])
def test_other_settings_or_data_train_anew(what, small, tmp_path, monkeypatch):
    create(SPEC, small, cache_dir=tmp_path)
    before = (tmp_path / "classifier.npz").read_bytes()
    trained = []
    train = classifier.train
    monkeypatch.setattr(classifier, "train", lambda *a: trained.append(1) or train(*a))
    spec = {"steps": "classifier:steps=4,dim=16", "dim": "classifier:steps=3,dim=17"}.get(
        what, SPEC
    )
    data = dataclasses.replace(small, images=small.images[::-1]) if what == "data" else small
    create(spec, data, cache_dir=tmp_path, seed=int(what == "seed"))
    assert trained == [1]
    assert (tmp_path / "classifier.npz").read_bytes() != before


def test_the_seed_decides_the_weights(small):
    features = [create(SPEC, small, seed=seed)(small.held_out) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(features[0], features[1])
    assert np.abs(features[0] - features[2]).max() > 1e-3


def flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        lambda file: file.write_bytes(file.read_bytes()[:1000]),
        lambda file: file.write_bytes(b""),
        lambda file: np.savez(file, weights=np.zeros(3)),
    ],
    ids=["a flipped bit", "cut off", "empty", "another file"],
)
def test_a_damaged_file_is_named_and_made_anew(damage, small, tmp_path, request):
    expected = create(SPEC, small, cache_dir=tmp_path)(small.held_out)
    damage(tmp_path / "classifier.npz")
    with pytest.warns(UserWarning, match=r"classifier\.npz is damaged"):
        found = create(SPEC, small, cache_dir=tmp_path)
    np.testing.assert_array_equal(found(small.held_out), expected)
    request.getfixturevalue("never_trains")
    create(SPEC, small, cache_dir=tmp_path)


def test_weights_that_are_not_the_networks_are_damage(small, tmp_path):
    create(SPEC, small, cache_dir=tmp_path)
    file = tmp_path / "classifier.npz"
    with np.load(file) as kept:
        arrays = {name: kept[name] for name in kept.files if name != "params/head/bias"}
    np.savez(file, **arrays)
    with pytest.warns(UserWarning, match="does not hold the network's weights"):
        create(SPEC, small, cache_dir=tmp_path)


def test_the_classifier_draws_by_weight(small):
    # All weight on images of 0 and 1: nothing else is ever seen, so nothing else is answered.
    weights = (small.labels < 2).astype(float)
    two = from_arrays(
        small.images,
        small.labels,
        held_out=small.held_out,
        held_out_labels=small.held_out_labels,
        weights=weights,
    )
    *_, accuracy = create("classifier:steps=60,dim=16", two).name.split()
    share = np.mean(small.held_out_labels < 2)
    assert 0.8 * share < float(accuracy) <= share + 5e-4


def test_a_function_is_given_float32_images_on_the_unit_scale(digits):
    given = []

    def mean_and_corner(x):
        given.append(x)
        return jnp.stack([jnp.mean(x, (1, 2, 3)), x[:, 0, 0, 0]], axis=1)

    encoder = create(mean_and_corner, digits)
    assert encoder.name == "mean_and_corner"
    samples = np.linspace(-3, 3, 300, dtype=np.float64)[:, None, None, None] * np.ones((8, 8, 1))
    found = encoder(samples)
    assert found.dtype == np.float32
    expected = np.repeat((np.linspace(-3, 3, 300)[:, None] + 1) / 2, 2, axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [(x.shape, x.dtype) for x in given] == [((256, 8, 8, 1), np.float32)] * 2
    assert create(encoder, digits) is encoder
    # Doubles are rounded to float32, as features are.
    doubles = create(lambda x: np.mean(x, axis=(1, 2), dtype=np.float64), digits)(samples)
    np.testing.assert_allclose(doubles, expected[:, :1], atol=1e-6)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda x: x, ValueError, r"features of shape \[256, d\].*got \(256, 8, 8, 1\)"),
        (lambda x: x[:3, 0, 0], ValueError, r"features of shape \[256, d\].*got \(3, 1\)"),
        (lambda x: x[:, :0, 0, 0], ValueError, r"got \(256, 0\)"),
        (lambda x: None, ValueError, r"got \(\)"),
        (lambda x: (x[:, :, 0, 0] * 9).astype(int), TypeError, "must give floats; got dtype int"),
        (lambda x: x[:, :, 0, 0] + 1j, TypeError, "must give floats; got dtype complex"),
        (
            lambda x: np.where(x[:, :1, 0, 0] > 0.4, np.nan, 1.0),
            ValueError,
            "finite features; those of 3 of 7 images hold NaN or infinite values",
        ),
        (lambda x: 1e300 * np.ones((len(x), 2)), ValueError, "those of 7 of 7 images"),
    ],
    ids=["rank", "rows", "none", "None", "int", "complex", "NaN", "overflow"],
)
def test_what_a_function_gives_is_checked(function, error, message, digits):
    encoder = create(function, digits)
    images = np.linspace(-1, 0.5, 7)[:, None, None, None] * np.ones((8, 8, 1))  # three above 0.4
    with pytest.raises(error, match=message):
        encoder(images)


def test_a_function_whose_features_change_in_number_is_refused(digits):
    calls = []

    def growing(x):
        calls.append(1)
        return np.ones((len(x), len(calls)))

    with pytest.raises(ValueError, match="one number of features; got 1, then 2"):
        create(growing, digits)(digits.held_out)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((2, 8, 8, 3)), ValueError, r"shape \[n, 8, 8, 1\] for the encoder pca 4; got"),
        (np.zeros((2, 64)), ValueError, r"got \(2, 64\)"),
        (np.zeros((0, 8, 8, 1)), ValueError, "at least one"),
        (np.zeros((2, 8, 8, 1), int), TypeError, "uint8, or float in model units"),
        (np.full((2, 8, 8, 1), np.nan), ValueError, "2 of 2 samples hold NaN"),
        (np.full((2, 8, 8, 1), 200.0), ValueError, "Pass 0..255 as uint8"),
    ],
    ids=["channels", "features", "empty", "int", "NaN", "0..255"],
)
def test_images_are_checked(images, error, message, digits):
    with pytest.raises(error, match=message):
        create("pca:dim=4", digits)(images)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pcaa", "Did you mean 'pca'.*Accepted: classifier, pca, pixels, random_conv"),
        ("", "Accepted: classifier"),
        ("pca:dims=3", "option of pca is 'dims'. Did you mean 'dim'"),
        ("pca:dim", "must read pca:dim=N; got 'pca:dim'"),
        ("pca:", "must read pca:dim=N"),
        ("pca:dim=1,dim=2", "names dim twice"),
        ("pca:dim=0", "dim must be a whole number of at least 1; got '0'"),
        ("random_conv:dim=2.5", "dim must be a whole number of at least 1; got '2.5'"),
        ("classifier:step", "must read classifier:dim=N,steps=N"),
        ("pixels:dim=3", "must read pixels, without options"),
        ("pca:dim=65", "dim must be at most 64, the axes that 1437 images of 64 values have"),
    ],
)
def test_specs_are_checked(spec, message, digits):
    with pytest.raises(ValueError, match=message):
        create(spec, digits)


def test_other_arguments_are_checked(digits, tmp_path):
    with pytest.raises(TypeError, match="spec must be a string .* or a function"):
        create(3, digits)  # type: ignore
    with pytest.raises(TypeError, match="data must be an ImageData; got ndarray"):
        create("pixels", digits.images)
    with pytest.raises(ValueError, match="seed must be at least 0; got -1"):
        create("random_conv", digits, seed=-1)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cache_dir .* must be a directory"):
        create(SPEC, digits, cache_dir=tmp_path / "file")
    with pytest.raises(ValueError, match="encoder of images"):
        create(create("pixels", digits), datasets.load("toy:ring"))
    with pytest.raises(ValueError, match="at least 2 training images for pca"):
        create("pca", digits.subset(1, jax.random.key(7)))


def test_data_without_what_a_classifier_needs_is_refused(digits):
    make = functools.partial(from_arrays, digits.images, held_out=digits.held_out)
    others = "pixels, pca, random_conv, or a function"
    with pytest.raises(ValueError, match=f"no labels, .*{others}"):
        create(SPEC, make())
    with pytest.raises(ValueError, match=f"no held_out_labels, .*{others}"):
        create(SPEC, make(digits.labels))
    with pytest.raises(ValueError, match=f"at least 2 classes .*all have label 0.*{others}"):
        create(SPEC, make(np.zeros(1437, int), held_out_labels=digits.held_out_labels))
    few = np.minimum(digits.held_out_labels, 7)
    with pytest.warns(UserWarning, match=r"no held-out images of 2 of 10 classes \(8, 9\)"):
        create(SPEC, make(digits.labels, held_out_labels=few))
