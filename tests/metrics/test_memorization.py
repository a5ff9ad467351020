import dataclasses

import numpy as np
import pytest

from jdiff.metrics import (
    distinct,
    memorized_fraction,
    nearest,
    nearest_rms,
    nearest_two,
    wilson,
)
from jdiff.metrics.memorization import authenticity, calibrated_distance, copy_rate
from jdiff.metrics.neighbors import nearest_cosine

SHARES = [memorized_fraction, calibrated_distance, copy_rate, authenticity]


@pytest.mark.core
@pytest.mark.parametrize("units", ["uint8", "model units"])
def test_copies_are_memorized_and_held_out_images_are_the_control(digits, units):
    train, held_out = digits
    as_samples = (lambda x: x) if units == "uint8" else (lambda x: x.astype("f4") / 127.5 - 1)
    copies = memorized_fraction(as_samples(train[:200]), train, held_out)
    assert copies.value == 1.0
    assert copies.interval == wilson(200, 200)
    real = memorized_fraction(as_samples(held_out), train, held_out)
    assert real.value == real.control == copies.control
    assert real.interval == real.control_interval == copies.control_interval
    assert real.value < 0.02


def test_half_and_half_gives_one_half(digits):
    train, held_out = digits
    control = memorized_fraction(held_out[:150], train, held_out).value
    half = memorized_fraction(np.concatenate([train[:150], held_out[:150]]), train, held_out)
    assert half.value == (1 + control) / 2
    assert half.n == 300


def test_by_hand():
    train = np.array([[0.0], [10.0], [30.0]])
    generated = np.array([[1.0], [2.5], [3.0], [20.0], [-3.0]])
    held_out = np.array([[5.0], [9.0]])
    #       d1/d2:        1/9    1/3    3/7    1       3/13;   5/5 and 1/9
    at_a_third = memorized_fraction(generated, train, held_out)
    assert at_a_third.value == 2 / 5  # 2.5 / 7.5 is not below 1/3
    assert at_a_third.control == 1 / 2
    np.testing.assert_allclose(np.asarray(at_a_third.per_sample), [1 / 9, 1 / 3, 3 / 7, 1, 3 / 13])
    assert memorized_fraction(generated, train, held_out, 1 / 2).value == 4 / 5
    assert memorized_fraction(generated, train, held_out, c=0.2).value == 1 / 5
    assert at_a_third.constants == {
        "c": 1 / 3, "num_train": 3, "num_distinct": 3, "num_held_out": 2,
    }  # fmt: skip
    rms = nearest_rms(generated, train, held_out)
    np.testing.assert_allclose(np.asarray(rms.per_sample), [1, 2.5, 3, 10, 3])
    assert rms.value == pytest.approx(19.5 / 5)
    assert rms.control == 3.0


def test_repeats_in_the_training_set_hide_no_copy(digits):
    train, held_out = digits
    repeated = np.concatenate([train, train[:100], train[:50]])
    two = nearest_two(train[:100], repeated)
    np.testing.assert_array_equal(two.index, np.arange(100))
    np.testing.assert_array_equal(two.d1, 0.0)
    assert two.d2.min() > 0
    assert (two.num_train, two.num_distinct) == (len(train) + 150, len(train))
    found = memorized_fraction(train[:100], repeated, held_out)
    assert found.value == 1.0
    once = memorized_fraction(held_out, train, held_out)
    np.testing.assert_array_equal(
        memorized_fraction(held_out, repeated, held_out).per_sample, once.per_sample
    )


def test_nearest_two_is_the_two_nearest(digits):
    train, held_out = digits
    two = nearest_two(held_out[:20], train)
    unit = lambda x: (x.reshape(len(x), -1) / np.float32(255)).astype(np.float64)
    for i, query in enumerate(unit(held_out[:20])):
        distances = np.linalg.norm(unit(train) - query, axis=1)
        first, second = np.argsort(distances, kind="stable")[:2]
        assert (two.index[i], two.second_index[i]) == (first, second)
        assert (two.d1[i], two.d2[i]) == pytest.approx((distances[first], distances[second]))
        assert two.ratio[i] == pytest.approx(distances[first] / distances[second])


