"""Gaussian laws: what an affine denoiser's samples are distributed like, exactly.

    y' = mu + A_i (y - mu) + noise,   y_0 ~ N(0, sigma_0^2 I)
    mean = mu - G mu,   covariance = sigma_0^2 G G^T (+ what the noise of each step became)

with G = A_{T-1} ... A_0. A law is held in axes in which its covariance is diagonal: the columns of
a matrix, or the complex waves of a stationary texture. Everything is float64.

Reference: Levine and Weiss 2026, arXiv 2605.16415 (linear denoisers create a Gaussian).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jdiff import _check
from jdiff.theory import checks, steps


class Axes(Protocol):
    """m orthonormal directions in R^D."""

    def project(self, x: np.ndarray) -> np.ndarray:
        """Coordinates [n, m] of rows [n, D]."""
        ...

    def expand(self, u: np.ndarray) -> np.ndarray:
        """Rows [n, D] from coordinates [n, m]."""
        ...


@dataclasses.dataclass(frozen=True)
class MatrixAxes:
    """The orthonormal columns of a matrix [D, m]."""

    columns: np.ndarray

    def project(self, x: np.ndarray) -> np.ndarray:
        """x V."""
        return x @ self.columns

    def expand(self, u: np.ndarray) -> np.ndarray:
        """u V^T."""
        return u @ self.columns.T


@dataclasses.dataclass(frozen=True)
class FourierAxes:
    """Waves of C colours: of U_f^H x_f the real part at one of f, -f, the imaginary at the other.

    x_f is the unitary transform of the image, C values a frequency, and U_{-f} = conj(U_f): so
    sqrt(2) times these parts are D orthonormal real coordinates.

    Attributes:
      colors: U, unitary, complex [H, W, C, C].
      order: [D], which coordinate comes first; `order[i]` counts frequencies, then columns of U.
    """

    colors: np.ndarray
    order: np.ndarray

    def project(self, x: np.ndarray) -> np.ndarray:
        """Coordinates [n, D]."""
        images = x.reshape(len(x), *self.colors.shape[:3])
        waves = np.fft.fft2(images, axes=(1, 2), norm="ortho")
        c = np.einsum("hwij,nhwi->nhwj", self.colors.conj(), waves)
        own, first = (mask[..., None] for mask in halves(*self.colors.shape[:2]))
        parts = np.where(own, c.real, np.sqrt(2) * np.where(first, c.real, c.imag))
        return parts.reshape(len(x), -1)[:, self.order]

    def expand(self, u: np.ndarray) -> np.ndarray:
        """Rows [n, D]."""
        a = np.empty_like(u)
        a[:, self.order] = u
        a = a.reshape(len(u), *self.colors.shape[:3])
        own, first = (mask[..., None] for mask in halves(*self.colors.shape[:2]))
        # At f, Re c = a_f / sqrt 2 and Im c = -Im c_{-f} = -a_{-f} / sqrt 2; at -f its conjugate.
        other = negated(a, axes=(1, 2))
        paired = np.where(first, a - 1j * other, other + 1j * a) / np.sqrt(2)
        waves = np.einsum("hwij,nhwj->nhwi", self.colors, np.where(own, a, paired))
        return np.fft.ifft2(waves, axes=(1, 2), norm="ortho").real.reshape(len(u), -1)


def negated(a: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    """The array at the frequencies -f: entry (-i mod H, -j mod W) of `axes`."""
    return np.roll(np.flip(a, axes), 1, axes)


def halves(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Which frequencies [H, W] are their own negative, and which come before theirs."""
    number = np.arange(height * width).reshape(height, width)
    other = negated(number, (0, 1))
    return number == other, number < other


