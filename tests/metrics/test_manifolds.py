import numpy as np
import pytest

from jdiff.metrics import ball_radii, bootstrap_mean, manifolds, precision, wilson
from jdiff.metrics.draws import drawn
from jdiff.metrics.manifolds import coverage, density, prdc, recall


def loops(generated: np.ndarray, train: np.ndarray, k: int) -> dict[str, list]:
    """Of each sample its balls around training points; of each training point whom it sees."""

    def radii(points: np.ndarray) -> list[float]:
        found = []
        for i, x in enumerate(points):
            others = sorted(np.linalg.norm(x - y) for j, y in enumerate(points) if j != i)
            found.append(others[k - 1])
        return found

    r, s = radii(train), radii(generated)
    d = [[np.linalg.norm(g - x) for x in train] for g in generated]
    n, num = range(len(generated)), range(len(train))
    return {
        "balls": [sum(d[i][j] <= r[j] for j in num) for i in n],
        "hit": [any(d[i][j] <= r[j] for i in n) for j in num],
        "reached": [any(d[i][j] <= s[i] for i in n) for j in num],
    }


def expected(found: dict[str, list], k: int) -> dict[str, float]:
    inside = [balls > 0 for balls in found["balls"]]
    return {
        "precision": float(np.mean(inside)),
        "recall": float(np.mean(found["reached"])),
        "density": float(np.mean(found["balls"])) / k,
        "coverage": float(np.mean(found["hit"])),
    }


