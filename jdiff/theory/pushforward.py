"""The law of one-dimensional samples: the push-forward of the starting noise through the sampler.

    x = T(sigma_0 z),  z ~ N(0, 1),  T = T_{N-1} o ... o T_0, every T_i a polynomial map

T turns back and forth and is nearly flat where most of the mass lies, so neither phi / |T'| nor
Gauss-Hermite moments work. The law is T on a midpoint grid in probability: quantiles and CDF by
sorting, density as differences of the CDF. Outside the data an odd polynomial explodes: that mass
belongs to the law; it is stated apart, and everything else is conditional on |x - m| <= bound.

Reference: Levine and Weiss 2026, arXiv 2605.16415 (polynomial denoisers see finitely many moments).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jdiff import _check
from jdiff.denoisers import PolynomialDenoiser
from jdiff.theory import checks, steps


class PushForwardLaw:
    """The law of a polynomial denoiser's samples in one dimension.

    Attributes:
      points: float64 [M], T on the midpoint grid in probability, in the order of z.
      center: the data's mean.
      bound: |x - center| <= bound is inside; what lies outside has escaped.
      escaped: the share of the mass that has.
      image_shape: (1, 1, 1).
      about: what it is the law of, for messages.
    """

    def __init__(
        self,
        denoiser: PolynomialDenoiser,
        sigmas: np.ndarray,
        solver: str,
        *,
        num_points: int = 20_001,
        bound: float | None = None,
    ):
        """Pushes the grid through; bound defaults to 10 standard deviations of the data."""
        self.image_shape, self.about = denoiser.image_shape, type(denoiser).__name__
        if np.prod(self.image_shape) != 1:
            raise ValueError(f"denoiser must be of one value; got images {self.image_shape}.")
        if bound is not None:
            bound = _check.number("bound", bound, above=0)
        self._levels = np.asarray(denoiser.sigmas, np.float64)
        self._scale = np.asarray(denoiser.scale, np.float64)[:, 0]
        self._coefficients = np.asarray(denoiser.coefficients, np.float64)[..., 0]
        self._sigmas, self._solver = np.asarray(sigmas, np.float64), solver
        self.center = float(np.asarray(denoiser.mean)[0])
        if bound is None:  # of a single point there is no deviation: then what float32 tells apart
            bound = max(10 * float(denoiser.deviation[0]), 1e-3 * (1 + abs(self.center)))
        self.bound = float(bound)
        self.points = self.map(special.ndtri((np.arange(num_points) + 0.5) / num_points))
        inside = self.inside(self.points)
        self.escaped = float(1 - inside.mean())
        if not inside.any():
            raise ValueError(
                f"bound {self.bound:.3g} holds none of the samples' mass: all of it escapes."
            )
        self._sorted = np.sort(self.points[inside])

    def inside(self, x: Any) -> np.ndarray:
        """Which values have not escaped, bool like x; what is not finite has."""
        with np.errstate(invalid="ignore"):
            return np.abs(np.asarray(x, np.float64) - self.center) <= self.bound

    def map(self, z: Any) -> np.ndarray:
        """T(sigma_0 z), float64 like z; not finite where it left the floats."""
        y = self._sigmas[0] * np.asarray(z, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            return steps.carry(self._denoise, y, self._sigmas, self._solver)

    def _denoise(self, y: np.ndarray, sigma: float) -> np.ndarray:
        t = int(np.argmin(np.abs(np.log(self._levels / sigma))))
        u = (y - self.center) / self._scale[t]
        before, h, x_hat = np.zeros_like(u), np.ones_like(u), self._coefficients[t, 0]
        for n in range(1, self._coefficients.shape[1]):
            # h_n = He_n / sqrt(n!):  sqrt(n) h_n = u h_{n-1} - sqrt(n-1) h_{n-2}
            before, h = h, (u * h - np.sqrt(n - 1) * before) / np.sqrt(n)
            x_hat = x_hat + self._coefficients[t, n] * h
        return x_hat

    @property
    def mean(self) -> np.ndarray:
        """Mean of what did not escape, float64 [1, 1, 1]."""
        return np.full((1, 1, 1), self._sorted.mean())

    @property
    def covariance(self) -> np.ndarray:
        """Variance of what did not escape, float64 [1, 1]."""
        return np.full((1, 1), self._sorted.var())

    @property
    def eigenvalues(self) -> np.ndarray:
        """The same, float64 [1]."""
        return self.covariance[0]

    def moment(self, order: int) -> float:
        """E[x^order] of what did not escape."""
        return float(np.mean(self._sorted ** _check.integer("order", order, minimum=0)))

    def cdf(self, x: Any) -> np.ndarray:
        """Share of what did not escape that is at most x, float64 like x."""
        found = np.searchsorted(self._sorted, np.asarray(x, np.float64), side="right")
        return found / len(self._sorted)

    def quantile(self, p: Any) -> np.ndarray:
        """Where the CDF reaches p, 0 <= p <= 1, float64 like p."""
        p = np.asarray(p, np.float64)
        if not np.all((p >= 0) & (p <= 1)):
            raise ValueError(f"p must lie in [0, 1]; got {p.min()} .. {p.max()}.")
        return np.quantile(self._sorted, p, method="hazen")

    def density(self, edges: Any) -> np.ndarray:
        """Mean density in each bin between increasing edges [b + 1], float64 [b]."""
        edges = np.asarray(edges, np.float64)
        if edges.ndim != 1 or len(edges) < 2 or not np.all(np.diff(edges) > 0):
            raise ValueError(f"edges must be a growing one-dimensional array; got {edges}.")
        return np.diff(self.cdf(edges)) / np.diff(edges)

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Draws from the law, escaped ones among them: float32 [n, 1, 1, 1]."""
        _check.key("key", key)
        num_samples = _check.integer("num_samples", num_samples)
        x = self.map(np.asarray(jax.random.normal(key, (num_samples,), jnp.float32)))
        with np.errstate(over="ignore"):
            return jnp.asarray(x.astype(np.float32).reshape(-1, 1, 1, 1))

    def check(self, samples: Any, *, alpha: float = 0.01) -> checks.LawCheck:
        """Do samples obey the law? Their share that escaped, and the distribution of the rest.

        Args:
          samples: [n, 1, 1, 1], n >= 20; those that are not finite have escaped too.
          alpha: the chance that samples of the law itself fail.

        Returns:
          LawCheck.
        """
        from scipy import stats  # takes a third of a second to import

        tests = checks.Rows(alpha)
        x, finite = checks.finite_rows("samples", samples, self.image_shape)
        x = x[:, 0]
        kept, n = x[self.inside(x)], len(x)
        if len(kept) < checks.LEAST_SAMPLES:
            raise ValueError(
                f"samples must hold at least {checks.LEAST_SAMPLES} within {self.bound:.3g} of "
                f"{self.center:.3g}; got {len(kept)} of {n}."
            )
        # The grid knows the escaped mass to a few of its points: Fisher's test holds the two counts
        # against each other as they are.
        counts = [[n - len(kept), len(kept)]]
        counts += [[len(self.points) - len(self._sorted), len(self._sorted)]]
        tests.test(
            "escaped", 1 - len(kept) / n, self.escaped, stats.fisher_exact(counts)[1],
            f"share beyond {self.bound:.3g} of the mean; {int((~finite).sum())} not finite",
        )  # fmt: skip
        statistic, p = self._kolmogorov_smirnov(np.sort(kept))
        tests.test(
            "shape", statistic, checks.ks_mean(len(kept)), p,
            f"Kolmogorov-Smirnov against the push-forward, resolution {self.resolution:.2g}",
        )  # fmt: skip
        return tests.finish(f"push-forward law of {self.about}", n, int((~finite).sum()))

    @property
    def resolution(self) -> float:
        """How far float32 may have moved a sample: 1e-5 of the bound, 1e-4 deviations."""
        return 1e-5 * self.bound

    def _kolmogorov_smirnov(self, x: np.ndarray) -> tuple[float, float]:
        """Statistic and p-value of sorted samples that were each moved by at most `resolution`.

        Where the law is all but atoms, narrower than float32 can tell, the plain statistic
        rejects rounding. Moved samples have F_n(x) <= F_true(x + resolution) and so on: the
        statistic below is at most that of the unmoved ones.
        """
        from scipy import stats

        n = len(x)
        above = np.arange(1, n + 1) / n - self.cdf(x + self.resolution)
        below = self.cdf(x - self.resolution) - np.arange(n) / n
        statistic = max(float(above.max()), float(below.max()), 0.0)
        return statistic, float(stats.kstwo.sf(statistic, n))
