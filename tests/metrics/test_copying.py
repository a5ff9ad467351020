import numpy as np
import pytest
from scipy import stats
from sklearn.neighbors import NearestNeighbors

from jdiff.metrics import copying, nearest_two
from jdiff.metrics.copying import copying_z, mann_whitney_z


def unit(images: np.ndarray) -> np.ndarray:
    return (images.reshape(len(images), -1) / np.float32(255)).astype(np.float64)


def groups(rng: np.random.Generator, n: int, shares: tuple = (0.5, 0.3, 0.2)) -> np.ndarray:
    """Points of three groups that any clustering finds, 100 apart, with spread 1."""
    which = rng.choice(3, n, p=shares)
    return (rng.normal(size=(n, 3)) + 100 * np.eye(3)[which]).astype(np.float32)


def z_of_scipy(a: np.ndarray, b: np.ndarray) -> float:
    """The z-score whose two-sided p-value SciPy reports, with the sign of U - mn/2."""
    found = stats.mannwhitneyu(a, b, use_continuity=False, method="asymptotic")
    sign = np.sign(found.statistic - len(a) * len(b) / 2)
    return float(sign * stats.norm.isf(found.pvalue / 2))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("m", "n"), [(30, 50), (7, 1), (2, 3), (200, 90)])
def test_mann_whitney_is_that_of_scipy(ties, m, n, rng):
    a, b = rng.normal(size=m), rng.normal(0.3, size=n)
    if ties:
        a, b = np.round(2 * a), np.round(2 * b)
    # From p back to z: SciPy's p is good to 1e-15, of p as small as 1e-4.
    assert mann_whitney_z(a, b) == pytest.approx(z_of_scipy(a, b), abs=1e-10)
    assert mann_whitney_z(a, b) == -mann_whitney_z(b, a)


def test_mann_whitney_by_pairs(rng):
    a, b = np.round(rng.normal(size=40) * 2), np.round(rng.normal(size=25) * 2)
    u = sum((x > y) + (x == y) / 2 for x in a for y in b)
    t = np.unique(np.concatenate([a, b]), return_counts=True)[1]
    assert t.max() > 5
    variance = 40 * 25 / 12 * (66 - np.sum(t**3 - t) / (65 * 64))
    assert mann_whitney_z(a, b) == pytest.approx((u - 500) / np.sqrt(variance), rel=1e-12)


def test_mann_whitney_of_equal_numbers_is_zero():
    assert mann_whitney_z(np.ones(5), np.ones(3)) == 0.0