def apart(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    sizes = (90, 1.5), (80, 0.0), (70, 0.0)
    return tuple(rng.normal(mean, 1, (n, 2)).astype("f4").astype("f8") for n, mean in sizes)


def whole(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Whole numbers, with repeats and copies: points on spheres, and balls of radius 0."""
    train = rng.integers(-3, 4, (80, 3)).astype(np.float64)
    train[:12] = train[0]
    generated = np.concatenate([train[5:40], rng.integers(-4, 5, (55, 3))])
    return generated, train, rng.integers(-3, 4, (70, 3)).astype(np.float64)


@pytest.mark.core
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("case", [apart, whole], ids=lambda case: case.__name__)
def test_prdc_is_a_double_loop(case, k, rng):
    generated, train, held_out = case(rng)
    found = prdc(generated, train, held_out, k)
    some = generated[np.sort(drawn(generated, 70))]
    looped, control = loops(some, train, k), loops(held_out, train, k)
    assert {name: m.value for name, m in found.items()} == pytest.approx(
        expected(looped, k), abs=1e-15
    )
    assert {name: m.control for name, m in found.items()} == pytest.approx(
        expected(control, k), abs=1e-15
    )
    np.testing.assert_array_equal(found["density"].per_sample, np.divide(looped["balls"], k))
    np.testing.assert_array_equal(found["precision"].per_sample, np.greater(looped["balls"], 0))
    assert [m.n for m in found.values()] == [70] * 4
    assert found["precision"].interval == wilson(int(np.sum(np.greater(looped["balls"], 0))), 70)
    assert found["density"].interval == bootstrap_mean(np.divide(looped["balls"], k))
    if case is apart:  # neither empty nor full
        assert all(0.1 < m.value < 0.99 for name, m in found.items() if name != "density")


def test_intervals_of_recall_and_coverage_leave_out_tenths(rng):
    generated, train, held_out = apart(rng)
    found = prdc(generated, train, held_out, 3)
    some = generated[drawn(generated, 70)]
    num, whole_ = 80, loops(some, train, 3)
    r = ball_radii(train, 3)
    s = ball_radii(some, 3)
    d = np.linalg.norm(some[:, None] - train[None], axis=-1)
    for name, seen in (("coverage", d <= r), ("recall", d <= s[:, None])):
        kept = [np.delete(seen, range(7 * p, 7 * p + 7), axis=0) for p in range(10)]
        shares = np.array([x.any(axis=0).mean() for x in kept])
        half = 2.26 * np.sqrt(0.9 * np.square(shares - shares.mean()).sum())
        value = np.mean(whole_["hit" if name == "coverage" else "reached"])
        narrow = wilson(int(round(value * num)), num)
        interval = min(narrow[0], value - half), max(narrow[1], min(1, value + half))
        assert found[name].interval == pytest.approx(interval, abs=1e-12)
        assert found[name].constants["part_size"] == 7


def test_copies_of_one_point_by_hand():
    # k = 1: radii 1, 1, 1, 8. Ten copies of 0 lie in the balls of 0 and 1, and their own balls,
    # of radius 0, hold 0 alone.
    train = np.array([[0.0], [1.0], [2.0], [10.0]])
    found = prdc(np.zeros((10, 1)), train, np.full((12, 1), 30.0), 1)
    values = {name: (m.value, m.control) for name, m in found.items()}
    assert values == {
        "precision": (1.0, 0.0), "recall": (0.25, 0.0), "density": (2.0, 0.0),
        "coverage": (0.5, 0.0),
    }  # fmt: skip
    # Leaving out copies changes nothing; Wilson's interval of 1 of 4 stays.
    assert found["recall"].interval == wilson(1, 4)
    assert found["coverage"].interval == wilson(2, 4)


def test_copies_of_the_training_set(digits):
    train, held_out = digits
    found = prdc(train[:200], train[:200], held_out[:200])
    # Each is the centre of its ball and lies in those of which it is a neighbour: k + 1 on average.
    assert found["precision"].value == found["recall"].value == found["coverage"].value == 1.0
    assert found["density"].value == pytest.approx(1.2, abs=1e-12)  # no two are equally far
    for name in ("recall", "coverage"):
        interval = found[name].interval
        assert interval is not None
        assert interval[0] < interval[1] == 1.0


def test_every_measure_alone_is_that_of_prdc(digits):
    train, held_out = digits
    generated = train[300:500]
    found = prdc(generated, train[:300], held_out, 3, seed=4)
    alone = {
        "precision": precision(generated, train[:300], held_out, 3),
        "recall": recall(generated, train[:300], held_out, 3),
        "density": density(generated, train[:300], held_out, 3, seed=4),
        "coverage": coverage(generated, train[:300], held_out, 3),
    }
    assert alone == found
    assert tuple(found) == manifolds.NAMES
    assert found["density"] != prdc(generated, train[:300], held_out, 3, seed=5)["density"]


def test_known_radii_change_nothing_and_are_used(digits):
    train, held_out = digits
    radii = ball_radii(train[:300], 3)
    found = prdc(held_out, train[:300], held_out, 3, radii=radii)
    assert found == prdc(held_out, train[:300], held_out, 3)
    for measure in (precision, density, coverage):
        one = measure(held_out, train[:300], held_out, 3, radii=radii)
        assert one == found[one.name]
        assert measure(held_out, train[:300], held_out, 3, radii=radii / 2) != one


def test_ball_radii_count_repeats_and_not_the_point_itself():
    points = np.array([[0.0], [0.0], [1.0], [3.0]])
    np.testing.assert_array_equal(ball_radii(points, 1), [0, 0, 1, 2])
    np.testing.assert_array_equal(ball_radii(points, 3), [3, 3, 2, 3])
    # A copy of a repeated point lies in its ball of radius 0.
    assert precision(points[:1], points, points[:1], 1).value == 1.0


def test_expectations_under_one_law(rng):
    # Whatever the law: a sample is among the k nearest of N others with probability k / N, so that
    # the expected density is 1; for coverage Naeem et al. 2020, lemma 2 (n = 40, N = 60, k = 3).
    found = [
        prdc(rng.normal(size=(40, 3)), rng.normal(size=(60, 3)), rng.normal(size=(40, 3)), 3)
        for _ in range(60)
    ]
    missed = np.prod([(60 - j) / (100 - j) for j in (1, 2, 3)])
    for name, law in (("density", 1.0), ("coverage", 1 - missed)):
        values = np.concatenate([[f[name].value, f[name].control] for f in found])
        # Value and control share a training set: at worst 60 independent numbers. Four deviations.
        assert values.mean() == pytest.approx(law, abs=4 * values.std() / np.sqrt(60))
        assert values.std() < 0.15


def test_intervals_cover_the_expected_value(rng):
    # Three binomial deviations of 0.95 at 100 repetitions are 0.065; leaving out errs on the wide
    # side, by no more than a few deviations.
    train, held_out = rng.normal(size=(150, 2)), rng.normal(size=(120, 2))
    radii = ball_radii(train)
    draw = lambda: rng.normal(0.5, 1, (120, 2))
    found = [prdc(draw(), train, held_out, radii=radii) for _ in range(100)]
    for name in manifolds.NAMES:
        values = np.array([f[name].value for f in found])
        ends = np.array([f[name].interval for f in found])
        covered = np.mean((ends[:, 0] <= values.mean()) & (values.mean() <= ends[:, 1]))
        assert covered >= 0.95 - 0.065, name
        assert np.mean(ends[:, 1] - ends[:, 0]) < 8 * values.std(), name


def test_values_and_controls_take_equally_many(digits):
    """Of more samples, or more held-out images, n are drawn; in their order they are not taken."""
    train, held_out = digits
    generated, real, train = train[:100] // 2, held_out[:100], train[:400]
    for more in (
        prdc(np.concatenate([generated, held_out[200:]]), train, real),
        prdc(generated, train, np.concatenate([real, train[:50]])),
    ):
        assert {m.n for m in more.values()} == {100}
    both = np.concatenate([generated, held_out[200:]])
    some = both[np.sort(drawn(both, 100))]
    one, other = prdc(both, train, real), prdc(some, train, real)
    assert {k: m.value for k, m in one.items()} == {k: m.value for k, m in other.items()}


X = np.arange(24.0).reshape(12, 2)
ALL = [precision, recall, density, coverage, prdc]


@pytest.mark.parametrize("measure", [f for f in ALL if f is not recall], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"k": 12}, ValueError, "k must be from 1 to 11; got 12"),
        ({"k": 0}, ValueError, "k must be from 1 to 11; got 0"),
        ({"k": 1.5}, TypeError, "k must be a whole number"),
        ({"k": 2, "radii": np.ones(4)}, ValueError, "radii must be 12 finite"),
    ],
)
def test_refuses(measure, options, error, words):
    with pytest.raises(error, match=words):
        measure(X, X, X, **options)


@pytest.mark.parametrize(
    ("measure", "sizes", "k", "words"),
    [
        (recall, (12, 12, 12), 12, "generated must hold at least 13 samples; got 12"),
        (recall, (14, 12, 12), 12, "held_out must hold at least 13 samples; got 12"),
        (recall, (9, 12, 12), 2, "generated must hold at least 10 samples; got 9"),
        (coverage, (12, 12, 9), 2, "held_out must hold at least 10 samples; got 9"),
        (density, (1, 12, 12), 2, "generated must hold at least 2 samples; got 1"),
        (prdc, (12, 20, 12), 12, "generated must hold at least 13 samples; got 12"),
    ],
)
def test_too_few_are_refused(measure, sizes, k, words, rng):
    with pytest.raises(ValueError, match=words):
        measure(*(rng.normal(size=(n, 2)) for n in sizes), k)


@pytest.mark.parametrize("measure", [f for f in ALL if f is not recall], ids=lambda f: f.__name__)
def test_balls_need_another_training_point(measure):
    with pytest.raises(ValueError, match="k must be at most 0, .* other than the query itself"):
        measure(X, X[:1], X, 1)


def test_recall_alone_needs_no_balls_around_training_points():
    assert recall(X, X[:1], X, 1).value == 1.0