@pytest.mark.parametrize("measure", [memorized_fraction, nearest_rms])
def test_known_neighbors_change_nothing(measure, digits):
    train, held_out = digits
    generated = np.concatenate([train[:30], held_out[:30]])
    known = measure(
        generated, train, held_out,
        neighbors=nearest_two(generated, train), held_out_neighbors=nearest_two(held_out, train),
    )  # fmt: skip
    unknown = measure(generated, train, held_out)
    assert known == unknown
    np.testing.assert_array_equal(known.per_sample, unknown.per_sample)


def test_nearest_rms_is_a_mean_of_pixels(digits):
    train, held_out = digits
    # Every pixel of a training image moved by 0.02 of the range, away from the others' average.
    moved = train[:50].astype(np.float32) / 127.5 - 1 + 0.04
    rms = nearest_rms(moved, train, held_out)
    assert rms.value == pytest.approx(0.02, rel=1e-5)
    assert rms.interval == pytest.approx((0.02, 0.02), rel=1e-5)
    control = nearest_rms(held_out, train, held_out)
    assert control.value == control.control == rms.control
    assert control.interval is not None
    assert control.interval[0] < control.value < control.interval[1]


def test_one_training_image_has_a_nearest_and_no_second(digits):
    train, held_out = digits
    assert nearest_rms(held_out, train[:1], held_out).value > 0
    words = "at least two distinct images, or d2 does not exist; got 1 images of which 1"
    with pytest.raises(ValueError, match=words):
        memorized_fraction(held_out, train[:1], held_out)
    with pytest.raises(ValueError, match="got 3 images of which 1 is distinct"):
        memorized_fraction(held_out, train[[0, 0, 0]], held_out)


@pytest.mark.parametrize("c", [0.0, -1.0, 1.5, np.nan])
def test_c_is_a_ratio(c, digits):
    train, held_out = digits
    with pytest.raises(ValueError, match=r"c must be in \(0.0, 1.0\]"):
        memorized_fraction(held_out, train, held_out, c)


@pytest.mark.parametrize("measure", [memorized_fraction, nearest_rms])
@pytest.mark.parametrize("name", ["neighbors", "held_out_neighbors"])
def test_neighbors_of_other_arrays_are_refused(measure, name, digits):
    train, held_out = digits
    two = nearest_two(held_out, train)
    shorter = {f.name: getattr(two, f.name) for f in dataclasses.fields(two)}
    shorter = type(two)(**{**shorter, "d1": two.d1[:5]})
    with pytest.raises(ValueError, match=f"{name} must be nearest_two of these 360 samples"):
        measure(held_out, train, held_out, **{name: shorter})
    with pytest.raises(ValueError, match=r"got that of 360 and 1437"):
        measure(held_out, train[:100], held_out, **{name: two})


def test_a_mean_needs_two_samples(digits):
    train, held_out = digits
    with pytest.raises(ValueError, match="generated must hold at least 2 samples; got 1"):
        nearest_rms(held_out[:1], train, held_out)
    with pytest.raises(ValueError, match="held_out must hold at least 2 samples; got 1"):
        nearest_rms(held_out, train, held_out[:1])


def flat(images: np.ndarray) -> np.ndarray:
    """Images on [0, 1] as the measures take them, in float64."""
    rows = images.reshape(len(images), -1)
    unit = rows / np.float32(255) if images.dtype == np.uint8 else (rows.astype("f4") + 1) / 2
    return unit.astype(np.float64)


