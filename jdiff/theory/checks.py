"""Do samples obey a law? Statistics whose null distribution is known, with Bonferroni.

A right law fails with probability alpha; a wrong one must. Means and variances come from the law,
never from the samples, and axes from the law too: sorted sample eigenvalues are off for the right
law. The radius, the squared whitened norm against chi^2, alone rejects training images offered as
samples of the linear law: they have its mean, its covariance and Gaussian projections.

Source: the test statistics are standard (Anderson, "An Introduction to Multivariate Statistical
Analysis", chapters 5 and 7); which are needed was found by feeding them wrong laws.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from jdiff import _check, _pixels
from jdiff.metrics import nearest

if TYPE_CHECKING:
    from jdiff.theory.gaussian import GaussianLaw

LEAST_SAMPLES = 20
# Axes below this share of the largest variance are not tested: float32 samples show rounding.
SIGNIFICANT = 1e-6
# Variances below this, model units squared, are rounding of float32 values near 1.
POINT = 1e-13
# Share of the law's variance that may lie outside its axes: float32 rounding of samples of size 1
# in axes rounded to float32 leaves 1e-13 to 1e-10.
LEAKAGE = 1e-7
_COVARIANCE_AXES = 64
_SIMULATIONS = 400


@dataclasses.dataclass(frozen=True)
class CheckRow:
    """One test of one law.

    Attributes:
      name: which.
      statistic: what was measured.
      expected: what the law predicts for it.
      p_value: the chance of a statistic this far off under the law, corrected for the number of
        axes; None where the law leaves nothing to chance.
      passed: whether it obeys.
      detail: one sentence: what was compared with what.
    """

    name: str
    statistic: float
    expected: float
    p_value: float | None
    passed: bool
    detail: str


@dataclasses.dataclass(frozen=True)
class LawCheck:
    """What a law's check found.

    Attributes:
      about: the law.
      rows: one a test.
      num_samples: how many samples came, those that overflowed among them.
      overflowed: how many were not finite; they are counted, and never part of a statistic.
      alpha: the chance that samples of the law itself fail one of the tests.
    """

    about: str
    rows: tuple[CheckRow, ...]
    num_samples: int
    overflowed: int
    alpha: float

    @property
    def passed(self) -> bool:
        """Whether every row passed."""
        return all(row.passed for row in self.rows)

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the rows that failed."""
        return tuple(row.name for row in self.rows if not row.passed)

    def row(self, name: str) -> CheckRow:
        """The row of that name."""
        _check.choice("name", name, [row.name for row in self.rows])
        return next(row for row in self.rows if row.name == name)

    def __str__(self) -> str:
        word = "obeyed" if self.passed else f"rejected by {', '.join(self.failed)}"
        lines = [
            f"{self.about}: {word} ({self.num_samples:,} samples, {self.overflowed:,} overflowed, "
            f"alpha {self.alpha:g})"
        ]
        for row in self.rows:
            p = "" if row.p_value is None else f"  p = {row.p_value:.2g}"
            mark = "ok  " if row.passed else "FAIL"
            lines.append(
                f"  {mark} {row.name:<11} {row.statistic:.4g} (law: {row.expected:.4g}){p}"
                f"  {row.detail}"
            )
        return "\n".join(lines)


class Rows:
    """Collects tests; each p-value is held against alpha over their number."""

    def __init__(self, alpha: float):
        """Alpha is the false alarm rate of all tests together."""
        self._alpha = _check.number("alpha", alpha, above=0, below=1)
        self._rows: list[CheckRow] = []

    def test(self, name: str, statistic: float, expected: float, p_value: Any, detail: str) -> None:
        """Adds a test with a p-value."""
        # A statistic that is no number is no agreement.
        p = float(min(1.0, p_value)) if np.isfinite(p_value) and np.isfinite(statistic) else 0.0
        self._rows.append(CheckRow(name, float(statistic), float(expected), p, True, detail))

    def fact(self, name: str, statistic: float, expected: float, passed: bool, detail: str) -> None:
        """Adds a statement that leaves nothing to chance."""
        row = CheckRow(name, float(statistic), float(expected), None, bool(passed), detail)
        self._rows.append(row)

    def finish(self, about: str, num_samples: int, overflowed: int) -> LawCheck:
        """Judges the p-values by their number."""
        level = self._alpha / max(1, sum(row.p_value is not None for row in self._rows))
        judged = tuple(
            row if row.p_value is None else dataclasses.replace(row, passed=row.p_value >= level)
            for row in self._rows
        )
        return LawCheck(about, judged, num_samples, overflowed, self._alpha)


