"""The best affine denoiser whose every pixel sees only a k x k window around it.

    D(y)_p = mu_p + w_p^T (y - mu)_win,   w_p = U diag( l / (l + sigma^2) ) U^T e_p

with the eigenpairs (l, U) of the covariance of p's window, which is cut off at the image's border:
as p is in its own window, its regression is a row of the window's Wiener filter. Samples are
Gaussian, but long-range correlation is lost; each pixel has its own filter, so no equivariance.

Reference: Levine and Weiss 2026, arXiv 2605.16415 (the claim for linear denoisers).
"""

from collections.abc import Iterator
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from jdiff import _check
from jdiff._exact import einsum
from jdiff.denoisers import axes
from jdiff.denoisers.levels import by_sigma
from jdiff.denoisers.protocol import refuse_labels

# What the basis may take. Accelerators hold 16 to 80 GiB; raise it where yours holds more.
MAX_BYTES = 16 * 2**30
# Windows of so many values take one thread: several gain little there, and where cores are shared
# they wait for each other (784 windows of 81 values: 0.6 s, and 7 to 14 with two threads).
_ONE_THREAD = 512
# Seconds after which a fit shows a bar.
_QUIET = 3


class LocalLinearDenoiser(flax.struct.PyTreeNode):
    """Least squares a pixel, from its own window about the mean image; made by `fit`.

    A window has K = k * k * C entries in the order (row offset, column offset, channel). Entries
    outside the image have eigenvalue 0, their own unit vector as eigenvector, and weight 0.

    Attributes:
      mean: [D], model units.
      basis: [H * W, K, K], orthonormal columns: eigenvectors of every window's covariance.
      eigenvalues: [H * W, K] >= 0, in the order of the columns, model units squared.
      patch_size: k, odd.
      image_shape: (H, W, C), D = H * W * C.
    """

    mean: jax.Array
    basis: jax.Array
    eigenvalues: jax.Array
    patch_size: int = flax.struct.field(pytree_node=False)
    image_shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)
    sigmas: jax.Array | None = None

    @classmethod
    def fit(cls, images: Any, *, patch_size: int, weights: Any = None) -> "LocalLinearDenoiser":
        """Eigenpairs of every window's covariance (divided by N, in float64 on the host).

        The basis takes 4 H W K^2 bytes, the fit twice that. Beside it are held the covariances of
        every image row with the k - 1 rows below it, 8 D W C min(k, H) bytes: all windows are cut
        out of these. Float64, as eigenvalues are set beside sigma^2, which may be 1e-7 of the
        largest.

        Args:
          images: [N, H, W, C], uint8 or float in model units [-1, 1].
          patch_size: the window's side k, odd, from 1 to 2 max(H, W) - 1, where every window holds
            the whole image and the denoiser is LinearDenoiser.
          weights: [N] probabilities up to a factor, not negative; None weighs all alike.

        Raises:
          TypeError: on images of another dtype or a patch size that is not whole.
          ValueError: on a wrong shape or range, bad weights, a patch size even or out of bounds, or
            windows whose basis would take more than `MAX_BYTES`.

        Example:
          >>> import numpy as np
          >>> images = np.array([[-1.0, -1.0], [1.0, 1.0]]).reshape(2, 1, 2, 1)
          >>> y = jnp.array([0.5, 1.0]).reshape(1, 1, 2, 1)
          >>> alone, pair = (LocalLinearDenoiser.fit(images, patch_size=k) for k in (1, 3))
          >>> alone(y, jnp.float32(1.0)).ravel().tolist()  # y / 2: each pixel for itself
          [0.25, 0.5]
          >>> pair(y, jnp.float32(1.0)).ravel().round(3).tolist()  # (y_1 + y_2) / 3: both at once
          [0.5, 0.5]
        """
        from threadpoolctl import threadpool_limits  # scikit-learn's own dependency

        images, p = axes.training_set(images, weights)
        shape = images.shape[1:]
        widest = 2 * max(shape[:2]) - 1
        patch_size = _check.odd("patch_size", patch_size, widest)
        pixels, size = shape[0] * shape[1], patch_size**2 * shape[2]
        needed = 4 * pixels * size**2
        if needed > MAX_BYTES:
            raise ValueError(
                f"patch_size {patch_size} makes {pixels:,} windows of {size:,} values, whose basis "
                f"would take {needed / 2**30:,.1f} GiB, more than {MAX_BYTES / 2**30:g} GiB; a "
                "smaller window, or for one of the whole image LinearDenoiser, takes less."
            )
        basis = np.tile(np.eye(size, dtype=np.float32), (pixels, 1, 1))
        eigenvalues = np.zeros((pixels, size), np.float32)
        windows = tqdm(
            _windows(shape, patch_size),
            "LocalLinearDenoiser.fit: windows",
            total=pixels,
            leave=False,
            delay=_QUIET,
        )
        with threadpool_limits(1 if size <= _ONE_THREAD else None, "blas"):
            mean, near = _near_rows(images.reshape(len(images), -1), p, shape, patch_size)
            for i, (entries, rows, columns) in enumerate(windows):
                l, v = np.linalg.eigh(_cut(near, rows, columns), "U")
                basis[i][np.ix_(entries, entries)], eigenvalues[i, entries] = v, np.maximum(l, 0)
        return cls(
            jnp.asarray(mean, jnp.float32),
            jnp.asarray(basis),
            jnp.asarray(eigenvalues),
            patch_size,
            shape,
        )

    def __call__(
        self, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """The affine estimate.

        Args:
          y: noisy images [B, H, W, C], model units.
          sigma: noise level > 0, a scalar or [B]. A scalar makes the filters once for all rows.
          labels: must be None; the class has no conditional form.

        Returns:
          x_hat [B, H, W, C].

        Raises:
          ValueError: if labels are given or a shape is wrong.
        """
        refuse_labels(self, labels)
        return by_sigma(self._filter, y, sigma, self.image_shape)

    def window_weights(self, sigma: jax.Array) -> jax.Array:
        """Every pixel's linear filter [H, W, K, C] at a scalar sigma.

        Entry [i, j, :, c] holds the weights of the window around (i, j), in the order of the class,
        in the estimate of channel c there; those outside the image are exactly 0.

        Raises:
          ValueError: if sigma is not a scalar.
        """
        if jnp.ndim(sigma) != 0:
            raise ValueError(f"sigma must be a scalar; got shape {jnp.shape(sigma)}.")
        height, width, channels = self.image_shape
        gain = self.eigenvalues / (self.eigenvalues + sigma**2)
        centre = self.patch_size**2 // 2 * channels
        own = self.basis[:, centre : centre + channels]
        weights = einsum("pkm,pcm->pkc", self.basis, own * gain[:, None])
        return weights.reshape(height, width, -1, channels)

    def _filter(self, sigma: jax.Array, y: jax.Array) -> jax.Array:
        """Adds up the shifted images, each times its own weight a pixel."""
        height, width, channels = self.image_shape
        k, mean = self.patch_size, self.mean.reshape(self.image_shape)[..., None]
        # Images last: with the channels last the sums over them run in vectors of three, and a
        # batch of 256 32x32x3 images and k = 5 takes 97 ms instead of 10 (two CPU cores).
        centered = jnp.moveaxis(y, 0, -1) - mean
        padded = jnp.pad(centered, ((k // 2, k // 2), (k // 2, k // 2), (0, 0), (0, 0)))
        weights = self.window_weights(sigma).reshape(height, width, k * k, channels, channels)

        def add(total: jax.Array, shift: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            number, w = shift
            start = (number // k, number % k, 0, 0)
            x = jax.lax.dynamic_slice(padded, start, centered.shape)
            return total + jnp.sum(w[..., None] * x[:, :, :, None], axis=2), None

        shifts = (jnp.arange(k * k), jnp.moveaxis(weights, 2, 0))
        total, _ = jax.lax.scan(add, jnp.zeros_like(centered), shifts)
        return jnp.moveaxis(mean + total, -1, 0)


def _near_rows(
    flat: np.ndarray, p: np.ndarray, shape: tuple[int, int, int], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The mean [D], and what windows of k rows can hold of the covariance.

    Returns the second as [H, W * C, min(k, H), W * C]: entry [i, a, o, b] is that of value a of
    row i and value b of row i + o, 0 beyond the last row.
    """
    height, width, depth = shape[0], shape[1] * shape[2], min(k, shape[0])
    mean = axes.mean(flat, p)
    near = np.zeros((height, width, depth, width))
    for x, q in axes.blocks(flat, p):
        scaled = (x - mean) * np.sqrt(q)[:, None]
        for i in range(height):
            rows = scaled[:, i * width : (i + depth) * width]
            block = rows[:, :width].T @ rows
            near[i, :, : height - i] += block.reshape(width, -1, width)
    return mean, near


def _windows(
    shape: tuple[int, int, int], k: int
) -> Iterator[tuple[np.ndarray, tuple[int, int], slice]]:
    """Of every pixel's window: its entries inside the image, its first and last row, its columns.

    The last row is excluded; columns count the values of an image row.
    """
    height, width, channels = shape
    half, number = k // 2, np.arange(k * k * channels).reshape(k, k, channels)
    for i, j in np.ndindex(height, width):
        top, bottom = max(i - half, 0), min(i + half + 1, height)
        left, right = max(j - half, 0), min(j + half + 1, width)
        inside = number[top - i + half : bottom - i + half, left - j + half : right - j + half]
        yield inside.ravel(), (top, bottom), slice(left * channels, right * channels)


def _cut(near: np.ndarray, rows: tuple[int, int], columns: slice) -> np.ndarray:
    """The upper triangle of a window's covariance, and some of the lower one."""
    height, width = rows[1] - rows[0], columns.stop - columns.start
    covariance = np.zeros((height, width, height, width))
    for i in range(height):
        covariance[i, :, i:] = near[rows[0] + i, columns, : height - i, columns]
    return covariance.reshape(height * width, -1)