def mixed(digits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Copies under growing noise, a training set with repeats, held-out images."""
    train, held_out = digits
    train = np.concatenate([train[:150], train[:20]])
    noise = (
        np.random.default_rng(3).normal(size=(60, 8, 8, 1))
        * np.linspace(0, 0.6, 60)[:, None, None, None]
    )
    return (train[:60] / 127.5 - 1 + noise).astype(np.float32), train, held_out[:40]


def distances(images: np.ndarray, train: np.ndarray) -> np.ndarray:
    """[n, M] from each image to the training images without their repeats, one pair at a time."""
    unique = np.unique(flat(train), axis=0)
    return np.array([[np.sqrt(np.sum((x - t) ** 2)) for t in unique] for x in flat(images)])


def test_calibrated_distance_is_a_double_loop(digits):
    generated, train, held_out = mixed(digits)
    found = calibrated_distance(generated, train, held_out, n=9, alpha=0.6)
    expected = []
    for images in (generated, held_out):
        d = np.sort(distances(images, train), axis=1)
        expected.append(d[:, 0] / (0.6 * d[:, :9].mean(axis=1)))
    np.testing.assert_allclose(np.asarray(found.per_sample), expected[0], rtol=1e-12)
    assert found.value == np.mean(expected[0] <= 1)
    assert found.control == np.mean(expected[1] <= 1)
    assert 0.2 < found.value < 0.8
    assert found.constants["median"] == pytest.approx(np.median(expected[0]), rel=1e-12)
    assert (found.constants["num_train"], found.constants["num_distinct"]) == (170, 150)


def test_authenticity_is_a_double_loop(digits):
    generated, train, held_out = mixed(digits)
    found = authenticity(generated, train, held_out)
    unique = np.unique(flat(train), axis=0)
    among = np.array([[np.sqrt(np.sum((a - b) ** 2)) for a in unique] for b in unique])
    np.fill_diagonal(among, np.inf)
    expected = []
    for images in (generated, held_out):
        d = distances(images, train)
        expected.append([not among[row.argmin()].min() >= row.min() for row in d])
    np.testing.assert_array_equal(np.asarray(found.per_sample), expected[0])
    assert found.value == np.mean(expected[0])
    assert found.control == np.mean(expected[1])
    assert 0.2 < found.value < 0.9


def test_authenticity_of_a_sample_exactly_as_far_as_its_neighbour_is_that_of_a_copy():
    train = np.array([[0.0], [4.0], [100.0]])
    generated = np.array([[-4.0], [-4.5], [3.0], [150.0], [197.0]])
    #           room:      4       4       4       96       96
    found = authenticity(generated, train, generated)
    np.testing.assert_array_equal(np.asarray(found.per_sample), [0, 1, 0, 0, 1])
    assert found.value == found.control == 2 / 5


def test_copy_rate_is_a_double_loop(rng):
    generated, train, held_out = (rng.normal(size=(n, 4)) for n in (70, 12, 50))
    found = copy_rate(generated, train, held_out, tau=0.8)
    cosine = lambda a, b: np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b))
    largest = [
        np.array([max(cosine(x, t) for t in train) for x in points])
        for points in (generated, held_out)
    ]
    # Features are taken as float32.
    np.testing.assert_allclose(np.asarray(found.per_sample), largest[0], atol=1e-6)
    assert np.abs(np.concatenate(largest) - 0.8).min() > 1e-6  # so that float32 decides nothing
    assert found.value == np.mean(largest[0] > 0.8)
    assert found.control == np.mean(largest[1] > 0.8)
    assert 0.2 < found.value < 0.8


@pytest.mark.core
@pytest.mark.parametrize("measure", SHARES)
def test_copies_are_copies_and_held_out_images_their_own_control(measure, digits):
    train, held_out = digits
    copies = measure(train[:60], train[:500], held_out[:90])
    none = measure is authenticity  # which counts what is no copy
    assert copies.value == (0.0 if none else 1.0)
    assert copies.interval == wilson(0 if none else 60, 60)
    real = measure(held_out[:90], train[:500], held_out[:90])
    assert real.value == real.control == copies.control
    assert real.interval == real.control_interval == copies.control_interval


@pytest.mark.parametrize("measure", [calibrated_distance, authenticity])
def test_half_copies_and_half_held_out_images_give_the_mean_of_both(measure, digits):
    train, held_out = digits
    control = measure(held_out[:80], train[:500], held_out[:80]).value
    half = measure(np.concatenate([train[:80], held_out[:80]]), train[:500], held_out[:80])
    assert half.value == ((0 if measure is authenticity else 1) + control) / 2


def test_pixels_are_alike_and_centred_features_are_not(digits):
    train, held_out = digits
    assert copy_rate(held_out, train, held_out, 0.8).value > 0.95
    mean = flat(train).mean(axis=0)
    centred = [flat(x) - mean for x in (train[:60], train, held_out)]
    found = copy_rate(*centred, tau=0.95)
    assert found.value == 1.0
    assert found.control is not None
    assert found.control < 0.3
    assert found.features == "features"


@pytest.mark.parametrize("measure", [calibrated_distance, copy_rate, authenticity])
def test_known_neighbors_change_no_share(measure, digits):
    generated, train, held_out = mixed(digits)
    search = {
        calibrated_distance: lambda x: nearest(x, train, 60, among=distinct(train)),  # n is 50
        copy_rate: lambda x: nearest_cosine(x, train, 1),
        authenticity: lambda x: nearest_two(x, train),
    }[measure]
    unknown = measure(generated, train, held_out)
    known = measure(
        generated, train, held_out,
        neighbors=search(generated), held_out_neighbors=search(held_out),
    )  # fmt: skip
    assert known == unknown
    np.testing.assert_array_equal(known.per_sample, unknown.per_sample)
    with pytest.raises(ValueError, match="neighbors must be .* of these 60 samples"):
        measure(generated, train, held_out, neighbors=search(held_out))
    with pytest.raises(ValueError, match="neighbors must be .* 55 training images; got"):
        measure(generated, train[:55], held_out, neighbors=search(generated))


@pytest.mark.parametrize("measure", SHARES)
def test_order_changes_no_share(measure, digits, rng):
    generated, train, held_out = mixed(digits)
    found = measure(generated, train, held_out)
    p, s = rng.permutation(len(generated)), rng.permutation(len(train))
    other = measure(generated[p], train[s], held_out)
    assert other.value == found.value
    assert other.control == found.control
    np.testing.assert_array_equal(other.per_sample, found.per_sample[p])


@pytest.mark.parametrize("measure", SHARES)
def test_the_interval_covers_the_expected_share(measure, rng):
    train = rng.normal(size=(30, 2)).astype(np.float32)
    generated = rng.normal(size=(6000, 2)).astype(np.float32)
    options = {copy_rate: {"tau": 0.995}, calibrated_distance: {"n": 20}}.get(measure, {})
    # The training set is fixed and a share is a mean over samples: of 100 repetitions of 60
    # samples each the mean of all 6,000 is the expected value.
    values = np.asarray(measure(generated, train, train[:2], **options).per_sample)
    counted = {
        memorized_fraction: values < 1 / 3,
        calibrated_distance: values <= 1,
        copy_rate: values > 0.995,
        authenticity: values == 1,
    }[measure]
    assert 0.05 < counted.mean() < 0.95
    covered, widths = 0, []
    for i in range(100):
        part = generated[60 * i : 60 * (i + 1)]
        low, high = measure(part, train, train[:2], **options).interval
        covered += low <= counted.mean() <= high
        widths.append(high - low)
    # Three binomial deviations at 0.95 are 0.065; at n = 60 Wilson's own coverage moves by 0.02
    # about 0.95 as the lattice of proportions falls.
    assert covered / 100 >= 0.95 - 0.085
    # Not by being wide: about 4 deviations of a share of 60, and Wilson's adds z^2 / 60.
    deviation = np.sqrt(counted.mean() * (1 - counted.mean()) / 60)
    assert np.mean(widths) < 4 * deviation + 0.07


def test_what_a_share_refuses(digits, rng):
    train, held_out = digits
    with pytest.raises(ValueError, match="n must be at most 30, the number of distinct .* got 50"):
        calibrated_distance(held_out, np.concatenate([train[:30]] * 2), held_out)
    with pytest.raises(ValueError, match="n must be at least 2; got 1"):
        calibrated_distance(held_out, train, held_out, n=1)
    with pytest.raises(ValueError, match=r"alpha must be in \(0.0, 1.0\]; got 0"):
        calibrated_distance(held_out, train, held_out, alpha=0)
    with pytest.raises(ValueError, match=r"tau must be in \(-1.0, 1.0\); got 1"):
        copy_rate(held_out, train, held_out, tau=1)
    features = rng.normal(size=(9, 3))
    holed = np.concatenate([features, np.zeros((2, 3))])
    with pytest.raises(ValueError, match="rows of zeros .* got 2 of 11, the first at 9"):
        copy_rate(features, features, holed)
    with pytest.raises(ValueError, match="at least two distinct images"):
        authenticity(held_out, train[[0, 0]], held_out)