class GaussianLaw:
    """N(mean, C), C diagonal in known axes and zero outside them.

    Attributes:
      mean: float64 [H, W, C], model units.
      image_shape: (H, W, C).
      about: what it is the law of, for messages.
    """

    def __init__(
        self,
        mean: np.ndarray,
        image_shape: tuple[int, int, int],
        spectrum: Callable[[], tuple[Axes, np.ndarray]],
        about: str = "",
    ):
        """Stores the mean and the work that gives axes and variances [m], largest first."""
        self.mean, self.image_shape, self.about = mean.reshape(image_shape), image_shape, about
        self._make_spectrum = spectrum

    @functools.cached_property
    def _spectrum(self) -> tuple[Axes, np.ndarray]:
        return self._make_spectrum()

    @property
    def axes(self) -> Axes:
        """The m axes; outside of them nothing varies."""
        return self._spectrum[0]

    @property
    def eigenvalues(self) -> np.ndarray:
        """Variances along the axes, float64 [m], largest first, model units squared."""
        return self._spectrum[1]

    @functools.cached_property
    def covariance(self) -> np.ndarray:
        """float64 [D, D]; made when asked for."""
        directions = self.axes.expand(np.eye(len(self.eigenvalues)))
        return (directions.T * self.eigenvalues) @ directions

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Draws from the law.

        Args:
          key: a typed threefry key.
          num_samples: n.

        Returns:
          float32 [n, H, W, C], model units.
        """
        _check.key("key", key)
        shape = (_check.integer("num_samples", num_samples), len(self.eigenvalues))
        z = np.asarray(jax.random.normal(key, shape, jnp.float32), np.float64)
        x = self.axes.expand(z * np.sqrt(self.eigenvalues)) + self.mean.reshape(1, -1)
        return jnp.asarray(x.reshape(-1, *self.image_shape), jnp.float32)

    def coordinates(self, samples: Any) -> np.ndarray:
        """Samples [n, H, W, C] about the mean, along the axes: float64 [n, m]."""
        x = checks.rows("samples", samples, self.image_shape)
        return self.axes.project(x - self.mean.reshape(1, -1))

    def distance(self, samples: Any) -> float:
        """Mean over the axes of the Wasserstein-1 distance in units of sqrt(l_i).

        Axes with l_i above 1e-6 of the largest count. n samples of the law itself are about
        0.9 / sqrt(n) away from it.

        Args:
          samples: finite, [n, H, W, C], n >= 2.
        """
        kept = checks.significant(self.eigenvalues)
        if len(np.asarray(samples)) < 2 or not kept.any():
            raise ValueError(
                "distance needs at least 2 samples, and a law of which some axis varies; got "
                f"{len(np.asarray(samples))} samples and {int(kept.sum())} axes."
            )
        u = self.coordinates(samples)[:, kept] / np.sqrt(self.eigenvalues[kept])
        n = len(u)
        normal = special.ndtri((np.arange(n) + 0.5) / n)
        return float(np.mean(np.abs(np.sort(u, axis=0) - normal[:, None])))

    def check(
        self, samples: Any, *, train: Any = None, held_out: Any = None, alpha: float = 0.01
    ) -> checks.LawCheck:
        """Do samples obey the law? Every test of theory section 6, with Bonferroni.

        Args:
          samples: [n, H, W, C], n >= 20, model units; those that overflowed are counted.
          train: training images, to compare distances to the nearest of them.
          held_out: held-out images, for the same distances beside.
          alpha: the chance that samples of the law itself fail.

        Returns:
          LawCheck.

        Raises:
          ValueError: on a wrong shape, too few samples, or an alpha outside (0, 1).
        """
        return checks.gaussian(self, samples, train, held_out, alpha)


def of_map(
    act: Callable[[np.ndarray, float], np.ndarray],
    identity: np.ndarray,
    sigmas: np.ndarray,
    solver: str,
    *,
    multiply: Callable = np.matmul,
    adjoint: Callable = lambda a: np.conj(np.swapaxes(a, -1, -2)),
) -> np.ndarray:
    """The covariance of samples, from how W_sigma acts on columns.

    Args:
      act: (columns, sigma) -> W_sigma columns.
      identity: the identity in the form that `act` takes.
      sigmas: the grid [T + 1].
      solver: one of `steps.SOLVERS`.
      multiply: product of two maps.
      adjoint: conjugate transpose of a map.
    """
    square = lambda g: multiply(g, adjoint(g))
    if solver != "ddpm":
        return float(sigmas[0]) ** 2 * square(steps.carry(act, identity, sigmas, solver))
    covariance = float(sigmas[0]) ** 2 * identity
    for sigma, sigma_next in steps.pairs(sigmas):
        half = steps.step(act, covariance, sigma, sigma_next, solver)  # A C
        covariance = steps.step(act, adjoint(half), sigma, sigma_next, solver)  # A (A C)^H
        covariance = covariance + steps.noise_variance(sigma, sigma_next, solver) * identity
    return covariance
