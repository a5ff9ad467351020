"""The best polynomial denoiser of a given degree: it sees moments up to twice its degree.

    D(y, sigma_t) = sum_{|a| <= k} c_{t,a} h_a(u),   u = (y - mean) / scale_t,
    h_a(u) = prod_j He_{a_j}(u_j) / sqrt(a_j!)

Least squares of x on h(x + sigma z) over the weighted training set, the noise exactly: with u =
alpha_n + beta z, h_a = sum_c B_n[a, c] h_c(z), the h_c(z) are orthonormal, and E |x - A h|^2 =
sum_n w_n ( |x_n - A B_n[:, 0]|^2 + sum_{c != 0} |A B_n[:, c]|^2 ) is an ordinary least-squares
problem, solved by QR in float64. No Monte Carlo, no quadrature.

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

from jdiff import _check
from jdiff._exact import dot
from jdiff.denoisers import axes
from jdiff.denoisers.levels import by_level
from jdiff.denoisers.protocol import refuse_labels

MAX_FUNCTIONS = 2500
# Least ratio of R's diagonal entries. float64 QR errs by 2e-16 relative to the largest: beside an
# entry 1e-11 as large that is 2e-5, and below it fewer digits are right than float32 results show.
_SINGULAR = 1e-11
# Rows, in units of the basis, that wait before they are reduced to a triangle.
_WAITING = 8


class PolynomialDenoiser(flax.struct.PyTreeNode):
    """Polynomials of total degree <= k in all D values, one a level; made by `fit`.

    Attributes:
      sigmas: [T] decreasing, the levels it was fitted at.
      mean: [D], model units.
      deviation: [D], of the clean data.
      scale: [T, D], the deviation of each noisy value.
      coefficients: [T, m, D], in the order of `multi_indices(D, degree)`.
      degree: k.
      image_shape: (H, W, C).
    """

    sigmas: jax.Array
    mean: jax.Array
    deviation: jax.Array
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
        import scipy.linalg  # a tenth of a second that `import jdiff` need not take

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
        shifts = _shifts(d, degree)
        coefficients = []
        for t, sigma in enumerate(levels.astype(np.float64)):
            triangle = _mean_rows(flat, p, mean, variance, scale[t], degree)
            rows = _all_rows(triangle, shifts, sigma / scale[t], ridge)
            r, target = rows[:, :functions], rows[:, functions:]
            diagonal = np.abs(np.diag(r))
            ratio = diagonal.min() / diagonal.max()
            if not ratio >= _SINGULAR:  # so written, NaN of an overflowed basis is singular too
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
            jnp.asarray(np.sqrt(variance), jnp.float32),
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
        refuse_labels(self, labels)
        return by_level(self._apply, self.sigmas, y, sigma, self.image_shape)

    def _apply(self, level: jax.Array, y: jax.Array) -> jax.Array:
        u = (y.reshape(len(y), -1) - self.mean[None]) / self.scale[level][None]
        return dot(_basis(u, 1.0, self.degree, jnp), self.coefficients[level]).reshape(y.shape)


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


def _basis(alpha: Any, variance: Any, degree: int, xp: Any) -> Any:
    """E_z h_a(alpha + sqrt(1 - variance) z) of all a, [n, m]; at a variance of 1 h_a(alpha) itself.

    E_z He_n(alpha + beta z) = gamma^n He_n(alpha / gamma) where gamma^2 = 1 - beta^2 is the
    variance; divided by sqrt(n!):  sqrt(n) e_n = alpha e_{n-1} - gamma^2 sqrt(n-1) e_{n-2}.

    Args:
      alpha: [n, D].
      variance: gamma^2, [1, D] or a number.
      degree: k.
      xp: numpy or jax.numpy.
    """
    tables = [xp.ones_like(alpha), alpha]
    for n in range(2, degree + 1):
        last, before = tables[-1], tables[-2]
        tables.append((alpha * last - variance * math.sqrt(n - 1) * before) / math.sqrt(n))
    table = xp.concatenate(tables, axis=1)  # [n, (k + 1) D]
    factors = _factors(alpha.shape[1], degree)
    return functools.reduce(xp.multiply, (table[:, factor] for factor in factors))


def _mean_rows(
    flat: np.ndarray,
    p: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    scale: np.ndarray,
    degree: int,
) -> np.ndarray:
    """The triangle of the rows sqrt(w_n) [B_n[:, 0], x_n - mean], at most [m, m + D].

    A triangle is stacked with the next block of images: nothing grows with N.
    """
    m = math.comb(len(mean) + degree, degree)
    r = np.zeros((0, m + len(mean)))
    for x, q in axes.blocks(flat, p):
        b = _basis((x - mean) / scale, (variance / scale**2)[None], degree, np)
        rows = np.sqrt(q)[:, None] * np.concatenate([b, x - mean], axis=1)
        r = _triangle([r, rows], m)
    return r


def _shifts(d: int, degree: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For every c: c, the columns a >= c, and prod_j sqrt(C(a_j, c_j)) of each."""
    import scipy.special

    indices = multi_indices(d, degree)
    found = []
    for c in indices:
        on = np.flatnonzero(c)
        columns = np.flatnonzero(np.all(indices[:, on] >= c[on], axis=1))
        root = np.sqrt(np.prod(scipy.special.binom(indices[columns][:, on], c[on]), axis=1))
        found.append((c, columns, root))
    return found


def _all_rows(
    triangle: np.ndarray,
    shifts: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    beta: np.ndarray,
    ridge: float,
) -> np.ndarray:
    """The whole least-squares problem as one triangle [m, m + D], its target in the last D columns.

    He_a(alpha + beta z) = sum_c C(a, c) E_z[He_{a-c}(alpha + beta z)] beta^c He_c(z), so that

        B_n[a, c] = sqrt(C(a, c)) beta^c B_n[a - c, 0],

    and a - c runs through the first indices, in their order: the rows of every c are the leading
    part of the triangle for c = 0, scaled. They meet no x: noise that h passes on is error.
    """
    m = len(shifts)
    penalty = np.zeros((m - 1 if ridge else 0, triangle.shape[1]))
    np.fill_diagonal(penalty[:, 1:], np.sqrt(ridge))
    waiting, count = [penalty, triangle], len(triangle)
    for c, columns, root in shifts[1:]:
        size = len(columns)
        rows = np.zeros((min(size, len(triangle)), triangle.shape[1]))
        rows[:, columns] = triangle[:size, :size] * (root * np.prod(beta**c))
        waiting.append(rows)
        count += len(rows)
        if count > _WAITING * m:
            waiting, count = [_triangle(waiting, m)], m
    return _triangle(waiting, m)


def _triangle(parts: list[np.ndarray], m: int) -> np.ndarray:
    """The stacked rows of a least-squares problem of m unknowns in at most m rows, by QR.

    The rows after the m-th would hold the target's residual alone.
    """
    r: Any = np.linalg.qr(np.concatenate(parts), mode="r")
    return r[:m]
