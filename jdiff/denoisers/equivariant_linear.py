"""The best affine denoiser that commutes with circular shifts: one filter for the whole image.

    D(y) = mu + F^-1 T_f F (y - mu),   T_f = U_f diag( l_f / (l_f + sigma^2) ) U_f^H

with F the unitary 2-D DFT, mu one constant a channel, (l_f, U_f) the eigenpairs of the mean power
P_f = E[x_f x_f^H] about it, C x C. With a patch size k the filter has k x k taps: D(y)_p = mu +
sum_d w_d (y - mu)_{p+d}, w = R (R + sigma^2 I)^-1 e_centre, R the circular autocovariance.

Reference: Levine and Weiss 2026, arXiv 2605.16415 (the claim for linear denoisers).
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check
from jdiff._exact import einsum
from jdiff.denoisers import axes
from jdiff.denoisers.levels import by_sigma
from jdiff.denoisers.protocol import refuse_labels


class EquivariantLinearDenoiser(flax.struct.PyTreeNode):
    """The least-squares circular filter, as large as the image or k x k; made by `fit`.

    A window has K = k * k * C entries in the order (row offset, column offset, channel).

    Attributes:
      mean: [C], model units.
      basis: the eigenvectors of the power, complex64 [H, W, C, C], conjugates at f and -f; with a
        patch size those of the autocovariance, float32 [K, K]. Columns are eigenvectors.
      eigenvalues: [H, W, C], with a patch size [K]; >= 0, model units squared. The former add up
        to the total power E|x - mu|^2 of an image.
      patch_size: k, odd, or None.
      image_shape: (H, W, C).
    """

    mean: jax.Array
    basis: jax.Array
    eigenvalues: jax.Array
    patch_size: int | None = flax.struct.field(pytree_node=False)
    image_shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)
    sigmas: jax.Array | None = None

    @classmethod
    def fit(
        cls, images: Any, *, patch_size: int | None = None, weights: Any = None
    ) -> "EquivariantLinearDenoiser":
        """Eigenpairs of the mean power or of the autocovariance (in float64 on the host).

        Args:
          images: [N, H, W, C], uint8 or float in model units [-1, 1].
          patch_size: the filter's side k, odd, from 1 to min(H, W); None lets it be as large as the
            image.
          weights: [N] probabilities up to a factor, not negative; None weighs all alike.

        Raises:
          TypeError: on images of another dtype or a patch size that is not whole.
          ValueError: on a wrong shape or range, bad weights, or a patch size even or out of bounds.

        Example:
          >>> import numpy as np
          >>> stripes = np.array([[-1.0, 1.0]]).reshape(1, 1, 2, 1)
          >>> denoiser = EquivariantLinearDenoiser.fit(stripes)
          >>> denoiser.eigenvalues.ravel().tolist()  # nothing but the highest frequency
          [0.0, 2.0]
          >>> y = jnp.array([3.0, 0.0]).reshape(1, 1, 2, 1)
          >>> denoiser(y, jnp.float32(1.0)).ravel().round(3).tolist()  # 2/3 of (3 - 0)/2 there
          [1.0, -1.0]
        """
        images, p = axes.training_set(images, weights)
        shape = images.shape[1:]
        if patch_size is not None:
            patch_size = _check.odd("patch_size", patch_size, min(shape[:2]))
        flat = images.reshape(len(images), -1)
        mean = axes.mean(flat, p).reshape(shape).mean((0, 1))
        power = _mean_power(flat, p, mean, shape)
        if patch_size is None:
            eigenvalues, basis = _spectral_axes(power)
        else:
            eigenvalues, basis = np.linalg.eigh(_autocovariance(power, patch_size))
        return cls(
            jnp.asarray(mean, jnp.float32),
            jnp.asarray(basis, jnp.complex64 if patch_size is None else jnp.float32),
            jnp.asarray(np.maximum(eigenvalues, 0), jnp.float32),
            patch_size,
            shape,
        )

    def __call__(
        self, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """The affine estimate.

        Args:
          y: noisy images [B, H, W, C], model units.
          sigma: noise level > 0, a scalar or [B]. A scalar makes the transfer once for all rows.
          labels: must be None; the class has no conditional form.

        Returns:
          x_hat [B, H, W, C].

        Raises:
          ValueError: if labels are given or a shape is wrong.
        """
        refuse_labels(self, labels)
        return by_sigma(self._filter, y, sigma, self.image_shape)

    def transfer(self, sigma: jax.Array) -> jax.Array:
        """T_f, complex64 [H, W // 2 + 1, C, C], at a scalar sigma, f the frequencies of rfft2.

        Raises:
          ValueError: if sigma is not a scalar.
        """
        if jnp.ndim(sigma) != 0:
            raise ValueError(f"sigma must be a scalar; got shape {jnp.shape(sigma)}.")
        height, width, channels = self.image_shape
        gain = self.eigenvalues / (self.eigenvalues + sigma**2)
        if self.patch_size is None:
            half = slice(width // 2 + 1)
            u, g = self.basis[:, half], gain[:, half, None]
            return einsum("hwcm,hwdm->hwcd", u * g, u.conj())
        k, centre = self.patch_size, self.patch_size**2 // 2 * channels
        own = self.basis[centre : centre + channels]
        w = einsum("cm,km->kc", own * gain[None], self.basis).reshape(k, k, channels, channels)
        padded = jnp.pad(w, ((0, height - k), (0, width - k), (0, 0), (0, 0)))
        taps = jnp.roll(padded, (-(k // 2), -(k // 2)), (0, 1))
        # D looks ahead by d, so T_f sums with +i; as w is real that is the conjugate of its DFT.
        return jnp.fft.rfft2(taps, axes=(0, 1)).conj().swapaxes(2, 3)

    def _filter(self, sigma: jax.Array, y: jax.Array) -> jax.Array:
        height, width, _ = self.image_shape
        mean = self.mean[None, None, None]
        spectrum = jnp.fft.rfft2(y - mean, axes=(1, 2))
        filtered = einsum("hwcd,bhwd->bhwc", self.transfer(sigma), spectrum)
        return mean + jnp.fft.irfft2(filtered, (height, width), axes=(1, 2))


def _mean_power(
    flat: np.ndarray, p: np.ndarray, mean: np.ndarray, shape: tuple[int, int, int]
) -> np.ndarray:
    """P_f = E[x_f x_f^H], complex [H, W, C, C], of the unitary DFT of images less the mean."""
    height, width, channels = shape
    power = np.zeros((height, width // 2 + 1, channels, channels), complex)
    for x, q in axes.blocks(flat, p):
        x = np.fft.rfft2(x.reshape(-1, *shape) - mean, axes=(1, 2), norm="ortho")
        x = np.moveaxis(x, 0, -1)  # [H, W / 2 + 1, C, n]
        power += (x * q) @ x.conj().swapaxes(-1, -2)
    # The frequencies that rfft2 leaves out are those of the negative columns.
    rest = np.arange(width // 2 + 1, width)
    return np.concatenate([power, _negated(power.conj(), -rest % width)], 1)


def _negated(a: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """An array [H, ., ...] at the negative row frequencies, in the given columns."""
    return a[-np.arange(len(a)) % len(a)][:, columns]


def _spectral_axes(power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues [H, W, C] and eigenvectors [H, W, C, C] of P_f, conjugates at f and -f."""
    height, width = power.shape[:2]
    number = np.arange(height * width).reshape(height, width)
    opposite = _negated(number, -np.arange(width) % width)
    eigenvalues, basis = np.linalg.eigh(power)
    own = number == opposite
    eigenvalues[own], basis[own] = np.linalg.eigh(np.real(power[own]))
    second = number > opposite
    flat = lambda a: a.reshape(height * width, *a.shape[2:])
    eigenvalues[second] = flat(eigenvalues)[opposite[second]]
    basis[second] = flat(basis)[opposite[second]].conj()
    return eigenvalues, basis


def _autocovariance(power: np.ndarray, k: int) -> np.ndarray:
    """R [K, K]: R[(d, c), (d', c')] is the mean of x_{p+d, c} x_{p+d', c'} over images and p."""
    height, width, channels, _ = power.shape
    # lags[t, c, c'] is the mean of x_{p, c} x_{p+t, c'}.
    lags = np.fft.ifft2(power.conj(), axes=(0, 1)).real
    offsets = np.arange(k)
    apart = offsets[None] - offsets[:, None]
    rows, columns = (apart % height)[:, None, :, None], (apart % width)[None, :, None, :]
    r = lags[rows, columns]  # [k, k, k, k, C, C]
    r = r.transpose(0, 1, 4, 2, 3, 5).reshape(k * k * channels, -1)
    return (r + r.T) / 2
