"""The best affine denoiser (Wiener filter): it keeps the data's mean and covariance, nothing else.

    D(y) = mu + V diag( l_i / (l_i + sigma^2) ) V^T (y - mu)

with mu and the eigenpairs (l_i, v_i) of the data's covariance S. Every sampler step is affine, so
its samples are exactly Gaussian: N(mu, S) in the limit, for rank r N(mu, P_r S P_r). The basis is
computed once; a call costs two thin matrix products and never a D x D inverse.

Reference: Levine and Weiss 2026, arXiv 2605.16415 (the linear denoiser).
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check
from jdiff.denoisers import axes
from jdiff.denoisers.protocol import Coordinates, along_axes, flatten, refuse_labels


class LinearDenoiser(flax.struct.PyTreeNode):
    """The least-squares affine denoiser, of full or bounded rank; made by `fit`.

    Attributes:
      mean: [D], model units.
      basis: [D, r], orthonormal columns: eigenvectors of the covariance, largest first.
      eigenvalues: [r] >= 0, model units squared.
      image_shape: (H, W, C), D = H * W * C.
    """

    mean: jax.Array
    basis: jax.Array
    eigenvalues: jax.Array
    image_shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)
    sigmas: jax.Array | None = None

    @classmethod
    def fit(cls, images: Any, *, rank: int | None = None, weights: Any = None) -> "LinearDenoiser":
        """Eigenpairs of the covariance (divided by N, in float64 on the host).

        Args:
          images: [N, H, W, C], uint8 or float in model units [-1, 1].
          rank: how many leading eigenpairs are kept, from 1 to min(N - 1, D), N images with weight;
            None keeps all of these.
          weights: [N] probabilities up to a factor, not negative; None weighs all alike.

        Raises:
          TypeError: on images of another dtype or a rank that is not whole.
          ValueError: on a wrong shape or range, bad weights, or a rank out of bounds.

        Example:
          >>> import numpy as np
          >>> points = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
          >>> denoiser = LinearDenoiser.fit(points)  # mean 0, variance 1
          >>> float(denoiser(jnp.full((1, 1, 1, 1), 0.5), jnp.float32(1.0))[0, 0, 0, 0])
          0.25
        """
        images, p = axes.training_set(images, weights)
        n, d = int(np.count_nonzero(p)), int(np.prod(images.shape[1:]))
        if rank is not None:
            _check.integer("rank", rank, maximum=axes.num_axes(n, d))
        mean, eigenvalues, basis = axes.principal_axes(images.reshape(len(images), d), p)
        kept = slice(None, rank)
        return cls(
            jnp.asarray(mean, jnp.float32),
            jnp.asarray(basis[:, kept], jnp.float32),
            jnp.asarray(eigenvalues[kept], jnp.float32),
            images.shape[1:],
        )

    def __call__(
        self, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """The affine estimate.

        Args:
          y: noisy images [B, H, W, C], model units.
          sigma: noise level > 0, a scalar or [B].
          labels: must be None; the class has no conditional form.

        Returns:
          x_hat [B, H, W, C].

        Raises:
          ValueError: if labels are given or a shape is wrong.
        """
        refuse_labels(self, labels)
        _, level = flatten(y, sigma, self.image_shape)
        coordinates = self.coordinates()
        return coordinates.expand(self._shrink(coordinates.project(y), level))

    def coordinates(self) -> Coordinates:
        """The same denoiser along its axes, where it only multiplies."""
        return along_axes(self.mean, self.basis, self.image_shape, self._shrink)

    def _shrink(self, u: jax.Array, sigma: jax.Array) -> jax.Array:
        """The Wiener gain of coordinates [B, r], sigma a scalar or [B, 1]."""
        variance = jnp.broadcast_to(sigma**2, (len(u), 1))
        return self.eigenvalues[None] / (self.eigenvalues[None] + variance) * u
