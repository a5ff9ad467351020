import dataclasses

import numpy as np
import pytest

from jdiff.metrics import memorized_fraction, nearest_rms, nearest_two, wilson


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
