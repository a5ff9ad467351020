"""The law of a linear bottleneck when the target is continuous: a regression surface.

    u ~ V^T x,   sample = E[x | V^T x = u]

The code follows the optimal denoiser of the projected target on its own, and the best decoder
returns the conditional mean. For a Gaussian mixture sum_k w_k N(m_k, S_k) all of it is closed:
pi_k(u) ~ w_k N(u; V^T m_k, T_k), T_k = V^T S_k V, and
E[x | u] = sum_k pi_k(u) [ m_k + S_k V T_k^-1 (u - V^T m_k) ].

Reference: Levine and Weiss 2026, arXiv 2605.16415 (bottleneck denoisers).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jdiff import _check
from jdiff.theory import checks

# Pairs of axes that are looked at, in a code of many numbers.
_PAIRS = 100


class RegressionLaw:
    """The r-dimensional surface u -> E[x | V^T x = u] over a Gaussian mixture, and how u falls.

    Attributes:
      weights: float64 [K].
      means: float64 [K, D], model units.
      covariances: float64 [K, D, D].
      basis: float64 [D, r], orthonormal columns V.
      image_shape: (H, W, C).
      about: what it is the law of, for messages.
    """

    def __init__(
        self, weights: Any, means: Any, covariances: Any, basis: Any, image_shape: tuple
    ) -> None:
        """Stores the target and the code's axes.

        Args:
          weights: [K], not negative, not all zero.
          means: [K, D].
          covariances: [K, D, D], positive definite along the axes.
          basis: [D, r], orthonormal columns.
          image_shape: (H, W, C) with H * W * C = D.

        Raises:
          ValueError: on shapes that do not fit, a basis that is not orthonormal, or a component
            that has no width along the axes.
        """
        self.image_shape = _check.image_shape("image_shape", image_shape)
        d = int(np.prod(self.image_shape))
        self.means, self.covariances = (np.asarray(a, np.float64) for a in (means, covariances))
        self.basis = np.asarray(basis, np.float64)
        k = len(self.means)
        self.weights = _check.weights("weights", weights, k)
        for name, array, shape in (
            ("means", self.means, (k, d)),
            ("covariances", self.covariances, (k, d, d)),
        ):
            if array.shape != shape:
                raise ValueError(f"{name} must have shape {shape}; got {array.shape}.")
        if self.basis.ndim != 2 or self.basis.shape[0] != d or self.basis.shape[1] == 0:
            raise ValueError(f"basis must have shape ({d}, r); got {self.basis.shape}.")
        if not np.allclose(self.basis.T @ self.basis, np.eye(self.basis.shape[1]), atol=1e-5):
            raise ValueError("basis must have orthonormal columns.")
        if not (np.isfinite(self.means).all() and np.isfinite(self.covariances).all()):
            raise ValueError("means and covariances must be finite.")
        if not np.allclose(self.covariances, np.swapaxes(self.covariances, 1, 2)):
            raise ValueError("covariances must be symmetric.")
        least = np.linalg.eigvalsh(self.covariances).min()
        if least < -1e-9 * np.abs(self.covariances).max():
            raise ValueError(f"covariances must not have negative eigenvalues; got {least:.3g}.")
        self._codes = self.means @ self.basis  # V^T m_k, [K, r]
        self._spread = np.einsum("di,kde,ej->kij", self.basis, self.covariances, self.basis)
        if np.linalg.eigvalsh(self._spread).min() <= 0:
            raise ValueError("covariances must be positive definite along the basis.")
        self.about = f"a mixture of {k} through {self.basis.shape[1]} numbers"

    def curve(self, u: Any) -> np.ndarray:
        """E[x | V^T x = u] of codes [n, r]: float64 [n, D]."""
        return self._conditional_mean(self._rows("u", u, self.basis.shape[1]), 0.0)

    def denoise(self, y: Any, sigma: float) -> np.ndarray:
        """The best denoiser that sees only V^T y: E[x | V^T y], rows [n, D], float64."""
        sigma = _check.number("sigma", sigma, above=0, closed="[")
        return self._conditional_mean(self._rows("y", y, len(self.basis)) @ self.basis, sigma)

    def _rows(self, name: str, array: Any, width: int) -> np.ndarray:
        rows = np.asarray(array, np.float64)
        if rows.ndim != 2 or rows.shape[1] != width or not np.isfinite(rows).all():
            raise ValueError(f"{name} must be finite [n, {width}]; got shape {list(rows.shape)}.")
        return rows

    def _conditional_mean(self, u: np.ndarray, sigma: float) -> np.ndarray:
        noisy = self._spread + sigma**2 * np.eye(self.basis.shape[1])
        off = u[:, None] - self._codes  # [n, K, r]
        solved = np.linalg.solve(noisy[None], off[..., None])[..., 0]
        log_p = np.log(np.maximum(self.weights, 1e-300)) - 0.5 * (
            np.sum(off * solved, -1) + np.linalg.slogdet(noisy)[1]
        )
        p = special.softmax(log_p, axis=1)
        gain = self.covariances @ self.basis  # S_k V
        return np.einsum("nk,nkd->nd", p, self.means + np.einsum("kdr,nkr->nkd", gain, solved))

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Draws from the law: float32 [n, H, W, C]."""
        _check.key("key", key)
        x = self._target(key, _check.integer("num_samples", num_samples))
        return jnp.asarray(self.curve(x @ self.basis).reshape(-1, *self.image_shape), jnp.float32)

    def _target(self, key: jax.Array, n: int) -> np.ndarray:
        """Draws of the target, float64 [n, D]."""
        which, noise = jax.random.split(key)
        p = jnp.asarray(self.weights, jnp.float32)
        k = np.asarray(jax.random.choice(which, len(self.weights), (n,), p=p))
        z = np.asarray(jax.random.normal(noise, (n, self.means.shape[1])), np.float64)
        l, v = np.linalg.eigh(self.covariances)
        roots = v * np.sqrt(np.maximum(l, 0))[:, None]
        return self.means[k] + np.einsum("nij,nj->ni", roots[k], z)

    @functools.cached_property
    def _drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """20,000 draws of the target and their places on the surface, [n, D] each."""
        x = self._target(jax.random.key(0, impl="threefry2x32"), 20_000)
        return x, self.curve(x @ self.basis)

    @property
    def mean(self) -> np.ndarray:
        """The target's mean, which the surface keeps exactly: float64 [H, W, C]."""
        return (self.weights @ self.means).reshape(self.image_shape)

    @property
    def covariance(self) -> np.ndarray:
        """float64 [D, D], from 20,000 draws: the surface is curved."""
        on_surface = self._drawn[1]
        return np.cov(on_surface, rowvar=False).reshape(2 * (on_surface.shape[1],))

    @property
    def eigenvalues(self) -> np.ndarray:
        """Of the covariance, float64 [D], largest first."""
        return np.linalg.eigvalsh(self.covariance)[::-1]

    def check(self, samples: Any, *, alpha: float = 0.01) -> checks.LawCheck:
        """Do samples lie on the surface, and do their codes fall as the projected target?

        Args:
          samples: [n, H, W, C], n >= 20, model units.
          alpha: the chance that samples of the law itself fail.

        Returns:
          LawCheck. "on surface" is the rms distance to the surface at the sample's own code in
          units of the target's rms distance to it; at most 5 % is on it.
        """
        from scipy import stats  # takes a third of a second to import

        tests = checks.Rows(alpha)
        x, came, overflowed = checks.admit(samples, self.image_shape)
        checks.overflow(tests, overflowed, came)
        u = x @ self.basis
        rounding = 1e-5 * (1 + float(np.abs(x).max()))  # of float32 samples
        off = float(np.sqrt(np.mean(np.sum((x - self.curve(u)) ** 2, 1))))
        tests.fact(
            "on surface", off / max(self.residual, rounding), 0,
            off <= max(0.05 * self.residual, rounding),
            f"rms distance to E[x | code] over the target's own, {self.residual:.3g}",
        )  # fmt: skip

        def cdf(v: np.ndarray, direction: np.ndarray) -> np.ndarray:
            spread = np.sqrt(np.einsum("i,kij,j->k", direction, self._spread, direction))
            z = (v[:, None] - (self._codes @ direction)[None]) / spread[None]
            return special.ndtr(z) @ self.weights

        directions = _directions(u.shape[1])
        found = [stats.kstest(u @ a, functools.partial(cdf, direction=a)) for a in directions]
        distances, p_values = np.array(found).T
        i, p = checks.worst(p_values)
        tests.test(
            "codes", distances[i], checks.ks_mean(len(x)), p,
            f"Kolmogorov-Smirnov along the worst of {len(directions)} directions ({i})",
        )  # fmt: skip
        return tests.finish(f"regression surface of {self.about}", came, overflowed)

    @property
    def residual(self) -> float:
        """The target's own rms distance to the surface, from 20,000 draws."""
        x, on_surface = self._drawn
        return float(np.sqrt(np.mean(np.sum((x - on_surface) ** 2, 1))))


def _directions(r: int) -> np.ndarray:
    """The axes, then sums and differences of two: codes whose axes alone are right fail there."""
    axes = np.eye(r)
    first, second = np.triu_indices(r, 1)
    pairs = [axes[first] + axes[second], axes[first] - axes[second]]
    return np.concatenate([axes, *(pair[:_PAIRS] / np.sqrt(2) for pair in pairs)])
