import json

import numpy as np
import pytest

from jdiff.metrics import pearson_r, splits
from jdiff.metrics.splits import effective_memorization, two_split_agreement

# effective_memorization


@pytest.mark.core
@pytest.mark.parametrize(
    ("fractions", "value", "flags", "next_size"),
    [
        ([1.0, 0.95, 0.9, 0.2], 400, [], 800),
        ([1.0, 1.0, 1.0, 0.95], 800, ["beyond_largest"], None),
        ([0.8, 0.5, 0.1, 0.0], 0, ["below_smallest"], 100),
        ([1.0, 0.7, 0.95, 0.0], 400, ["smaller_size_fails"], 800),
        ([0.0, 0.0, 0.0, 1.0], 800, ["beyond_largest", "smaller_size_fails"], None),
    ],
)
def test_the_largest_size_that_memorizes(fractions, value, flags, next_size):
    sizes = [100, 200, 400, 800]
    found = effective_memorization(sizes, fractions)
    assert found.value == value
    assert found.constants.get("next_size") == next_size
    names = ("below_smallest", "beyond_largest", "smaller_size_fails")
    assert [name for name in names if found.constants[name]] == flags
    assert (found.interval, found.control, found.control_interval, found.n) == (None,) * 3 + (4,)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    p = [2, 0, 3, 1]
    assert effective_memorization(np.array(sizes)[p], np.array(fractions)[p]) == found


@pytest.mark.parametrize("eps", [0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 0.9])
def test_a_fraction_of_exactly_one_minus_eps_is_enough(eps):
    n = 40
    enough = round(n * (1 - eps))
    assert effective_memorization([10, 20], [enough / n, (enough - 1) / n], eps).value == 10
    assert effective_memorization([10, 20], [enough / n, enough / n], eps).value == 20


def test_flags_are_printed_as_words():
    found = effective_memorization([10, 20], [0.5, 0.4], features="PCA 64")
    assert str(found) == (
        "effective_memorization (PCA 64) = 0; n = 2; eps = 0.1, next_size = 10, below smallest"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([1, 2], [0.5]), ValueError, r"lists of one length; got shapes \(2,\) and \(1,\)"),
        (([], []), ValueError, "lists of one length"),
        (([1.5, 2.0], [0.5, 0.5]), TypeError, "sizes must be whole numbers; got dtype float64"),
        (([0, 2], [0.5, 0.5]), ValueError, r"positive and all different; got \[0, 2\]"),
        (([2, 2], [0.5, 0.5]), ValueError, r"positive and all different; got \[2, 2\]"),
        (([1, 2], [0.5, 1.5]), ValueError, r"fractions must be in \[0, 1\]; got \[0.5, 1.5\]"),
        (([1, 2], [0.5, np.nan]), ValueError, r"fractions must be in \[0, 1\]"),
        (([1, 2], [0.5, 0.5], 1.0), ValueError, r"eps must be in \[0.0, 1.0\); got 1.0"),
    ],
)
def test_a_sweep_that_is_none_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        effective_memorization(*arguments)


# two_split_agreement


def halves(digits) -> tuple[np.ndarray, np.ndarray]:
    train, _ = digits
    return train[:100], train[100:180]


def corr(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel().astype(np.float64), b.ravel().astype(np.float64))[0, 1])


