"""What a denoiser keeps and what it shrinks at one image: its Jacobian's largest eigenvalues.

    J = dD/dy,   S = (J + J^T) / 2,   S u_i = l_i u_i,   l_1 >= l_2 >= ..

The optimal denoiser's J is symmetric (sigma^2 J is a posterior covariance); that of a network need
not be. So S is analysed, and how far J is from it is told: |J u - J^T u|.
Products with J are Jacobian-vector products and those with J^T vector-Jacobian products, k at a
time; J itself is never made. Eigenpairs come from the space that products so far span (block
Lanczos with full reorthogonalisation: Golub & Van Loan 2013, Matrix computations, section 10.3),
which finds repeated eigenvalues too; it grows until S u = l u holds.
Use: Kadkhodaie et al. 2024, "Generalization in diffusion models arises from geometry-adaptive
harmonic representations" (the eigenvectors are the basis that the denoiser shrinks in).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check, _flops, parallel
from jdiff.metrics.denoising import MEASURE, as_argument, fitted_levels

MOST_PRODUCTS = 1000
START = 3  # folded into the measure's key; 0 to 2 are images and pixels


class JacobianEigen(NamedTuple):
    """The k largest eigenpairs of the symmetric part of a Jacobian, largest first.

    Attributes:
      values: float64 [k].
      vectors: float64 [k, H, W, C], orthonormal over all values of an image; their signs mean
        nothing.
      asymmetry: float64 [k], |J u - J^T u| / max(|J u|, |J^T u|) of each eigenvector: 0 for a
        symmetric J but for rounding, at most 2; 0 where both are 0.
      residuals: float64 [k], |S u - l u|: an eigenvalue of S lies as near to l.
      num_products: how many products with J (and with J^T) it took.
    """

    values: np.ndarray
    vectors: np.ndarray
    asymmetry: np.ndarray
    residuals: np.ndarray
    num_products: int


def jacobian_eigen(
    denoiser: Callable,
    y: Any,
    sigma: float,
    k: int,
    *,
    key: jax.Array,
    tolerance: float = 1e-4,
    max_products: int | None = None,
) -> JacobianEigen:
    """The k largest eigenvalues of (J + J^T)/2 at y, J = dD/dy, and their eigenvectors.

    Args:
      denoiser: (y, sigma) -> x_hat, differentiable by jax.linearize and jax.vjp.
      y: one noisy image [H, W, C], float, model units; D = H * W * C values.
      sigma: its noise level, model units.
      k: how many, from 1 to D. Eigenvalues repeated more than k times are found k times.
      key: of the starting vectors.
      tolerance: |S u - l u| to stop at, relative to the largest eigenvalue seen (in absolute
        value); products are float32, so that below 1e-6 it is not reached.
      max_products: most products with J, or None for D or 1,000, whichever is less.

    Returns:
      JacobianEigen.

    Raises:
      TypeError: on a denoiser that is not callable, a y that is not float or a key of another kind.
      ValueError: on a y of another shape, values that are not finite, a level that the denoiser was
        not fitted at, or a k out of range.
      RuntimeError: if the tolerance was not reached.

    Example:
      >>> gains = jnp.array([0.9, 0.1, 0.5]).reshape(1, 1, 1, 3)
      >>> found = jacobian_eigen(
      ...     lambda y, sigma: gains * y, np.zeros((1, 1, 3)), 1.0, 2, key=jax.random.key(0)
      ... )
      >>> found.values.round(3).tolist()
      [0.9, 0.5]
    """
    if not callable(denoiser):
        raise TypeError(
            f"denoiser must be a callable (y, sigma) -> x_hat; got {type(denoiser).__name__}."
        )
    y = np.asarray(y)
    if not np.issubdtype(y.dtype, np.floating):
        raise TypeError(f"y must be a noisy image, float in model units; got dtype {y.dtype}.")
    shape = getattr(denoiser, "image_shape", None)
    if y.ndim != 3 or y.size == 0 or (shape is not None and y.shape != tuple(shape)):
        wanted = "[height, width, channels]" if shape is None else f"of shape {tuple(shape)}"
        raise ValueError(f"y must be one image {wanted}; got shape {y.shape}.")
    y = y.astype(np.float32)
    if not np.all(np.isfinite(y)):
        raise ValueError(
            f"y must be finite; got {int(np.sum(~np.isfinite(y)))} values that are not."
        )
    level = fitted_levels(denoiser, [_check.number("sigma", sigma, above=0)])[0]
    dim = y.size
    k = _check.integer("k", k, maximum=dim)
    tolerance = _check.number("tolerance", tolerance, above=0)
    if max_products is None:
        max_products = min(dim, MOST_PRODUCTS)
    max_products = _check.integer("max_products", max_products, minimum=k)
    key = jax.random.fold_in(jax.random.fold_in(_check.key("key", key), MEASURE), START)
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), jnp.uint32)))

    tree = as_argument(denoiser)
    program = _compiled(_flops.denoiser_has_convolution(tree, y.shape))

    def products(block: np.ndarray) -> list[np.ndarray]:
        """J v and J^T v of the columns v of a block [D, m], m <= k, float64."""
        rows = np.pad(block.T, ((0, k - block.shape[1]), (0, 0))).astype(np.float32)  # one shape
        found = program(tree, y, level, rows.reshape(k, *y.shape))
        found = [np.asarray(a, np.float64).reshape(k, dim).T[:, : block.shape[1]] for a in found]
        if not all(np.all(np.isfinite(a)) for a in found):
            raise ValueError("denoiser must have finite derivatives at y; it has not.")
        return found

    forward = backward = basis = np.zeros((dim, 0))
    block = rng.standard_normal((dim, k))
    while True:
        block = _orthonormal(block, basis, rng)
        pushed, pulled = products(block)
        basis, forward, backward = (
            np.hstack(pair) for pair in ((basis, block), (forward, pushed), (backward, pulled))
        )
        mapped = (forward + backward) / 2  # S basis
        small = basis.T @ mapped
        values, inner = np.linalg.eigh((small + small.T) / 2)
        scale = np.abs(values).max()
        values, inner = values[::-1][:k], inner[:, ::-1][:, :k]
        vectors = basis @ inner
        residuals = np.linalg.norm(mapped @ inner - vectors * values, axis=0)
        count = basis.shape[1]
        if np.all(residuals <= tolerance * scale) or count == dim:
            break
        if count + min(k, dim - count) > max_products:
            raise RuntimeError(
                f"after {count} products |S u - l u| is {residuals.max():.2g}, not "
                f"{tolerance * scale:.2g}: raise max_products (now {max_products}) or tolerance."
            )
        block = (pushed + pulled) / 2
    along, against = forward @ inner, backward @ inner  # J u and J^T u
    size = np.maximum(np.linalg.norm(along, axis=0), np.linalg.norm(against, axis=0))
    difference = np.linalg.norm(along - against, axis=0)
    asymmetry = np.divide(difference, size, out=np.zeros(k), where=size > 0)
    return JacobianEigen(values, vectors.T.reshape(k, *y.shape), asymmetry, residuals, count)


@functools.lru_cache(maxsize=2)
def _compiled(convolutions: bool) -> Callable:
    options = parallel.compiler_options(convolutions)
    return jax.jit(_products, compiler_options=options or None)


def _products(
    denoiser: Any, y: jax.Array, sigma: jax.Array, vectors: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """J v and J^T v of each of the vectors [k, H, W, C], at one image."""

    def function(y: jax.Array) -> jax.Array:
        x_hat = denoiser(y[None], sigma)[0]
        chex.assert_equal_shape([x_hat, y])
        return x_hat

    _, push = jax.linearize(function, y)
    _, pull = jax.vjp(function, y)
    return jax.vmap(push)(vectors), jax.vmap(lambda v: pull(v)[0])(vectors)


def _orthonormal(block: np.ndarray, basis: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Columns [D, m] of length 1, at right angles to the basis [D, b] and to each other.

    m is the block's number of columns, or what the space has left. A column that lies in the span
    of those before it is replaced by a random one: where S is 0, or has found all it maps to.
    """
    dim, known = basis.shape
    columns = np.hstack([basis, np.zeros((dim, min(block.shape[1], dim - known)))])
    for i in range(known, columns.shape[1]):
        before, column = columns[:, :i], block[:, i - known]
        while True:
            size = np.linalg.norm(column)
            column = column / size if size > 0 else column
            column = column - before @ (before.T @ column)
            if np.linalg.norm(column) > 1e-6:  # else what is left is rounding
                break
            column = rng.standard_normal(dim)
        # Once more: the first pass leaves 1e-16 / 1e-6 of what it took away.
        column = column / np.linalg.norm(column)
        column = column - before @ (before.T @ column)
        columns[:, i] = column / np.linalg.norm(column)
    return columns[:, known:]
