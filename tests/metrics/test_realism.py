import numpy as np
import pytest
import scipy.linalg

from jdiff.metrics import frechet_distance, moments
from jdiff.metrics.draws import drawn


def sqrtm_frechet(a: np.ndarray, b: np.ndarray) -> float:
    s1, s2 = np.cov(a.T), np.cov(b.T)
    cross = scipy.linalg.sqrtm(s1 @ s2)
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s1 + s2 - 2 * np.real(cross))


def with_moments(rng, n: int, mean: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """n points whose sample mean and covariance are exactly these (to float32 rounding)."""
    x = rng.normal(size=(n, len(mean)))
    x -= x.mean(axis=0)
    x = np.linalg.solve(np.linalg.cholesky(np.cov(x.T)), x.T).T
    return x * deviations + mean


@pytest.mark.core
def test_frechet_is_that_of_sqrtm(rng):
    mix = rng.normal(size=(8, 8))
    train = (rng.normal(size=(500, 8)) @ mix).astype(np.float32)
    generated = rng.normal(0.3, 1.2, size=(120, 8)).astype(np.float32)
    held_out = (rng.normal(size=(150, 8)) @ mix).astype(np.float32)
    found = frechet_distance(generated, train, held_out)
    exact = [x.astype(np.float64) for x in (generated, train, held_out)]
    # sqrtm loses half the digits at small eigenvalues.
    assert found.value == pytest.approx(sqrtm_frechet(exact[0], exact[1]), rel=1e-7)
    assert found.control == pytest.approx(
        sqrtm_frechet(exact[2][drawn(held_out, 120)], exact[1]), rel=1e-6
    )
    assert found.n == 120
    assert found.constants == {
        "part_size": 12, "num_train": 500, "num_features": 8, "fewer_points_than_features": False,
    }  # fmt: skip
    assert found.title == "Fréchet distance (features)"


def test_frechet_of_gaussians_is_the_closed_form(rng):
    m1, m2 = np.array([1.0, 0.0, 2.0]), np.array([0.0, 0.5, 2.0])
    d1, d2 = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 1.0])
    train, generated = with_moments(rng, 400, m1, d1), with_moments(rng, 50, m2, d2)
    # For commuting covariances |m1 - m2|^2 + sum (sd1 - sd2)^2 = 1.25 + 4.25; float32 inputs.
    found = frechet_distance(generated, train, train)
    assert found.value == pytest.approx(5.5, rel=1e-5)


def test_frechet_of_equal_sets_is_0_where_float32_is_not(rng):
    # metrics: float32 gives -1.8 here. Tr S is 512, and 19 singular values carry all of it.
    x = rng.normal(size=(20, 512))
    found = frechet_distance(x, x, x)
    assert 0.0 <= found.value < 1e-9
    assert found.constants["fewer_points_than_features"]
    assert "fewer points than features" in str(found)


def test_frechet_of_few_points_by_the_full_covariance(rng):
    train, generated = rng.normal(size=(300, 40)), rng.normal(0.1, 1.5, size=(25, 40))
    s1, s2 = np.cov(generated.T), np.cov(train.T)
    values, vectors = np.linalg.eigh(s2)
    root = vectors * np.sqrt(values) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ s1 @ root), 0)).sum()
    means = np.square(generated.mean(0) - train.mean(0)).sum()
    expected = means + np.trace(s1) + np.trace(s2) - 2 * cross
    # Roots of 16 null eigenvalues, each about 1e-15 here, are left in `expected`.
    found = frechet_distance(generated, train, train)
    assert found.value == pytest.approx(expected, abs=1e-5)


def test_pixel_frechet_of_digits(digits):
    train, held_out = digits
    found = frechet_distance(held_out, train, held_out)
    assert found.value == found.control
    unit = [(x.reshape(len(x), -1) / 255.0) for x in (held_out, train)]
    # Border pixels are always 0: sqrtm of a singular product, hence its tolerance.
    noise = np.random.default_rng(1).normal(0, 1e-4, (1797, 64))
    expected = sqrtm_frechet(unit[0] + noise[:360], unit[1] + noise[360:])
    assert found.value == pytest.approx(expected, abs=2e-4)
    assert found.value == pytest.approx(0.103, abs=5e-4)  # the design's own measurement
    assert found.title == "pixel Fréchet distance"


