"""The best polynomial denoiser of a given degree: it sees moments up to twice its degree.

    D(y, sigma_t) = sum_{|a| <= k} c_{t,a} h_a(u),   u = (y - mean) / scale_t,
    h_a(u) = prod_j He_{a_j}(u_j) / sqrt(a_j!)

Least squares of x on h(x + sigma z) over the weighted training set, the noise exactly: with u =
alpha_n + beta z, h_a = sum_c B_n[a, c] psi_c(z) in orthonormal Hermite polynomials psi_c, and
E |x - A h|^2 = sum_n w_n ( |x_n - A B_n[:, 0]|^2 + sum_{c != 0} |A B_n[:, c]|^2 ) is an ordinary
least-squares problem, solved by QR in float64. No Monte Carlo, no quadrature.

Reference: Levine and Weiss 2026, arXiv 2605.16415 (polynomial denoisers).
"""

import functools
import itertools
import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from jdiff import _check
from jdiff._exact import dot
from jdiff.denoisers import axes
from jdiff.denoisers.levels import by_level

MAX_FUNCTIONS = 2500
# A ratio of singular values below which float64 leaves a coefficient fewer than five digits.
_SINGULAR = 1e-11


class PolynomialDenoiser(flax.struct.PyTreeNode):
    """Polynomials of total degree <= k in all D values, one a level; made by `fit`.

    Attributes:
      sigmas: [T] decreasing, the levels it was fitted at.
      mean: [D], model units.
      scale: [T, D], the deviation of each noisy value.
      coefficients: [T, m, D], in the order of `multi_indices(D, degree)`.
      degree: k.
      image_shape: (H, W, C).
    """

    sigmas: jax.Array
    mean: jax.Array
    scale: jax.Array
    coefficients: jax.Array
    degree: int = flax.struct.field(pytree_node=False)
    image_shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)

    @classmethod
    def fit(
        cls, images: Any, degree: int, sigmas: Any, weights: Any = None, *, ridge: float = 0.0
    ) -> "PolynomialDenoiser":
        """Exact least squares at every level.

        Args:
          images: [N, H, W, C], uint8 or float in model units.
          degree: k >= 1.
          sigmas: the levels, decreasing; a closing 0 is left off.
          weights: [N] probabilities up to a factor, not negative; None weighs all alike.
          ridge: adds ridge |coefficient|^2 to the mean squared error, the constant left out.

        Raises:
          TypeError: on images of another dtype or a degree that is not whole.
          ValueError: on a wrong shape or range, NaN, bad weights or levels, more than 2,500 basis
            functions, or a level whose basis the data cannot tell apart (singular).

        Example:
          >>> import numpy as np
          >>> points = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
          >>> denoiser = PolynomialDenoiser.fit(points, 1, [1.0, 0.0])
          >>> round(float(denoiser(jnp.full((1, 1, 1, 1), 0.5), jnp.float32(1.0))[0, 0, 0, 0]), 4)
          0.25
        """
        images, p = axes.training_set(images, weights)
        degree = _check.integer("degree", degree)
        levels = _check.levels("sigmas", sigmas)
        ridge = _check.number("ridge", ridge, above=0, closed="[")
        flat = images.reshape(len(images), -1)
        d = flat.shape[1]
        functions = math.comb(d + degree, degree)
        if functions > MAX_FUNCTIONS:
            raise ValueError(
                f"degree {degree} in {d} values takes {functions:,} basis functions, more than "
                f"{MAX_FUNCTIONS:,}; RandomPolynomialDenoiser uses a bounded number of random ones."
            )
        mean = axes.mean(flat, p)
        variance = np.sum([q @ (x - mean) ** 2 for x, q in axes.blocks(flat, p)], axis=0)
        scale = np.sqrt(variance[None] + levels.astype(np.float64)[:, None] ** 2)
        indices = multi_indices(d, degree)
        coefficients = []
        for t, sigma in enumerate(levels.astype(np.float64)):
            r, target = _reduced(flat, p, mean, scale[t], sigma, indices, degree)
            if ridge:
                extra = np.sqrt(ridge) * np.eye(functions)[1:]
                r, target = _triangle(
                    np.concatenate([r, extra]),
                    np.concatenate([target, np.zeros((len(extra), d))]),
                )
            diagonal = np.abs(np.diag(r))
            ratio = diagonal.min() / diagonal.max() if len(r) == functions else 0.0
            if ratio < _SINGULAR:
                raise ValueError(
                    f"sigmas[{t}] = {sigma:.6g}: the {functions} basis functions of degree "
                    f"{degree} are singular on this data (ratio {ratio:.2g}); a ridge, for example "
                    "ridge=1e-10, bounds the coefficients at the price of a little bias."
                )
            solved = scipy.linalg.solve_triangular(r, target)
            solved[0] += mean
            coefficients.append(solved)
        return cls(
            jnp.asarray(levels),
            jnp.asarray(mean, jnp.float32),
            jnp.asarray(scale, jnp.float32),
            jnp.asarray(np.stack(coefficients), jnp.float32),
            degree,
            images.shape[1:],
        )

    def __call__(
        self, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """The polynomial of the level nearest to sigma.

        Args:
          y: noisy images [B, H, W, C], model units.
          sigma: one of `sigmas`, a scalar or [B] (then row by row).
          labels: must be None; the class has no conditional form.

        Returns:
          x_hat [B, H, W, C]; far outside the data it explodes, as polynomials do.

        Raises:
          ValueError: if labels are given or a shape is wrong.
        """
        if labels is not None:
            raise ValueError("labels must be None: PolynomialDenoiser has no classes.")
        return by_level(self._apply, self.sigmas, y, sigma, self.image_shape)

    def _apply(self, level: jax.Array, y: jax.Array) -> jax.Array:
        u = (y.reshape(len(y), -1) - self.mean[None]) / self.scale[level][None]
        # h_n = He_n / sqrt(n!):  sqrt(n) h_n = u h_{n-1} - sqrt(n-1) h_{n-2}
        tables = [jnp.ones_like(u), u]
        for n in range(2, self.degree + 1):
            tables.append((u * tables[-1] - math.sqrt(n - 1) * tables[-2]) / math.sqrt(n))
        table = jnp.concatenate(tables, axis=1)  # [B, (k + 1) D]
        h = functools.reduce(
            jnp.multiply, (table[:, factor] for factor in _factors(u.shape[1], self.degree))
        )
        return dot(h, self.coefficients[level]).reshape(y.shape)


def multi_indices(d: int, degree: int) -> np.ndarray:
    """All a with |a| <= degree, int [m, d], by total degree, the constant first.

    Example:
      >>> multi_indices(2, 2).tolist()
      [[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]]
    """
    found = []
    for total in range(degree + 1):
        for chosen in itertools.combinations_with_replacement(range(d), total):
            found.append(np.bincount(np.asarray(chosen, int), minlength=d))
    return np.array(found)


@functools.lru_cache(maxsize=32)
def _factors(d: int, degree: int) -> list[np.ndarray]:
    """Each basis function as a product of at most k entries of the table [(k + 1) d].

    Returns k index arrays [m]; entry 0 of the table is 1.
    """
    factors = np.zeros((degree, math.comb(d + degree, degree)), np.int32)
    for number, a in enumerate(multi_indices(d, degree)):
        for slot, j in enumerate(np.flatnonzero(a)):
            factors[slot, number] = a[j] * d + j
    return list(factors)


def _reduced(
    flat: np.ndarray,
    p: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    sigma: float,
    indices: np.ndarray,
    degree: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The whole least-squares problem as a triangle [m, m] and its target [m, D].

    For each c the N rows of B[:, c], which vanish but for a >= c, are reduced on their own; what
    is kept does not grow with N.
    """
    m, d = indices.shape
    beta = sigma / scale
    columns = [np.flatnonzero(np.all(indices >= c, axis=1)) for c in indices]
    kept: list[Any] = [np.zeros((0, len(chosen))) for chosen in columns]
    target = np.zeros((0, d))
    for x, q in axes.blocks(flat, p):
        root = np.sqrt(q)[:, None]
        tables = _expected((x - mean) / scale, np.sqrt(np.maximum(1 - beta**2, 0)), degree)
        for number, (c, chosen) in enumerate(zip(indices, columns, strict=True)):
            b = np.ones((len(x), len(chosen)))
            for j in np.flatnonzero(indices[chosen].any(0)):
                # He_a(alpha + beta z) = sum_c C(a, c) gamma^(a-c) He_{a-c}(alpha / gamma) beta^c
                # He_c(z): divided by sqrt(a!), with psi_c = He_c / sqrt(c!), sqrt(C(a, c)) beta^c
                # is left beside the normalised He_{a-c}.
                a = indices[chosen, j]
                binomial = np.array([math.comb(int(n), int(c[j])) for n in a], float)
                b *= tables[a - c[j], :, j].T * (np.sqrt(binomial) * beta[j] ** c[j])
            rows = np.concatenate([kept[number], root * b])
            if number == 0:  # c = 0: the part of h that the noise leaves, which alone meets x
                kept[0], target = _triangle(rows, np.concatenate([target, root * (x - mean)]))
            else:
                kept[number] = np.linalg.qr(rows, mode="r")
    whole = np.zeros((sum(map(len, kept)), m))
    start = 0
    for r, chosen in zip(kept, columns, strict=True):
        whole[start : start + len(r), chosen] = r
        start += len(r)
    return _triangle(whole, np.concatenate([target, np.zeros((len(whole) - len(target), d))]))


def _triangle(rows: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R and Q^T target of least-squares rows: the same problem in at most m rows."""
    q, r = np.linalg.qr(rows)
    return r, q.T @ target


def _expected(alpha: np.ndarray, gamma: np.ndarray, degree: int) -> np.ndarray:
    """E_z[He_n(alpha + beta z)] / sqrt(n!) = gamma^n He_n(alpha / gamma) / sqrt(n!), [k + 1, N, D].

    With gamma^2 = 1 - beta^2: sqrt(n) e_n = alpha e_{n-1} - gamma^2 sqrt(n-1) e_{n-2}.
    """
    tables = [np.ones_like(alpha), alpha]
    for n in range(2, degree + 1):
        tables.append(
            (alpha * tables[-1] - gamma**2 * math.sqrt(n - 1) * tables[-2]) / math.sqrt(n)
        )
    return np.stack(tables[: degree + 1])