def rows(name: str, samples: Any, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Finite samples as float64 [n, D].

    Raises:
      TypeError: if they are not floats.
      ValueError: on another shape, or values that are not finite.
    """
    x, finite = finite_rows(name, samples, image_shape)
    if not finite.all():
        raise ValueError(
            f"{name} holds {int((~finite).sum())} of {len(finite)} samples with NaN or infinite "
            "values; all must be finite here (a law's `check` counts them)."
        )
    return x


def finite_rows(
    name: str, samples: Any, image_shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Samples as float64 [n, D], and which rows are finite [n]."""
    array = np.asarray(samples)
    if array.dtype == np.uint8:
        array = _pixels.to_model(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"{name} must be float in model units, or uint8; got dtype {array.dtype}.")
    if array.ndim != 4 or array.shape[1:] != tuple(image_shape):
        shape = ", ".join(map(str, image_shape))
        raise ValueError(f"{name} must have shape [n, {shape}]; got {list(array.shape)}.")
    x = array.reshape(len(array), -1).astype(np.float64)
    return x, np.asarray(np.isfinite(x).all(axis=1))


def admit(samples: Any, image_shape: tuple[int, int, int]) -> tuple[np.ndarray, int, int]:
    """The finite samples [m, D], how many came, how many overflowed.

    Raises:
      ValueError: if fewer than 20 are finite, or on a wrong shape.
    """
    x, finite = finite_rows("samples", samples, image_shape)
    if finite.sum() < LEAST_SAMPLES:
        raise ValueError(
            f"samples must hold at least {LEAST_SAMPLES} finite ones; got {len(x)}, of which "
            f"{int(finite.sum())} are finite."
        )
    return x[finite], len(x), int((~finite).sum())


def significant(eigenvalues: np.ndarray) -> np.ndarray:
    """Which axes are tested, bool [m]; none of a law that float32 cannot tell from a point."""
    return eigenvalues > max(SIGNIFICANT * max(eigenvalues, default=0.0), POINT)


def overflow(tests: Rows, overflowed: int, num_samples: int) -> None:
    """Adds the row that no sample may be missing."""
    tests.fact(
        "finite", num_samples - overflowed, num_samples, overflowed == 0, "samples that are finite"
    )


def gaussian(law: "GaussianLaw", samples: Any, train: Any, held_out: Any, alpha: float) -> LawCheck:
    """The tests of a Gaussian law; see `GaussianLaw.check`."""
    from scipy import stats  # here and below: it takes a third of a second to import

    tests = Rows(alpha)
    if train is None and held_out is not None:
        raise ValueError("held_out is compared by distances to training images: give train too.")
    x, came, overflowed = admit(samples, law.image_shape)
    x = x - law.mean.reshape(1, -1)
    n = len(x)
    overflow(tests, overflowed, came)
    kept = significant(law.eigenvalues)
    l = law.eigenvalues[kept]
    r = len(l)
    if r == 0:
        away, scale = float(np.abs(x).max()), 1 + float(np.abs(law.mean).max())
        tests.fact(
            "point", away, 0, away <= 1e-5 * scale, "largest distance of a value to the one point"
        )
        return tests.finish(f"Gaussian law of {law.about}", came, overflowed)
    projected = law.axes.project(x)
    u = projected[:, kept] / np.sqrt(l)

    t2 = n * float(np.sum(u.mean(0) ** 2))
    tests.test("mean", t2, r, _two_sided(stats.chi2(r), t2), f"n d^T C^+ d against chi^2_{r}")

    measured, expected, p = _covariance(u, l)
    tests.test("covariance", measured, expected, p, f"|C_hat - C|_F^2, leading {min(r, 64)} axes")

    variances = u.var(0, ddof=1)
    i, p = worst(_two_sided(stats.chi2(n - 1), (n - 1) * variances))
    tests.test("variance", variances[i], 1, p, f"v^T C_hat v / l on the worst of {r} axes ({i})")
    distances, p_values = np.array([stats.kstest(v, "norm") for v in u.T]).T
    i, p = worst(p_values)
    tests.test(
        "shape", distances[i], ks_mean(n), p, f"Kolmogorov-Smirnov on the worst of {r} axes ({i})"
    )
    radius = np.sum(u**2, 1)
    statistic, p = stats.kstest(radius, stats.chi2(r).cdf)
    tests.test(
        "radius", statistic, ks_mean(n), p,
        f"whitened norms (median {np.median(radius):.4g}) against chi^2_{r} "
        f"(median {stats.chi2(r).median():.4g})",
    )  # fmt: skip

    if len(law.eigenvalues) < x.shape[1] or not kept.all():
        outside = float(np.mean(np.sum(x**2, 1) - np.sum(projected[:, kept] ** 2, 1)))
        predicted = float(law.eigenvalues[~kept].sum())
        # What lies outside is a sum of squares: below 0 it is rounding.
        share, bound = max(0.0, outside / l.sum()), 2 * predicted / l.sum() + LEAKAGE
        tests.fact(
            "leakage", share, predicted / l.sum(), share <= bound,
            f"share of variance outside the predicted {r} axes (at most {bound:.2g})",
        )  # fmt: skip
    if train is not None:
        _nearest(tests, law, x + law.mean.reshape(1, -1), train, held_out)
    return tests.finish(f"Gaussian law of {law.about}", came, overflowed)


def _covariance(u: np.ndarray, l: np.ndarray) -> tuple[float, float, float]:
    """|C_hat - C|_F^2 along the leading axes, its expectation, and a p-value.

    Its expectation (tr(C)^2 + tr(C^2)) / (n - 1) is exact. Its distribution has no closed form: a
    gamma distribution with that mean and the variance of simulated sets.
    """
    from scipy import stats

    n, l = len(u), l[:_COVARIANCE_AXES]
    root = np.sqrt(l)

    def statistic(z: np.ndarray) -> float:
        c = np.cov(z * root, rowvar=False).reshape(len(l), len(l))
        return float(np.sum((c - np.diag(l)) ** 2))

    expected = (l.sum() ** 2 + np.sum(l**2)) / (n - 1)
    # Sums of outer products of n normals are Wishart: Bartlett's factor draws them without the n.
    rng = np.random.default_rng(0)
    simulated = []
    for _ in range(_SIMULATIONS):
        a = np.tril(rng.normal(size=(len(l), len(l))), -1)
        degrees = n - 1 - np.arange(len(l))
        if degrees[-1] > 0:
            a[np.diag_indices(len(l))] = np.sqrt(rng.chisquare(degrees))
            factor = root[:, None] * a
            c = factor @ factor.T / (n - 1)
            simulated.append(np.sum((c - np.diag(l)) ** 2))
        else:
            simulated.append(statistic(rng.normal(size=(n, len(l)))))
    spread = np.var(simulated)
    null = stats.gamma(expected**2 / spread, scale=spread / expected)
    measured = statistic(u[:, : len(l)])
    return measured, expected, _two_sided(null, measured)


def _nearest(tests: Rows, law: Any, x: np.ndarray, train: Any, held_out: Any) -> None:
    """Distances to the nearest training image: of the samples against the law's own draws."""
    unit = lambda images: _pixels.to_unit(images).reshape(len(images), -1)
    train = unit(_check.images("train", train, shape=law.image_shape))
    key = own_key()
    distance = lambda images: nearest(unit(images), train, 1).distances[:, 0]
    given, drawn = distance(x), distance(np.asarray(law.sample(key, len(x))))
    _, p = two_samples(given, drawn)
    beside = ""
    if held_out is not None:
        held_out = _check.images("held_out", held_out, shape=law.image_shape)
        beside = f"; held-out images {np.median(distance(held_out)):.3g}"
    tests.test(
        "nearest", np.median(given), np.median(drawn), p,
        f"median distance to the nearest training image on [0, 1]{beside}",
    )  # fmt: skip


def _two_sided(distribution: Any, value: Any) -> Any:
    return 2 * np.minimum(distribution.cdf(value), distribution.sf(value))


def worst(p_values: np.ndarray) -> tuple[int, float]:
    """Which of several p-values is the smallest, and it times their number."""
    which = int(np.argmin(p_values))
    return which, float(p_values[which] * len(p_values))


def own_key() -> Any:
    """Of draws that samples are compared with: folded, lest the samples are these very draws."""
    import jax

    return jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), 0x1A35)


def two_samples(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Kolmogorov-Smirnov statistic and p-value of two sets of numbers, ties among them."""
    from scipy import stats

    # The exact distribution warns and gives up where many are tied; the asymptotic one is safe.
    found: Any = stats.ks_2samp(a, b, method="asymp")
    return float(found.statistic), float(found.pvalue)


def ks_mean(n: float) -> float:
    """About the mean of the Kolmogorov-Smirnov statistic of n samples of the law itself."""
    return 0.87 / np.sqrt(n)
