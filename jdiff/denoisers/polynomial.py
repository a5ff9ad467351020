"""The best polynomial denoiser of a given degree: it sees moments up to twice its degree.

    D(y, sigma_t) = sum_{|a| <= k} c_{t,a} h_a(u),   u = (y - mean) / scale_t,
    h_a(u) = prod_j He_{a_j}(u_j) / sqrt(a_j!)

Least squares of x on h(x + sigma z) over the weighted training set, the noise exactly: with u =
alpha_n + beta z, h_a = sum_c B_n[a, c] h_c(z), the h_c(z) are orthonormal, and E |x - A h|^2 =
sum_n w_n ( |x_n - A B_n[:, 0]|^2 + sum_{c != 0} |A B_n[:, c]|^2 ) is an ordinary least-squares
problem, solved by QR in float64. No Monte Carlo, no quadrature. The images are met once for all
levels: B_n[a, 0] = gamma_t^a h_a((x_n - mean) / deviation), gamma_t = deviation / scale_t, is one
matrix with its columns scaled. Degree 1 is a regression along the principal axes.

Reference: Levine and Weiss 2026, arXiv 2605.16415 (polynomial denoisers).
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from jdiff import _check
from jdiff._exact import dot
from jdiff.denoisers import axes
from jdiff.denoisers.levels import by_level
from jdiff.denoisers.protocol import refuse_labels

MAX_FUNCTIONS = 2500
# Least ratio of R's diagonal entries. float64 QR errs by 2e-16 relative to the largest: beside an
# entry 1e-11 as large that is 2e-5, and below it fewer digits are right than float32 results show.
_SINGULAR = 1e-11
# Largest rounding of float32 sums over the basis, in units of the data's deviation.
_LOST = 0.05
# Least sigma^2, in units of the largest eigenvalue, at which degree 1 goes along the axes of the
# covariance: its float64 eigenvalues err by 2e-16 of the largest, so the gains by 2e-7, float32.
_RESOLVED = 1e-9
# Rows, in units of the basis, that wait before they are reduced to a triangle.
_WAITING = 8
# Seconds after which a fit shows a bar.
_QUIET = 3

_Solve = Callable[[int, float, np.ndarray], np.ndarray]


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
            functions, a level whose basis the data cannot tell apart (singular) or whose terms
            cancel beyond float32, or a basis that overflows.

        Example:
          >>> import numpy as np
          >>> points = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
          >>> denoiser = PolynomialDenoiser.fit(points, 1, [1.0, 0.0])
          >>> round(float(denoiser(jnp.full((1, 1, 1, 1), 0.5), jnp.float32(1.0))[0, 0, 0, 0]), 4)
          0.25
        """
        from threadpoolctl import threadpool_limits  # scikit-learn's own dependency

        images, p = axes.training_set(images, weights)
        degree = _check.integer("degree", degree)
        levels = _check.levels("sigmas", sigmas)
        ridge = _check.number("ridge", ridge, above=0, closed="[")
        flat = images.reshape(len(images), -1)
        d = flat.shape[1]
        functions = math.comb(d + degree, degree)
        if functions > MAX_FUNCTIONS:
            count = f"{functions:,}" if functions < 1e12 else f"10^{math.log10(functions):.0f}"
            raise ValueError(
                f"degree {degree} in {d} values takes {count} basis functions, more than "
                f"{MAX_FUNCTIONS:,}; RandomPolynomialDenoiser uses a bounded number of random ones."
            )
        mean = axes.mean(flat, p)
        variance = np.sum([q @ (x - mean) ** 2 for x, q in axes.blocks(flat, p)], axis=0)
        scale = np.sqrt(variance[None] + levels.astype(np.float64)[:, None] ** 2)
        coefficients = np.empty((len(levels), functions, d), np.float32)
        # One thread: QR gains little by several, and where cores are shared they wait for each
        # other (degree 1 of 784 values: 1 s, and 15 with two; degree 2 of 64, a level: 4 and 30).
        with threadpool_limits(1, "blas"):
            solve = _by_axes(flat, p, variance, levels, ridge) if degree == 1 else None
            solve = solve or _by_rows(flat, p, mean, np.sqrt(variance), degree, ridge)
            # The smallest level first: it is the one that may be singular.
            for t in _bar(range(len(levels))[::-1], "PolynomialDenoiser.fit: levels"):
                coefficients[t] = solve(t, float(levels[t]), scale[t])
        coefficients[:, 0] += mean.astype(np.float32)
        return cls(
            jnp.asarray(levels),
            jnp.asarray(mean, jnp.float32),
            jnp.asarray(np.sqrt(variance), jnp.float32),
            jnp.asarray(scale, jnp.float32),
            jnp.asarray(coefficients),
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
        return dot(_basis(u, self.degree, jnp), self.coefficients[level]).reshape(y.shape)


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
    """Each basis function as a product of min(k, d) entries of the table [(k + 1) d].

    Returns as many index arrays [m]; entry 0 of the table is 1.
    """
    factors = np.zeros((min(degree, d), math.comb(d + degree, degree)), np.int32)
    for number, a in enumerate(multi_indices(d, degree)):
        for slot, j in enumerate(np.flatnonzero(a)):
            factors[slot, number] = a[j] * d + j
    return list(factors)


def _basis(u: Any, degree: int, xp: Any) -> Any:
    """h_a(u) of all a, [n, m], by sqrt(n) h_n = u h_{n-1} - sqrt(n-1) h_{n-2}.

    Args:
      u: [n, D].
      degree: k.
      xp: numpy or jax.numpy.
    """
    tables = [xp.ones_like(u), u]
    for n in range(2, degree + 1):
        tables.append((u * tables[-1] - math.sqrt(n - 1) * tables[-2]) / math.sqrt(n))
    table = xp.concatenate(tables, axis=1)  # [n, (k + 1) D]
    return functools.reduce(xp.multiply, (table[:, f] for f in _factors(u.shape[1], degree)))


def _by_axes(
    flat: np.ndarray, p: np.ndarray, variance: np.ndarray, levels: np.ndarray, ridge: float
) -> _Solve | None:
    """Degree 1: (level, sigma, scale [D]) -> A^T [1 + D, D], the constants 0.

        A^T = diag(scale) (C + ridge diag(variance) + (1 + ridge) sigma^2 I)^-1 C

    with the covariance C of x: in the axes of the first two terms only gains depend on the level.
    None if the smallest level is beyond float64 eigenvalues.
    """
    _, l, v = axes.principal_axes(flat, p)
    if not float(levels[-1]) ** 2 >= _RESOLVED * l[0]:
        return None
    projected = (v * l).T  # V^T C
    if ridge:
        covariance = v @ projected
        l, v = np.linalg.eigh(covariance + ridge * np.diag(variance))
        projected = v.T @ covariance

    def solve(t: int, sigma: float, scale: np.ndarray) -> np.ndarray:
        slopes = (v / (l + (1 + ridge) * sigma**2)) @ projected
        return np.concatenate([np.zeros((1, len(scale))), scale[:, None] * slopes])

    return solve


def _by_rows(
    flat: np.ndarray,
    p: np.ndarray,
    mean: np.ndarray,
    deviation: np.ndarray,
    degree: int,
    ridge: float,
) -> _Solve:
    """Any degree: (level, sigma, scale [D]) -> A^T [m, D] for the target x - mean."""
    import scipy.linalg  # a tenth of a second that `import jdiff` need not take

    d = len(mean)
    shifts = _shifts(d, degree)
    if not all(np.isfinite(root).all() for _, _, root in shifts):
        raise ValueError(
            f"degree {degree} is too high: its binomial coefficients overflow float64."
        )
    triangle = _mean_rows(flat, p, mean, deviation, degree)
    powers = multi_indices(d, degree)

    def solve(t: int, sigma: float, scale: np.ndarray) -> np.ndarray:
        gammas = np.prod((deviation / scale) ** powers, axis=1)
        with np.errstate(over="ignore", invalid="ignore"):  # found below
            scaled = triangle * np.append(gammas, np.ones(d))
            rows = _all_rows(scaled, shifts, sigma / scale, ridge)
        r, target = rows[:, : len(powers)], rows[:, len(powers) :]
        diagonal = np.abs(np.diag(r))
        ratio = diagonal.min() / diagonal.max()
        if not ratio >= _SINGULAR:  # so written, NaN of an overflowed basis is singular too
            raise ValueError(
                f"sigmas[{t}] = {sigma:.6g}: the {len(powers)} basis functions of degree {degree} "
                f"are singular on this data (ratio {ratio:.2g}); a ridge, for example ridge=1e-10, "
                "bounds the coefficients at the price of a little bias."
            )
        solved = scipy.linalg.solve_triangular(r, target)
        # Terms c_a h_a may cancel; E h_a^2 is the square of R's column a.
        terms = np.linalg.norm(np.linalg.norm(r, axis=0)[:, None] * solved)
        lost, spread = np.finfo(np.float32).eps * terms, np.linalg.norm(deviation)
        if not lost <= _LOST * spread:
            raise ValueError(
                f"sigmas[{t}] = {sigma:.6g}: terms of degree {degree} cancel, so that float32 sums "
                f"err by {lost / np.sqrt(d):.1g} where the data deviates by "
                f"{spread / np.sqrt(d):.1g}; a lower degree or a ridge, for example ridge=1e-8, "
                "bounds them."
            )
        return solved

    return solve


def _mean_rows(
    flat: np.ndarray, p: np.ndarray, mean: np.ndarray, deviation: np.ndarray, degree: int
) -> np.ndarray:
    """The triangle of the rows sqrt(w_n) [h(v_n), x_n - mean], at most [m, m + D].

    v = (x - mean) / deviation, and 0 where nothing deviates. A triangle is stacked with the next
    block of images: nothing grows with N.

    Raises:
      ValueError: if the basis overflows on the images.
    """
    m = math.comb(len(mean) + degree, degree)
    r = np.zeros((0, m + len(mean)))
    with np.errstate(over="ignore", invalid="ignore"):
        for x, q in axes.blocks(flat, p):
            v = (x - mean) / np.where(deviation > 0, deviation, np.inf)
            rows = np.concatenate([_basis(v, degree, np), x - mean], axis=1)
            r = _triangle([r, np.sqrt(q)[:, None] * rows], m)
    if not np.isfinite(r).all():
        raise ValueError(
            f"degree {degree} is too high for this data: its functions overflow float64 on images "
            "far from the mean. A lower degree or fewer outliers keep them finite."
        )
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

    He_a(alpha + beta z) = sum_c C(a, c) E_z[He_{a-c}(alpha + beta z)] beta^c He_c(z), the mean
    being gamma^{a-c} He_{a-c}(alpha / gamma) where gamma^2 = 1 - beta^2, so that

        B_n[a, c] = sqrt(C(a, c)) beta^c B_n[a - c, 0],

    and a - c runs through the first indices, in their order: the rows of every c are the leading
    part of the triangle for c = 0, scaled. They meet no x: noise that h passes on is error.
    """
    m = len(shifts)
    penalty = np.zeros((m - 1 if ridge else 0, triangle.shape[1]))
    np.fill_diagonal(penalty[:, 1:], np.sqrt(ridge))
    waiting, count = [penalty, triangle], len(triangle)
    for c, columns, root in _bar(shifts[1:], f"one level of {m} functions"):
        size = len(columns)
        rows = np.zeros((min(size, len(triangle)), triangle.shape[1]))
        rows[:, columns] = triangle[:size, :size] * (root * np.prod(beta**c))
        waiting.append(rows)
        count += len(rows)
        if count > _WAITING * m:
            waiting, count = [_triangle(waiting, m)], m
    return _triangle(waiting, m)


def _bar(steps: Sequence, name: str) -> tqdm:
    """Steps that show a bar where they take more than some seconds."""
    return tqdm(steps, name, leave=False, delay=_QUIET)


def _triangle(parts: list[np.ndarray], m: int) -> np.ndarray:
    """The stacked rows of a least-squares problem of m unknowns in at most m rows, by QR.

    The rows after the m-th would hold the target's residual alone.
    """
    r: Any = np.linalg.qr(np.concatenate(parts), mode="r")
    return r[:m]
