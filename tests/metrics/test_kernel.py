import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel

from jdiff.metrics import kernel
from jdiff.metrics.draws import drawn
from jdiff.metrics.kernel import kernel_distance


def unbiased(g: np.ndarray, x: np.ndarray) -> float:
    """MMD^2 as two U-statistics and a mean, of scikit-learn's kernel."""
    k = lambda a, b: polynomial_kernel(a, b, degree=3, gamma=1 / a.shape[1], coef0=1)
    off = lambda a: (k(a, a).sum() - np.trace(k(a, a))) / (len(a) * (len(a) - 1))
    return off(g) + off(x) - 2 * k(g, x).mean()


def every_pair(n: int, m: int) -> list[list[int]]:
    """All subsets of m of n."""
    found = [[]]
    for _ in range(m):
        found = [s + [i] for s in found for i in range(n) if not s or i > s[-1]]
    return found


@pytest.mark.core
def test_kernel_distance_is_that_of_scikit_learn_over_all_subsets(rng, monkeypatch):
    # Subsets of 2 of 4: their mean is the mean over all 6, 1000 draws away by 4 deviations at most.
    monkeypatch.setattr(kernel, "SUBSETS", 1000)
    generated, held_out, train = rng.normal(0.7, 1, (4, 6)), rng.normal(size=(5, 6)), np.eye(2, 6)
    found = kernel_distance(generated, train, held_out)
    for points, value in ((generated, found.value), (held_out[drawn(held_out, 4)], found.control)):
        f32 = [x.astype("f4").astype("f8") for x in (points, train)]
        subsets = [unbiased(f32[0][s], f32[1]) for s in every_pair(4, 2)]
        assert value == pytest.approx(np.mean(subsets), abs=4 * np.std(subsets) / np.sqrt(1000))
    assert found.n == 4
    assert found.constants == {
        "subsets": 1000, "subset_size": 2, "train_subset_size": 2,
        "subset_sd": pytest.approx(found.constants["subset_sd"]), "num_train": 2, "seed": 0,
    }  # fmt: skip


def test_each_subset_is_that_of_scikit_learn(rng, monkeypatch):
    seen = []
    inner = kernel._kernel

    def spy(a, b):
        seen.append((a, b))
        return inner(a, b)

    monkeypatch.setattr(kernel, "_kernel", spy)
    monkeypatch.setattr(kernel, "SUBSETS", 3)
    monkeypatch.setattr(kernel, "LARGEST", 20)
    generated, train, held_out = (
        rng.uniform(size=(50, 4, 4, 1)) * 2 - 1, rng.integers(0, 256, (70, 4, 4, 1), np.uint8),
        rng.integers(0, 256, (60, 4, 4, 1), np.uint8),
    )  # fmt: skip
    found = kernel_distance(generated, train, held_out)
    crossed = [(a, b) for a, b in seen if a is not b]
    values = [unbiased(a, b) for a, b in crossed]
    assert [a.shape for a, _ in crossed] == [(20, 16)] * 6
    # Subsets are of different points of the set, on [0, 1].
    whole = {row.tobytes() for row in (train.reshape(70, 16) / np.float32(255)).astype("f8")}
    for _, b in crossed:
        rows = {row.tobytes() for row in b}
        assert len(rows) == 20
        assert rows <= whole
    assert found.value == pytest.approx(np.mean(values[::2]), rel=1e-12)
    assert found.control == pytest.approx(np.mean(values[1::2]), rel=1e-12)
    deviation = np.std(values[::2], ddof=1)
    assert found.constants["subset_sd"] == pytest.approx(deviation, rel=1e-10)
    half = 1.959964 * deviation * np.sqrt(20 / 30 + 1 / 3)
    assert found.interval == pytest.approx((found.value - half, found.value + half), rel=1e-6)


def test_equal_laws_are_at_0_on_average_and_others_are_not(rng):
    found = [
        kernel_distance(*(rng.normal(m, 1, (40, 3)) for m in (0.4, 0, 0)), seed=i)
        for i in range(60)
    ]
    values, controls = (np.array([getattr(f, a) for f in found]) for a in ("value", "control"))
    assert abs(controls.mean()) < 4 * controls.std() / np.sqrt(60)
    assert controls.min() < 0  # unbiased, and so below 0 as well
    assert values.mean() > 10 * values.std() / np.sqrt(60)


def test_three_moments_have_the_closed_form(rng, monkeypatch):
    # d = 1, k = (x y + 1)^3 = sum over j of C(3, j) x^j y^j: MMD^2 is the weighted sum of squared
    # differences of moments. Of N(1, 1) and N(0, 1): 1, 1 and 4, hence 3 + 3 + 16.
    monkeypatch.setattr(kernel, "SUBSETS", 16)
    found = kernel_distance(*(rng.normal(m, 1, (16_000, 1)) for m in (1, 0, 0)))
    # Nearly disjoint subsets of 1000.
    deviation = found.constants["subset_sd"] / np.sqrt(16)
    assert found.value == pytest.approx(22, abs=4 * deviation)
    assert deviation < 1.5


def test_seed_and_subset_size(digits):
    train, held_out = digits[0][:150], digits[1][:100]
    found = kernel_distance(held_out, train, held_out)
    assert found == kernel_distance(held_out, train, held_out, seed=0)
    assert found.value == found.control
    other = kernel_distance(held_out, train, held_out, seed=1)
    assert found.value != other.value
    assert found.constants["subset_size"] == found.constants["train_subset_size"] == 50
    few = kernel_distance(held_out, train[:30], held_out)
    assert few.constants["train_subset_size"] == 30


def test_interval_covers_the_expected_value(rng):
    # Three binomial deviations of 0.95 at 100 repetitions are 0.065. The training set's subsets
    # vary too, and make it wider than it need be.
    train, held_out = rng.normal(size=(300, 4)), rng.normal(size=(150, 4))
    found = [kernel_distance(rng.normal(0.4, 1, (150, 4)), train, held_out) for _ in range(100)]
    values, ends = np.array([f.value for f in found]), np.array([f.interval for f in found])
    covered = np.mean((ends[:, 0] <= values.mean()) & (values.mean() <= ends[:, 1]))
    assert covered >= 0.95 - 0.065
    assert np.mean(ends[:, 1] - ends[:, 0]) < 8 * values.std()


@pytest.mark.parametrize(
    ("sizes", "options", "error", "words"),
    [
        ((3, 9, 9), {}, ValueError, "generated must hold at least 4 samples; got 3"),
        ((9, 9, 3), {}, ValueError, "held_out must hold at least 4 samples; got 3"),
        ((9, 1, 9), {}, ValueError, "train must hold at least 2 samples; got 1"),
        ((9, 9, 9), {"seed": -1}, ValueError, "seed must be at least 0; got -1"),
        ((9, 9, 9), {"seed": 0.5}, TypeError, "seed must be a whole number"),
    ],
)
def test_refuses(sizes, options, error, words, rng):
    with pytest.raises(error, match=words):
        kernel_distance(*(rng.normal(size=(n, 3)) for n in sizes), **options)
