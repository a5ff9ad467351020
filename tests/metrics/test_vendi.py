import numpy as np
import pytest

from jdiff.metrics.draws import drawn
from jdiff.metrics.vendi import vendi


def score(points: np.ndarray) -> float:
    """The definition: eigenvalues of the n x n kernel of cosines."""
    n = len(points)
    cosines = np.empty((n, n))
    for i, x in enumerate(points):
        for j, y in enumerate(points):
            cosines[i, j] = x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
    values = np.linalg.eigvalsh(cosines / n)
    return float(np.exp(-sum(v * np.log(v) for v in values if v > 1e-14)))


@pytest.mark.core
@pytest.mark.parametrize("dim", [3, 40, 100])  # fewer values than points, as many, more
def test_vendi_is_the_definition(dim, rng):
    generated = rng.normal(0.5, 1, (45, dim)).astype("f4")
    held_out = rng.normal(size=(40, dim)).astype("f4")
    found = vendi(generated, held_out[:1], held_out)
    # Eigenvalues that are 0 but for 1e-16 each add 4e-15 at most.
    assert found.value == pytest.approx(
        score(generated[drawn(generated, 40)].astype("f8")), rel=1e-11
    )
    assert found.control == pytest.approx(score(held_out.astype("f8")), rel=1e-11)
    assert (found.n, found.constants) == (40, {"part_size": 4})


@pytest.mark.parametrize("dim", [7, 60])
def test_interval_leaves_out_tenths(dim, rng):
    generated = rng.normal(size=(50, dim)).astype("f4")
    found = vendi(generated, generated, generated)
    some = generated[drawn(generated, 50)].astype("f8")
    left_out = [score(np.delete(some, range(5 * p, 5 * p + 5), 0)) for p in range(10)]
    half = 2.26 * np.sqrt(0.9 * np.square(np.subtract(left_out, np.mean(left_out))).sum())
    assert found.interval == pytest.approx((found.value - half, found.value + half), rel=1e-9)


def test_known_values():
    same = np.tile([1.0, 2.0, 3.0], (20, 1)) * np.arange(1, 21)[:, None]  # one direction
    assert vendi(same, same, same).value == pytest.approx(1.0, abs=1e-12)
    orthogonal = np.eye(25)[:20] * 7
    assert vendi(orthogonal, orthogonal, orthogonal).value == pytest.approx(20.0, rel=1e-12)
    four = np.tile(np.eye(4), (6, 1))  # four kinds, equally often
    assert vendi(four, four, four).value == pytest.approx(4.0, rel=1e-12)
    two = np.eye(2)[[0] * 18 + [1] * 6]  # exp of the entropy of (3/4, 1/4)
    assert vendi(two, two, two).value == pytest.approx(4 / 3**0.75, rel=1e-12)


def test_lengths_do_not_matter_and_n_are_drawn(rng):
    x = rng.normal(size=(30, 5))
    found = vendi(x * rng.integers(1, 9, (30, 1)) * 4, x, x)
    # Lengths round to float32.
    assert found.value == pytest.approx(found.control, rel=1e-6)
    more = np.concatenate([x, rng.normal(size=(9, 5))])
    some = more[drawn(more, len(x))]
    assert vendi(more, x, x).value == pytest.approx(vendi(some, x, x).value, rel=1e-12)
    assert vendi(x, x, more).n == len(x)


@pytest.mark.parametrize(("dim", "n"), [(64, 40), (5, 60)])
def test_interval_covers_the_expected_value(dim, n, rng):
    # Three binomial deviations of 0.95 at 100 repetitions are 0.065.
    scales = np.arange(1, dim + 1) ** -0.5
    held_out = rng.normal(size=(n, dim))
    found = [vendi(rng.normal(size=(n, dim)) * scales, held_out, held_out) for _ in range(100)]
    values, ends = np.array([f.value for f in found]), np.array([f.interval for f in found])
    covered = np.mean((ends[:, 0] <= values.mean()) & (values.mean() <= ends[:, 1]))
    assert covered >= 0.95 - 0.065
    assert np.mean(ends[:, 1] - ends[:, 0]) < 8 * values.std()


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((19, 30, 30), "generated must hold at least 20 samples; got 19"),
        ((30, 30, 19), "held_out must hold at least 20 samples; got 19"),
    ],
)
def test_too_few_are_refused(sizes, words, rng):
    with pytest.raises(ValueError, match=words):
        vendi(*(rng.normal(size=(n, 3)) for n in sizes))


def test_black_images_are_refused(digits):
    train, held_out = digits
    generated = held_out.copy()
    generated[[3, 5]] = 0
    with pytest.raises(
        ValueError, match="generated must hold no sample .* got 2 among the first 360"
    ):
        vendi(generated, train, held_out)
    with pytest.raises(ValueError, match="held_out must hold no sample"):
        vendi(held_out, train, generated)