def expected_z(generated: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> tuple:
    """C_T and its null deviation for `groups`, whose cells are the groups themselves."""
    search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(train.astype(np.float64))
    d, e = (search.kneighbors(x.astype(np.float64))[0][:, 0] for x in (generated, held_out))
    cell, control_cell = generated.argmax(axis=1), held_out.argmax(axis=1)
    kept = [i for i in range(3) if np.sum(cell == i) >= 20 and np.sum(control_cell == i) > 0]
    z = np.array([z_of_scipy(d[cell == i], e[control_cell == i]) for i in kept])
    p = np.array([np.sum(control_cell == i) for i in kept], float)
    p /= p.sum()
    return np.sum(p * z), np.sqrt(np.sum(p**2)), kept, np.isin(cell, kept)


@pytest.mark.parametrize("num", [300, 60])
def test_copying_z_is_that_of_scipy_in_known_cells(num, rng):
    train, held_out = groups(rng, 400), groups(rng, 200)
    generated = groups(rng, num) + rng.normal(0, 0.3, (num, 3)).astype(np.float32)
    found = copying_z(generated, train, held_out)
    value, null, kept, in_kept = expected_z(generated, train, held_out)
    # scikit-learn's distances of float64 points 100 from the origin are good to about 1e-6, and
    # no rank turns on that.
    assert found.value == pytest.approx(value, abs=1e-9)
    assert found.constants["null_deviation"] == pytest.approx(null, rel=1e-12)
    assert found.constants["kept"] == len(kept)
    assert found.constants["left_out"] == np.sum(~in_kept)
    assert (len(kept) < 3) == (num == 60)  # a fifth of 60 is fewer than 20
    assert found.interval == pytest.approx((value - 1.96 * null, value + 1.96 * null), abs=1e-3)
    assert found.control is None
    assert found.control_interval is None
    assert found.n == num
    assert found.constants["dim"] == 3


def test_cells_without_held_out_images_are_left_out(rng):
    train, generated = groups(rng, 300), groups(rng, 300)
    held_out = groups(rng, 100, (0.6, 0.4, 0.0))
    found = copying_z(generated, train, held_out)
    assert found.constants["kept"] == 2
    assert found.constants["left_out"] == np.sum(generated.argmax(axis=1) == 2)
    assert found.value == pytest.approx(expected_z(generated, train, held_out)[0], abs=1e-9)


@pytest.mark.core
def test_copies_underfits_and_held_out_images(digits):
    train, held_out = digits
    train, held_out = train[:600], held_out[:200]
    near = (train[:200] / 127.5 - 1 + 0.01).astype(np.float32)
    assert copying_z(near, train, held_out).value < -8
    noise = np.random.default_rng(4).uniform(-1, 1, (200, 8, 8, 1))
    # One cell: a uniform noise image may be nearest to one group of digits only.
    assert copying_z(noise, train, held_out, cells=1).value > 8
    # Every rank is shared by one image of either set.
    assert copying_z(held_out, train, held_out).value == 0.0


def test_of_one_distribution_the_deviation_is_that_of_the_null(rng, monkeypatch):
    monkeypatch.setattr(copying, "STARTS", 1)  # any cells will do
    train = groups(rng, 150)
    scores, covered = [], 0
    for _ in range(100):
        found = copying_z(groups(rng, 120), train, groups(rng, 90))
        scores.append(found.value / found.constants["null_deviation"])
        assert found.interval is not None
        covered += found.interval[0] <= 0 <= found.interval[1]
    # sum p_i^2 is about 0.38: a deviation of 1 in place of sqrt(sum p_i^2) would be 1.6 too large.
    assert 0.5 < found.constants["null_deviation"] < 0.75
    # Three standard errors of a mean and a deviation over 100 numbers: 0.3, and 3/sqrt(200) = 0.21.
    assert abs(np.mean(scores)) < 0.3
    assert abs(np.std(scores, ddof=1) - 1) < 0.21
    assert covered / 100 >= 0.95 - 0.065  # three binomial deviations
    # And no wider than that needs.
    ends = found.interval
    assert ends is not None
    assert ends[1] - ends[0] == pytest.approx(
        2 * 1.96 * found.constants["null_deviation"], rel=1e-3
    )


def test_neither_order_nor_units_nor_blocks_matter(digits, rng, monkeypatch):
    train, held_out = digits
    train, held_out = train[:500], held_out[:150]
    generated = np.concatenate([train[:40], digits[1][150:]])
    found = copying_z(generated, train, held_out)
    assert abs(found.value) > 0.1
    p, s, t = (rng.permutation(len(x)) for x in (generated, train, held_out))
    other = copying_z(generated[p], train[s], held_out[t])
    assert other == found
    np.testing.assert_array_equal(np.asarray(other.per_sample), np.asarray(found.per_sample)[p])
    a, b, c = (unit(x) for x in (generated, train, held_out))
    features = copying_z(a, b, c)
    assert features.value == found.value
    assert features.features == "features"
    monkeypatch.setattr(copying, "ROWS", 37)  # 14 blocks of the training set for one
    # The components are sums in another order; no image changes its cell for that.
    assert copying_z(generated, train, held_out) == found


def test_known_neighbors_change_nothing(digits):
    train, held_out = digits
    generated = train[:100]
    train, held_out = train[50:500], held_out[:150]
    known = copying_z(
        generated, train, held_out,
        neighbors=nearest_two(generated, train), held_out_neighbors=nearest_two(held_out, train),
    )  # fmt: skip
    assert known == copying_z(generated, train, held_out)
    with pytest.raises(ValueError, match="neighbors must be nearest_two of these 100 samples"):
        copying_z(generated, train, held_out, neighbors=nearest_two(held_out, train))


def test_refuses(digits, rng):
    train, held_out = digits
    with pytest.raises(ValueError, match="generated must hold at least 20 samples; got 19"):
        copying_z(held_out[:19], train, held_out)
    with pytest.raises(ValueError, match="cells must be at most 2, .* distinct .* got 3"):
        copying_z(held_out, train[[0, 0, 1]], held_out)
    with pytest.raises(ValueError, match="cells must be at least 1; got 0"):
        copying_z(held_out, train, held_out, cells=0)
    with pytest.raises(ValueError, match="seed must be from 0"):
        copying_z(held_out, train, held_out, seed=-1)
    nowhere = groups(rng, 30, (1.0, 0.0, 0.0)), groups(rng, 90), groups(rng, 30, (0.0, 0.5, 0.5))
    with pytest.raises(ValueError, match="one of 3 cells must hold at least 20 .* Pass fewer"):
        copying_z(*nowhere)
