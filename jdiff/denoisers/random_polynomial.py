"""Random polynomial features, the construction for images: bounded work at any degree.

    D(y, sigma_t) = A_t h(y) + c_t,   h(y) = ( R y / |R y|_inf )^k  elementwise

R is a fixed Gaussian matrix with m rows, scaled by 1 / sqrt(D); A_t and c_t are least squares of x
on h(x + sigma_t z) with a ridge. Because of the division h has degree 0 in y: D(s y) = D(y) for
s > 0, and D(-y) = D(y) for even k. It is not a polynomial, and no law of polynomials holds for it.

Reference: Levine and Weiss 2026, arXiv 2605.16415 (polynomial denoisers of images).
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check, _pixels
from jdiff._exact import dot
from jdiff.denoisers import axes, ridge_sums
from jdiff.denoisers.levels import by_level
from jdiff.denoisers.protocol import refuse_labels

# Folded into the key of a fit, as training and sampling fold theirs in: without it the noise of
# image 0 at the first level would be the noise that samples start from under the same key.
FIT = 2

# Rows of noisy images that are multiplied at a time; memory does not grow with their number.
_BLOCK = 2048


class RandomPolynomialDenoiser(flax.struct.PyTreeNode):
    """Affine regression on m random features, one a level; made by `fit`.

    Attributes:
      sigmas: [T] decreasing, the levels it was fitted at.
      projection: R, [m, D].
      coefficients: [T, m, D].
      offset: [T, D].
      degree: k.
      image_shape: (H, W, C).
    """

    sigmas: jax.Array
    projection: jax.Array
    coefficients: jax.Array
    offset: jax.Array
    degree: int = flax.struct.field(pytree_node=False)
    image_shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)

    @classmethod
    def fit(
        cls,
        images: Any,
        degree: int,
        sigmas: Any,
        key: jax.Array,
        num_features: int = 1024,
        weights: Any = None,
        *,
        num_draws: int | None = None,
        ridge: float = 1e-4,
    ) -> "RandomPolynomialDenoiser":
        """Least squares from noisy draws, streamed in blocks.

        Args:
          images: [N, H, W, C], uint8 or float in model units.
          degree: k >= 1.
          sigmas: the levels, decreasing; a closing 0 is left off.
          key: a typed threefry key, of R and of the noise.
          num_features: m.
          weights: [N] probabilities up to a factor, not negative; None weighs all alike.
          num_draws: noise draws an image and level; default so many that N num_draws >= 32 m, with
            N = 1 / sum of squared probabilities, the effective number of images.
          ridge: in units of the mean diagonal of Cov(h, h). On digits (m = 256, 18 levels, five
            keys) the samples' deviation, 0.75 in the data, is 0.7 at degree 3 with 1e-4; at degrees
            5 and 7 it is 0.8 to 1.1 and 1.1 to 1.6, and with 1e-3 0.7 to 0.9 at all three.

        Raises:
          TypeError: on images of another dtype, numbers that are not whole, or another key.
          ValueError: on a wrong shape or range, NaN, bad weights or levels, or a level at which
            the features' covariance is singular.

        Example:
          >>> import numpy as np
          >>> images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)
          >>> key = jax.random.key(0)
          >>> denoiser = RandomPolynomialDenoiser.fit(images, 3, [1.0, 0.1, 0.0], key, 8)
          >>> denoiser(jnp.ones((2, 4, 4, 1)), jnp.float32(0.1)).shape
          (2, 4, 4, 1)
        """
        images, p = axes.training_set(images, weights)
        degree = _check.integer("degree", degree)
        levels = _check.levels("sigmas", sigmas)
        key = jax.random.fold_in(_check.key("key", key), FIT)
        m = _check.integer("num_features", num_features)
        ridge = _check.number("ridge", ridge, above=0, closed="[")
        n, d = len(images), int(np.prod(images.shape[1:]))
        if num_draws is None:
            num_draws = default_draws(m, p)
        num_draws = _check.integer("num_draws", num_draws)
        projection = draw_projection(jax.random.fold_in(key, 0), m, d)
        solved = []
        for t, sigma in enumerate(levels):
            sums = ridge_sums.Sums()
            noise_key = jax.random.fold_in(key, t + 1)
            for block in blocks(images.reshape(n, d), p, num_draws, _BLOCK):
                sums.add(_block_sums(projection, *block, noise_key, sigma, degree))
            solved.append(ridge_sums.solve(sums.parts, ridge, f"sigmas[{t}] = {sigma:.6g}"))
        coefficients, offset = (np.stack(part) for part in zip(*solved, strict=True))
        return cls(
            jnp.asarray(levels),
            projection,
            jnp.asarray(coefficients, jnp.float32),
            jnp.asarray(offset, jnp.float32),
            degree,
            images.shape[1:],
        )

    def __call__(
        self, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """The regression of the level nearest to sigma.

        Args:
          y: noisy images [B, H, W, C], model units; an image of zeros gives the offset.
          sigma: one of `sigmas`, a scalar or [B] (then row by row).
          labels: must be None; the class has no conditional form.

        Returns:
          x_hat [B, H, W, C].

        Raises:
          ValueError: if labels are given or a shape is wrong.
        """
        refuse_labels(self, labels)
        return by_level(self._apply, self.sigmas, y, sigma, self.image_shape)

    def _apply(self, level: jax.Array, y: jax.Array) -> jax.Array:
        h = features(self.projection, y.reshape(len(y), -1), self.degree)
        return (dot(h, self.coefficients[level]) + self.offset[level][None]).reshape(y.shape)


def default_draws(m: int, p: np.ndarray) -> int:
    """Noise draws an image that give 32 draws a feature, by the effective number of images."""
    return max(1, math.ceil(32 * m * float(np.sum(p**2)) - 1e-9))


def draw_projection(key: jax.Array, m: int, d: int) -> jax.Array:
    """R, [m, d] standard normals over sqrt(d)."""
    return jax.random.normal(key, (m, d), jnp.float32) / np.float32(np.sqrt(d))


def features(projection: jax.Array, y: jax.Array, degree: int) -> jax.Array:
    """h(y) = (R y / |R y|_inf)^degree of rows [B, d]: [B, m]; 0 where R y is 0."""
    r = dot(y, projection.T)
    # Not jnp.max: its derivative divides by how many are equal to it, and a compiler that computes
    # r again, rounded otherwise, may find none.
    place = jnp.argmax(jnp.abs(r), axis=-1, keepdims=True)
    largest = jnp.abs(jnp.take_along_axis(r, place, axis=-1))
    return (r / jnp.where(largest > 0, largest, 1)) ** degree


def noise_of(key: jax.Array, draws: jax.Array, numbers: jax.Array, d: int) -> jax.Array:
    """The noise of a draw of an image, [B, d]: it does not depend on the block."""

    def one(draw: jax.Array, number: jax.Array) -> jax.Array:
        own = jax.random.fold_in(jax.random.fold_in(key, draw), number)
        return jax.random.normal(own, (d,), jnp.float32)

    return jax.vmap(one)(draws, numbers)


def blocks(
    flat: np.ndarray, p: np.ndarray, num_draws: int, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """(images, weights, draws, numbers) of all draws of all images, in blocks of one size.

    The last block is padded with weight 0; images of weight 0 are left out.
    """
    kept = np.flatnonzero(p)
    n = len(kept)
    total = n * num_draws
    size = min(size, total)
    for start in range(0, total, size):
        places = np.arange(start, start + size)
        draws, which = np.divmod(places, n)
        numbers = kept[which]
        weights = np.where(places < total, p[numbers], 0) * n
        as_int = lambda a: a.astype(np.int32)
        yield flat[numbers], weights.astype(np.float32), as_int(draws), as_int(numbers)


@functools.partial(jax.jit, static_argnames="degree")
def _block_sums(
    projection: jax.Array,
    rows: jax.Array,
    weights: jax.Array,
    draws: jax.Array,
    numbers: jax.Array,
    key: jax.Array,
    sigma: jax.Array,
    degree: int,
) -> tuple[jax.Array, ...]:
    """One block's part of the sums; sigma is traced, so that all levels share a compilation."""
    x = _pixels.to_model(rows)
    y = x + sigma * noise_of(key, draws, numbers, x.shape[1])
    h = features(projection, y, degree)
    weighted = h * weights[:, None]
    sums = dot(weighted.T, h), dot(weighted.T, x), weighted.sum(0)
    return (*sums, dot(weights[None], x)[0], weights.sum())
