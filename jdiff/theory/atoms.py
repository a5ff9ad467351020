"""Laws of finite support: the optimal denoiser, and bottlenecks with a posterior, generate points.

    optimal                                 x_n, the training set
    linear code, posterior decoder          x_n, where the codes V^T x_n are distinct
    posterior code, linear decoder          mu + V V^T (x_n - mu): new as images, copies in the code

The code u follows the optimal denoiser of the projected data, on its own: its r numbers are carried
through the grid here, in float64, and decoded at the end. That is the law of the grid. Codes closer
than a few times the last sigma blend, and the atoms' weights are w_n only in the limit of a fine
grid and a large start.

Reference: Levine and Weiss 2026, arXiv 2605.16415 (bottleneck denoisers).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check, _pixels
from jdiff.denoisers import BottleneckDenoiser, OptimalDenoiser
from jdiff.metrics import distinct, nearest
from jdiff.theory import checks, steps

# Codes farther apart than this many last sigmas do not blend: at 12, two equal weights differ by
# exp(-12 * 12 / 2 + 12 * 3) for a code that ended three sigmas away from its atom.
_RESOLVED = 12
# How near, in units of the atoms' total deviation, a sample must lie to be at an atom.
_AT = 1e-2
# Draws of the law that samples are compared with, at most; and permutations of the two together.
_DRAWS, _PERMUTATIONS = 2000, 1999
# Values of a block of draws times atoms, 64 MB in float64.
_BLOCK = 2**23


class AtomsLaw:
    """Samples are points of a finite set, and blends of those whose codes nearly collide.

    `sample` and `check` are of the grid and the solver. `weights`, `mean`, `covariance` and
    `eigenvalues` are those of the atoms, the law's in the limit of a fine grid and a large start:
    blends and unequal basins move the moments of a coarse one.

    Attributes:
      atoms: float32 [N, H, W, C], model units.
      weights: float64 [N], their probabilities in the limit of a fine grid and a large start.
      resolved: share of the weight on atoms whose codes do not blend with others at the last sigma.
      image_shape: (H, W, C).
      about: what it is the law of, for messages.
    """

    def __init__(
        self,
        atoms: Any,
        weights: Any,
        codes: Any,
        sigmas: Any,
        solver: str = "ddim",
        about: str = "",
        *,
        mean: Any = None,
        basis: Any = None,
    ):
        """Stores the atoms and finds which of them have a code of their own.

        Args:
          atoms: float [N, H, W, C], model units; what each code decodes to.
          weights: [N].
          codes: [N, r], where the atoms lie in the space in which the denoiser tells them apart.
          sigmas: the grid [T + 1], decreasing to 0.
          solver: one of `steps.SOLVERS`.
          about: the denoiser's class.
          mean: [D], with `basis` what makes a code of an image, V^T (y - mu); None where codes are
            the images.
          basis: [D, r], orthonormal columns.
        """
        self.atoms = np.asarray(atoms, np.float32)
        self.image_shape, self.about = self.atoms.shape[1:], about
        self.weights = _check.weights("weights", weights, len(self.atoms))
        self.resolved = 1.0
        self._sigmas, self._solver = np.asarray(sigmas, np.float64), solver
        codes, flat = np.asarray(codes, np.float32), self.atoms.reshape(len(self.atoms), -1)
        if codes.ndim != 2 or len(codes) != len(flat):
            raise ValueError(
                f"codes must have shape [{len(flat)}, r], one row an atom; got {list(codes.shape)}."
            )
        if len(self._sigmas) < 2:
            raise ValueError(f"sigmas must hold a level and the closing 0; got {sigmas}.")
        # An atom and its exact repeat are one atom: their blend is the atom.
        self._firsts = distinct(flat)
        if len(self._firsts) > 1:
            gaps = nearest(codes, codes[self._firsts], 2).distances[:, 1]
            last = float(self._sigmas[-2])
            self.resolved = float(self.weights[gaps > _RESOLVED * last].sum())
        self._codes, self._values = codes.astype(np.float64), flat.astype(np.float64)
        self._code, self._linear = None, False
        if basis is not None:
            self._code = np.asarray(mean, np.float64), np.asarray(basis, np.float64)
            away = self._values - self._code[0] - self._codes @ self._code[1].T
            scale = 1 + np.abs(self._values).max()
            self._linear = bool(np.abs(away).max() <= 1e-5 * scale)  # what decodes a code

    @property
    def mean(self) -> np.ndarray:
        """Of the atoms by their weights, float64 [H, W, C]."""
        return np.tensordot(self.weights, self.atoms.astype(np.float64), 1)

    @property
    def covariance(self) -> np.ndarray:
        """Of the atoms by their weights, float64 [D, D]."""
        x = (self.atoms - self.mean[None]).reshape(len(self.atoms), -1)
        return (x.T * self.weights) @ x

    @property
    def eigenvalues(self) -> np.ndarray:
        """Of that covariance, float64 [min(N, D)], largest first."""
        x = (self.atoms - self.mean[None]).reshape(len(self.atoms), -1)
        return np.linalg.svd(np.sqrt(self.weights)[:, None] * x, compute_uv=False) ** 2

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Draws from the law of the grid, blends among them: float32 [n, H, W, C].

        A draw costs one evaluation of the denoiser in float64 a step, and needs only the r numbers
        of the code.
        """
        _check.key("key", key)
        n = _check.integer("num_samples", num_samples)
        seed = np.asarray(jax.random.bits(key, (4,), jnp.uint32))
        rng = np.random.default_rng(seed.tolist())
        rows = max(1, _BLOCK // len(self._codes))
        parts = [self._draw(rng, min(rows, n - start)) for start in range(0, n, rows)]
        x = np.concatenate(parts).astype(np.float32)
        return jnp.asarray(x.reshape(n, *self.image_shape))

    def _draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """[n, D]: codes from noise through the grid, then the decoder at the last level."""
        codes = self._codes
        u = self._sigmas[0] * rng.normal(size=(n, codes.shape[1]))
        denoise = lambda u, sigma: self._mean_at(u, sigma, codes)
        for sigma, sigma_next in steps.pairs(self._sigmas[:-1]):
            deviation = np.sqrt(steps.noise_variance(sigma, sigma_next, self._solver))
            u = steps.step(denoise, u, sigma, sigma_next, self._solver)
            if deviation > 0:
                u += deviation * rng.normal(size=u.shape)
        return self._mean_at(u, self._sigmas[-2], self._values)

    def _mean_at(self, u: np.ndarray, sigma: float, values: np.ndarray) -> np.ndarray:
        """E[value | u] of codes [n, r]: [n, ...]."""
        # |u - c|^2 without |u|^2, which is the same for all atoms.
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights)
        logits = (u @ self._codes.T - np.sum(self._codes**2, 1) / 2) / sigma**2 + log_weights
        p = np.exp(logits - logits.max(1, keepdims=True))
        return (p / p.sum(1, keepdims=True)) @ values

    def check(self, samples: Any, *, alpha: float = 0.01) -> checks.LawCheck:
        """Do samples lie where the law's own draws lie, as often?

        Args:
          samples: [n, H, W, C], n >= 20, model units.
          alpha: the chance that samples of the law itself fail.

        Returns:
          LawCheck. "at atoms": the share within 1 % of the atoms' deviation of one; "distance": how
          far the others are (Kolmogorov-Smirnov); "frequencies": which atom is nearest, how often
          (a permutation test, so that a part of the atoms alone is rejected); "decoder", of a
          bottleneck with a linear decoder or a code of one number: whether every sample is what
          the decoder makes of its code. The comparison is with at most 2,000 draws.
        """
        from scipy import stats  # takes a third of a second to import

        tests = checks.Rows(alpha)
        x, came, overflowed = checks.admit(samples, self.image_shape)
        checks.overflow(tests, overflowed, came)
        flat = self._values[self._firsts]
        draws = self.sample(checks.own_key(), min(len(x), _DRAWS))
        own = np.asarray(draws, np.float64).reshape(len(draws), -1)
        (distance, which), (own_distance, own_which) = (_nearest(v, flat) for v in (x, own))
        off = self.weights[:, None] * (self._values - self.mean.reshape(1, -1)) ** 2
        # Of a single atom there is no deviation: then what float32 tells apart.
        tolerance = max(_AT * np.sqrt(np.sum(off)), 1e-5 * (1 + np.abs(flat).max()))
        near, own_near = distance <= tolerance, own_distance <= tolerance
        counts = [[int(v.sum()), int((~v).sum())] for v in (near, own_near)]
        tests.test(
            "at atoms", near.mean(), own_near.mean(), stats.fisher_exact(counts)[1],
            f"share of samples at one of {len(flat):,} atoms; {self.resolved:.1%} of their weight "
            "does not blend",
        )  # fmt: skip
        # Below the tolerance a distance is float32 rounding: equal there.
        both = [np.maximum(v, tolerance) for v in (distance, own_distance)]
        statistic, p = checks.two_samples(*both)
        expected = checks.ks_mean(len(x) * len(own) / (len(x) + len(own)))
        tests.test(
            "distance", statistic, expected, p, "distance to the nearest atom, Kolmogorov-Smirnov"
        )  # fmt: skip
        statistic, expected, p = _permutation(which, own_which, len(flat))
        visited, own_visited = len(np.unique(which)), len(np.unique(own_which))
        tests.test(
            "frequencies", statistic, expected, p,
            f"nearest atoms: {visited:,} different in {len(x):,} samples, {own_visited:,} in "
            f"{len(own):,} draws",
        )  # fmt: skip
        # A sample's code can be found from its image if it is decoded linearly, or one number.
        if self._code is not None and (self._linear or self._codes.shape[1] == 1):
            away = float(self._off_decoder(x, *self._code).max())
            tests.fact(
                "decoder", away, 0, away <= tolerance,
                f"largest distance to the decoder at the sample's code (at most {tolerance:.2g})",
            )  # fmt: skip
        return tests.finish(f"atoms of {self.about}", came, overflowed)

    def _off_decoder(self, x: np.ndarray, mean: np.ndarray, basis: np.ndarray) -> np.ndarray:
        """Distances [n] of images [n, D] from what the decoder makes of their codes."""
        seen = (x - mean) @ basis
        if self._linear:
            return np.linalg.norm(x - mean - seen @ basis.T, axis=1)
        rows = max(1, _BLOCK // len(self._codes))
        parts = np.array_split(np.arange(len(x)), -(-len(x) // rows))
        decode = lambda seen: np.concatenate([self._decoded(seen[i]) for i in parts])
        away = np.linalg.norm(x - decode(seen), axis=1)
        # Where codes all but collide the image moves far while the code moves by less than float32
        # can tell: the way between the two ends of what may have been seen belongs to the decoder.
        rounding = 1e-6 * (1 + np.abs(x).max(1))[:, None]
        low, high = decode(seen - rounding), decode(seen + rounding)
        span = high - low
        t = np.sum((x - low) * span, 1) / np.maximum(np.sum(span**2, 1), np.finfo(float).tiny)
        between = low + np.clip(t, 0, 1)[:, None] * span
        return np.minimum(away, np.linalg.norm(x - between, axis=1))

    def _decoded(self, seen: np.ndarray) -> np.ndarray:
        """Images [n, D] of codes seen [n, 1]: E[c | u] grows with u, so bisection finds its u."""
        last = float(self._sigmas[-2])
        low, high = self._codes.min() - 10 * last, self._codes.max() + 10 * last
        low, high = np.full_like(seen, low), np.full_like(seen, high)
        for _ in range(40):  # to 1e-12 of the codes' range
            middle = (low + high) / 2
            below = self._mean_at(middle, last, self._codes) < seen
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return self._mean_at((low + high) / 2, last, self._values)


def _nearest(x: np.ndarray, atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = nearest(x.astype(np.float32), atoms.astype(np.float32), 1)
    return found.distances[:, 0], found.indices[:, 0]


def _permutation(a: np.ndarray, b: np.ndarray, num: int) -> tuple[float, float, float]:
    """Do two samples of a finite set have one distribution? Exact at any sparsity.

    sum_j (a_j / n - b_j / m)^2 of their counts against the same after permuting which of the two a
    draw belongs to; p-values smaller than permutations resolve from a gamma distribution with the
    mean and variance of the permuted ones.

    Returns:
      The statistic, its mean over permutations (both times n m / (n + m)), and the p-value.
    """
    from scipy import stats

    n, m = len(a), len(b)
    together, rng = np.concatenate([a, b]), np.random.default_rng(0)
    total = np.bincount(together, minlength=num)

    def statistic(first: np.ndarray) -> float:
        counts = np.bincount(first, minlength=num)
        return float(np.sum((counts / n - (total - counts) / m) ** 2) * n * m / (n + m))

    found = statistic(a)
    null = np.array([statistic(rng.permutation(together)[:n]) for _ in range(_PERMUTATIONS)])
    # Equal statistics count; rounding must not tell them apart.
    exceeding = int(np.sum(null >= found * (1 - 1e-12)))
    p, mean, spread = (1 + exceeding) / (1 + _PERMUTATIONS), null.mean(), null.var()
    if exceeding < 10 and spread > 0:
        p = min(p, stats.gamma(mean**2 / spread, scale=spread / mean).sf(found))
    return found, float(mean), float(p)


def optimal(denoiser: OptimalDenoiser, sigmas: np.ndarray, solver: str) -> AtomsLaw:
    """The training set itself."""
    images, weights = _bank(denoiser.bank)
    atoms = images.reshape(-1, *denoiser.image_shape)
    return AtomsLaw(atoms, weights, images, sigmas, solver, type(denoiser).__name__)


def bottleneck(denoiser: BottleneckDenoiser, sigmas: np.ndarray, solver: str) -> AtomsLaw:
    """Training images, or their projections on the code's subspace."""
    bank: Any = denoiser.bank
    codes, weights = _bank(bank)
    mean, v = (np.asarray(a, np.float64) for a in (denoiser.mean, denoiser.basis))
    if denoiser.decoder == "posterior":
        values = np.asarray(bank.values)[_real(bank)]
        atoms = _pixels.to_model(values)
    else:
        atoms = mean + codes.astype(np.float64) @ v.T
    atoms = atoms.reshape(-1, *denoiser.image_shape)
    name = type(denoiser).__name__
    return AtomsLaw(atoms, weights, codes, sigmas, solver, name, mean=mean, basis=v)


def _bank(bank: Any) -> tuple[np.ndarray, np.ndarray]:
    """The images of a bank that have weight, [N, D] in model units, and their weights."""
    kept = _real(bank)
    weights = np.exp(np.asarray(bank.log_weights, np.float64)[kept])
    return _pixels.to_model(np.asarray(bank.images)[kept]), weights


def _real(bank: Any) -> np.ndarray:
    return np.isfinite(np.asarray(bank.log_weights))
