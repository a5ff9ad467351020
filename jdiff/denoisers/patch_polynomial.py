"""Random polynomial features of a window: the paper's local construction, one window a level.

    D(y, sigma_t)_p = A_{t,p} h_t(y_window(p)) + c_{t,p},   h_t(v) = ( R_t v / |R_t v|_inf )^k

The same regression as `RandomPolynomialDenoiser`, for every pixel from its own window of y, cut off
at the border (what is outside counts as 0). The window and the number of features shrink as sigma
falls: far from the data an image is judged as a whole, close to it pixel by pixel.

Reference: Levine and Weiss 2026, arXiv 2605.16415 (polynomial denoisers of images).
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check, _pixels
from jdiff._exact import dot, einsum
from jdiff.denoisers import axes, ridge_sums
from jdiff.denoisers.levels import by_level
from jdiff.denoisers.protocol import refuse_labels
from jdiff.denoisers.random_polynomial import (
    FIT,
    blocks,
    default_draws,
    draw_projection,
    features,
    noise_of,
)

# The published windows for 64-pixel images at ten levels (None: all 64). Of the features only the
# ends, 1024 and 8, are published: between them they are taken geometrically.
PAPER_PATCH_SIZES = (None, 55, 45, 35, 27, 21, 15, 11, 7, 3)
PAPER_NUM_FEATURES = (1024, 597, 348, 203, 118, 69, 40, 24, 14, 8)

# Numbers that a block of windows, features or Gram matrices may hold: 64 MB of float32.
_ROOM = 2**24


class PatchPolynomialDenoiser(flax.struct.PyTreeNode):
    """Affine regression on m_t random features of a window of k_t pixels; made by `fit`.

    Attributes:
      sigmas: [T] decreasing, the levels it was fitted at.
      projections: T arrays [m_t, k_t^2 C], or [m_t, D] for the whole image.
      coefficients: T arrays [H * W, m_t, C], or [m_t, D] for the whole image.
      offsets: T arrays [D].
      degree: k.
      patch_sizes: T odd numbers, None for the whole image.
      image_shape: (H, W, C).
    """

    sigmas: jax.Array
    projections: tuple[jax.Array, ...]
    coefficients: tuple[jax.Array, ...]
    offsets: tuple[jax.Array, ...]
    degree: int = flax.struct.field(pytree_node=False)
    patch_sizes: tuple[int | None, ...] = flax.struct.field(pytree_node=False)
    image_shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)

    @classmethod
    def fit(
        cls,
        images: Any,
        degree: int,
        sigmas: Any,
        patch_sizes: Sequence[int | None],
        key: jax.Array,
        num_features: int | Sequence[int] = 64,
        weights: Any = None,
        *,
        num_draws: int | None = None,
        ridge: float = 1e-4,
    ) -> "PatchPolynomialDenoiser":
        """Least squares from noisy draws, streamed in blocks of images and of pixels.

        Args:
          images: [N, H, W, C], uint8 or float in model units.
          degree: k >= 1.
          sigmas: the levels, decreasing; a closing 0 is left off.
          patch_sizes: a window for every level, odd and at most 2 max(H, W) - 1, or None for the
            whole image.
          key: a typed threefry key, of the projections and of the noise.
          num_features: m, for all levels or for each.
          weights: [N] probabilities up to a factor, not negative; None weighs all alike.
          num_draws: noise draws an image and level; default so many that N num_draws >= 32 m, with
            N = 1 / sum of squared probabilities, the effective number of images.
          ridge: in units of the mean diagonal of Cov(h, h).

        Raises:
          TypeError: on images of another dtype, numbers that are not whole, or another key.
          ValueError: on a wrong shape or range, NaN, bad weights or levels, a number of windows or
            features that is not that of the levels, an even or too large window, or a level at
            which the features' covariance is singular.

        Example:
          >>> import numpy as np
          >>> images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)
          >>> denoiser = PatchPolynomialDenoiser.fit(
          ...     images, 3, [1.0, 0.1, 0.0], (None, 3), jax.random.key(0), (8, 4)
          ... )
          >>> denoiser(jnp.ones((2, 4, 4, 1)), jnp.float32(0.1)).shape
          (2, 4, 4, 1)
        """
        images, p = axes.training_set(images, weights)
        degree = _check.integer("degree", degree)
        levels = _check.levels("sigmas", sigmas)
        key = jax.random.fold_in(_check.key("key", key), FIT)
        ridge = _check.number("ridge", ridge, above=0, closed="[")
        shape = images.shape[1:]
        sides = _per_level("patch_sizes", patch_sizes, len(levels))
        most = 2 * max(shape[:2]) - 1
        for t, side in enumerate(sides):
            if side is not None:
                _check.odd(f"patch_sizes[{t}]", side, most, ", or None for the whole image")
        if isinstance(num_features, Sequence):
            counts = _per_level("num_features", num_features, len(levels))
        else:
            counts = (num_features,) * len(levels)
        counts = tuple(_check.integer(f"num_features[{t}]", m) for t, m in enumerate(counts))
        if num_draws is not None:
            _check.integer("num_draws", num_draws)
        flat = images.reshape(len(images), -1)
        fitted = []
        for t, (sigma, side, m) in enumerate(zip(levels, sides, counts, strict=True)):
            draws = default_draws(m, p) if num_draws is None else num_draws
            size = flat.shape[1] if side is None else side * side * shape[2]
            projection = draw_projection(jax.random.fold_in(key, 0), m, size)
            noise_key = jax.random.fold_in(key, t + 1)
            solved = _fit_level(
                projection, flat, p, draws, noise_key, sigma, degree, side, shape, ridge,
                f"sigmas[{t}] = {sigma:.6g}",
            )  # fmt: skip
            fitted.append((projection, *solved))
        projections, coefficients, offsets = zip(*fitted, strict=True)
        as_arrays = lambda parts: tuple(jnp.asarray(part, jnp.float32) for part in parts)
        return cls(
            jnp.asarray(levels),
            as_arrays(projections),
            as_arrays(coefficients),
            as_arrays(offsets),
            degree,
            sides,
            shape,
        )

    def __call__(
        self, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """The regressions of the level nearest to sigma.

        Args:
          y: noisy images [B, H, W, C], model units.
          sigma: one of `sigmas`, a scalar or [B] (then row by row).
          labels: must be None; the class has no conditional form.

        Returns:
          x_hat [B, H, W, C].

        Raises:
          ValueError: if labels are given or a shape is wrong.
        """
        refuse_labels(self, labels)
        branches = [functools.partial(self._apply, t) for t in range(len(self.patch_sizes))]
        at_level = lambda level, rows: jax.lax.switch(level, branches, rows)
        return by_level(at_level, self.sigmas, y, sigma, self.image_shape)

    def _apply(self, t: int, y: jax.Array) -> jax.Array:
        flat, side = y.reshape(len(y), -1), self.patch_sizes[t]
        projection, a = self.projections[t], self.coefficients[t]
        if side is None:
            x_hat = dot(features(projection, flat, self.degree), a)
        else:
            pixels = np.arange(a.shape[0])

            def one(row: jax.Array) -> jax.Array:
                seen = windows(row.reshape(self.image_shape), pixels, side)
                return einsum("pm,pmc->pc", features(projection, seen, self.degree), a).reshape(-1)

            # A few images at a time: [B, H * W, m] is never held.
            size = len(pixels) * max(projection.shape)
            x_hat = jax.lax.map(one, flat, batch_size=max(1, min(len(y), _ROOM // (4 * size))))
        return (x_hat + self.offsets[t][None]).reshape(y.shape)


def windows(image: jax.Array, pixels: jax.Array | np.ndarray, side: int) -> jax.Array:
    """The windows of an image [H, W, C] around some pixels, 0 outside: [P, side * side * C].

    Cut out of a padded image: a table of their places would be a constant of the compiled
    program, hundreds of megabytes for large windows.

    Args:
      image: [H, W, C].
      pixels: i * W + j of each, [P].
      side: odd.
    """
    _, width, channels = image.shape
    padded = jnp.pad(image, ((side // 2, side // 2), (side // 2, side // 2), (0, 0)))
    pixels = jnp.asarray(pixels, jnp.int32)
    corners = jnp.stack([pixels // width, pixels % width, jnp.zeros_like(pixels)], axis=1)
    cut = lambda corner: jax.lax.dynamic_slice(padded, corner, (side, side, channels)).reshape(-1)
    return jax.vmap(cut)(corners)


def _per_level(name: str, values: Any, num_levels: int) -> tuple:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{name} must be a sequence, one entry a level; got {values!r}.")
    if len(values) != num_levels:
        raise ValueError(
            f"{name} must have one entry for each of the {num_levels} levels; got {len(values)}."
        )
    return tuple(values)


def _fit_level(
    projection: jax.Array,
    flat: np.ndarray,
    p: np.ndarray,
    num_draws: int,
    key: jax.Array,
    sigma: np.float32,
    degree: int,
    side: int | None,
    shape: tuple[int, int, int],
    ridge: float,
    level: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and offset [D] of one level."""
    m, size = projection.shape
    # The whole image is one window, whose answer is every pixel.
    num_pixels = 1 if side is None else shape[0] * shape[1]
    # As many pixels at a time as leave room for their Gram matrices, then as many images.
    chunk = max(1, min(num_pixels, _ROOM // m**2))
    rows = max(1, _ROOM // (4 * chunk * max(m, size)))
    solved = []
    for start in range(0, num_pixels, chunk):
        # The last chunk is made whole by its last pixel: one compilation serves all.
        pixels = np.minimum(np.arange(start, start + chunk), num_pixels - 1).astype(np.int32)
        sums = ridge_sums.Sums()
        for block in blocks(flat, p, num_draws, rows):
            sums.add(_window_sums(projection, pixels, *block, key, sigma, degree, side, shape))
        hh, hx, h, x, weight = sums.parts or []
        for i in range(min(chunk, num_pixels - start)):
            solved.append(ridge_sums.solve((hh[i], hx[i], h[i], x[i], weight), ridge, level))
    coefficients, offsets = (np.stack(part) for part in zip(*solved, strict=True))
    return (coefficients[0] if side is None else coefficients), offsets.reshape(-1)


@functools.partial(jax.jit, static_argnames=("degree", "side", "image_shape"))
def _window_sums(
    projection: jax.Array,
    pixels: jax.Array,
    rows: jax.Array,
    weights: jax.Array,
    draws: jax.Array,
    numbers: jax.Array,
    key: jax.Array,
    sigma: jax.Array,
    degree: int,
    side: int | None,
    image_shape: tuple[int, int, int],
) -> tuple[jax.Array, ...]:
    """One block's part of the sums of several pixels P: [P, m, m], [P, m, C], [P, m], [P, C]."""
    x = _pixels.to_model(rows)
    y = x + sigma * noise_of(key, draws, numbers, x.shape[1])
    if side is None:
        seen, x = y[None], x[None]
    else:
        cut = lambda row: windows(row.reshape(image_shape), pixels, side)
        seen = jax.vmap(cut, out_axes=1)(y)  # [P, B, K]
        x = jnp.moveaxis(x.reshape(len(x), -1, image_shape[2])[:, pixels], 0, 1)  # [P, B, C]
    h = features(projection, seen, degree)
    weighted = h * weights[None, :, None]
    sums = einsum("pbm,pbn->pmn", weighted, h), einsum("pbm,pbc->pmc", weighted, x)
    return (*sums, weighted.sum(1), einsum("b,pbc->pc", weights, x), weights.sum())