def test_two_split_agreement_is_a_double_loop(digits, rng):
    train_a, train_b = halves(digits)
    a = rng.normal(size=(30, 8, 8, 1)).astype(np.float32)
    b = (a + rng.normal(size=a.shape)).astype(np.float32)
    found = two_split_agreement(a, b, train_a, train_b, seed=3)
    expected = [corr(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(np.asarray(found.per_sample), expected, atol=1e-6)
    assert found.value == pytest.approx(np.mean(expected), abs=1e-6)
    assert found.interval == pearson_r(a, b, seed=3).interval
    own_a = np.median([max(corr(x, t) for t in train_a) for x in a])
    own_b = np.median([max(corr(x, t) for t in train_b) for x in b])
    # The pixels are float32, and so are the rows without their mean.
    assert found.constants["own_a"] == pytest.approx(own_a, abs=1e-6)
    assert found.constants["own_b"] == pytest.approx(own_b, abs=1e-6)
    assert (found.constants["num_train_a"], found.constants["num_train_b"]) == (100, 80)
    assert (found.name, found.features, found.n) == ("two_split_agreement", "pixels", 30)
    assert found.control is None


@pytest.mark.core
def test_networks_that_memorize_and_networks_that_generalise(digits):
    train_a, train_b = halves(digits)
    memorize = two_split_agreement(train_a[:50], train_b[:50], train_a, train_b)
    assert memorize.constants["own_a"] == pytest.approx(1, abs=1e-12)
    assert memorize.constants["own_b"] == pytest.approx(1, abs=1e-12)
    assert memorize.value < 0.6
    new = digits[1][:50]
    generalise = two_split_agreement(new, new, train_a, train_b)
    assert generalise.value == pytest.approx(1, abs=1e-12)
    assert generalise.constants["own_a"] < 0.95
    assert generalise.constants["own_b"] < 0.95


def test_brightness_and_contrast_do_not_matter_and_pairing_does(digits, rng):
    train_a, train_b = halves(digits)
    a, b = (rng.uniform(-1, 1, (20, 8, 8, 1)).astype(np.float32) for _ in range(2))
    b = 0.5 * a + 0.5 * b
    found = two_split_agreement(a, b, train_a, train_b)
    other = two_split_agreement(0.25 * a + 0.5, b, train_a, train_b)
    assert other.value == pytest.approx(found.value, abs=1e-6)
    assert other.constants["own_a"] == pytest.approx(found.constants["own_a"], abs=1e-6)
    p, s = rng.permutation(20), rng.permutation(100)
    both = two_split_agreement(a[p], b[p], train_a[s], train_b)
    np.testing.assert_array_equal(np.asarray(both.per_sample), np.asarray(found.per_sample)[p])
    assert both.constants["own_a"] == pytest.approx(found.constants["own_a"], abs=1e-15)
    assert two_split_agreement(a, b[p], train_a, train_b).value < found.value - 0.2


def test_blocks_do_not_matter(digits, monkeypatch):
    train_a, train_b = halves(digits)
    new = digits[1][:40]
    found = two_split_agreement(new[:20], new[20:], train_a, train_b)
    monkeypatch.setattr(splits, "ROWS", 7)  # 15 blocks of train_a for one
    assert two_split_agreement(new[:20], new[20:], train_a, train_b) == found


def test_the_interval_covers_the_expected_agreement(rng):
    train_a, train_b = rng.normal(size=(5, 8)), rng.normal(size=(5, 8))
    a = rng.normal(size=(6000, 8))
    b = a + rng.normal(size=a.shape)
    expected = two_split_agreement(a, b, train_a, train_b).value
    covered, widths, values = 0, [], []
    for i in range(100):
        part = slice(60 * i, 60 * (i + 1))
        found = two_split_agreement(a[part], b[part], train_a, train_b, seed=i)
        assert found.interval is not None
        covered += found.interval[0] <= expected <= found.interval[1]
        widths.append(found.interval[1] - found.interval[0])
        values.append(found.value)
    # Three binomial deviations are 0.065; at n = 60 the percentile bootstrap covers about 0.94.
    assert covered / 100 >= 0.94 - 0.065
    assert np.mean(widths) < 5 * np.std(values)  # of a right interval 3.9


def test_what_two_split_agreement_refuses(digits):
    train_a, train_b = halves(digits)
    new = digits[1][:20]
    overlapping = np.concatenate([train_b, train_a[:3]])
    with pytest.raises(ValueError, match="share no image; 3 of the 83 in train_b are in train_a"):
        two_split_agreement(new, new, train_a, overlapping)
    model = lambda images: (images / 127.5 - 1).astype(np.float32)
    with pytest.raises(ValueError, match="3 of the 83"):
        two_split_agreement(new, new, model(train_a), model(overlapping))
    with pytest.raises(TypeError, match="train_b must have the dtype of train_a"):
        two_split_agreement(new, new, train_a, model(overlapping))
    with pytest.raises(ValueError, match="generated_b must hold 20 samples"):
        two_split_agreement(new, new[:5], train_a, train_b)
    with pytest.raises(ValueError, match="generated_a must hold at least 2 samples; got 1"):
        two_split_agreement(new[:1], new[:1], train_a, train_b)
    with pytest.raises(ValueError, match="train_b must have the trailing shape of train_a"):
        two_split_agreement(new, new, train_a, train_b[:, :4])
    names = ("generated_a", "generated_b", "train_a", "train_b")
    for i, name in enumerate(names):
        arrays = [new.copy(), new.copy(), train_a.copy(), train_b.copy()]
        arrays[i][4] = 7
        words = f"{name} must not hold constant images, .* 1 of {len(arrays[i])}, the first at 4"
        with pytest.raises(ValueError, match=words):
            two_split_agreement(*arrays)