def test_frechet_interval_is_of_ten_parts(rng):
    train, generated = rng.normal(size=(200, 3)), rng.normal(1, 1, size=(57, 3))
    found = frechet_distance(generated, train, train)
    f32 = [x.astype(np.float32).astype(np.float64) for x in (train, generated)]
    some = f32[1][drawn(generated, 57)]
    parts = [sqrtm_frechet(some[5 * i : 5 * i + 5], f32[0]) for i in range(10)]
    half = 2.26 * np.std(parts, ddof=1) / np.sqrt(10)
    assert found.interval == pytest.approx((found.value - half, found.value + half), rel=1e-5)
    assert found.constants["part_size"] == 5


def test_frechet_interval_covers_the_expected_value(rng):
    # The mean over all repetitions is what an interval should cover. Three binomial deviations of
    # 0.95 at 200 repetitions are 0.046; the spread of small parts errs on the wide side.
    train = rng.normal(size=(400, 4))
    fit = moments(train)
    held_out = rng.normal(size=(200, 4))
    found = [
        frechet_distance(rng.normal(0.5, 1, (200, 4)), train, held_out, train_moments=fit)
        for _ in range(200)
    ]
    expected = np.mean([f.value for f in found])
    intervals = [f.interval for f in found if f.interval is not None]
    covered = sum(low <= expected <= high for low, high in intervals) / 200
    assert covered >= 0.95 - 0.046
    assert np.mean([float(high - low) for low, high in intervals]) < 8 * np.std(
        [f.value for f in found]
    )


def test_moments_are_numpys_across_blocks(rng, monkeypatch):
    x = rng.normal(2, 3, size=(1000, 5)).astype(np.float32)
    whole = moments(x)
    np.testing.assert_allclose(whole.mean, x.astype(np.float64).mean(0))
    covariance = np.cov(x.astype(np.float64).T)
    np.testing.assert_allclose(whole.root @ whole.root, covariance, atol=1e-12)
    assert whole.trace == pytest.approx(np.trace(covariance))
    monkeypatch.setattr("jdiff.metrics.realism.ROWS", 64)
    np.testing.assert_allclose(moments(x).root, whole.root, atol=1e-12)


def test_known_moments_change_nothing(digits):
    train, held_out = digits
    known = frechet_distance(held_out, train, held_out, train_moments=moments(train))
    assert known == frechet_distance(held_out, train, held_out)


@pytest.mark.parametrize(
    ("sizes", "options", "words"),
    [
        ((19, 40, 40), {}, "generated must hold at least 20 samples; got 19"),
        ((20, 40, 19), {}, "held_out must hold at least 20 samples; got 19"),
        ((20, 1, 20), {}, "train must hold at least 2 samples; got 1"),
        (
            (20, 40, 20),
            {"d": 2},
            "moments.train., of 40 points with 3 values; got those of 40 .* 2",
        ),
        ((20, 40, 20), {"n": 30}, "of 40 points with 3 values; got those of 30 points with 3"),
    ],
)
def test_frechet_refuses(sizes, options, words, rng):
    generated, train, held_out = (rng.normal(size=(n, 3)) for n in sizes)
    fit = None
    if options:
        fit = moments(train[: options.get("n"), : options.get("d")])
    with pytest.raises(ValueError, match=words):
        frechet_distance(generated, train, held_out, train_moments=fit)


def test_value_and_control_take_equally_many(digits):
    train, held_out = digits
    generated = train[:250] // 2
    found = frechet_distance(generated, train, held_out[:200])
    some = generated[drawn(generated, 200)]
    other = frechet_distance(some, train, held_out[:200])
    assert found.n == other.n == 200
    # Sums of the same points in another order.
    assert found.value == pytest.approx(other.value, rel=1e-9)
    assert found.control == other.control
