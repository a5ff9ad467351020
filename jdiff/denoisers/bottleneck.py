"""Denoisers that see an image through r numbers, its code u = V^T (y - mu).

    decoder linear      D(y) = mu + V q(u),  q linear: u_i l_i / (l_i + sigma^2), or optimal: E[.|u]
    decoder posterior   D(y) = E[x | u] = sum_n p_n x_n,  p = softmax(log w_n - |u - u_n|^2 / 2s^2)

with s = sigma, the leading eigenpairs (l_i, v_i) of the data's covariance, V = (v_1 .. v_r), and
u_n = V^T (x_n - mu). In all of them the code of a sample follows q alone. Samples are Gaussian on
the subspace (q linear), training images projected on it (q optimal), or training images (posterior
decoder), blended where codes collide.

Reference: Levine and Weiss 2026, arXiv 2605.16415 (bottleneck denoisers).
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check
from jdiff.denoisers import axes
from jdiff.denoisers import posterior as core
from jdiff.denoisers.protocol import (
    Coordinates,
    along_axes,
    check_rows,
    check_sigma,
    refuse_labels,
)

KINDS = ("linear", "posterior")


class BottleneckDenoiser(flax.struct.PyTreeNode):
    """The best denoiser with a linear code of r numbers, decoded in one of two ways; see `fit`.

    Attributes:
      mean: [D], model units.
      basis: [D, r], orthonormal columns V: eigenvectors of the covariance, largest first.
      eigenvalues: [r] >= 0, model units squared.
      bank: the codes of the training images that have weight, with these images as values where
        the decoder is "posterior"; None where nothing is a posterior.
      code: "linear" or "posterior", how the code is denoised.
      decoder: "linear" or "posterior", how an image is made of it.
      image_shape: (H, W, C), D = H * W * C.
    """

    sharded_fields = ("bank",)  # what `jdiff.parallel.shard` splits

    mean: jax.Array
    basis: jax.Array
    eigenvalues: jax.Array
    bank: core.Bank | None
    code: str = flax.struct.field(pytree_node=False)
    decoder: str = flax.struct.field(pytree_node=False)
    image_shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)
    sigmas: jax.Array | None = None

    @classmethod
    def fit(
        cls,
        images: Any,
        code_dim: int,
        decoder: str = "linear",
        code: str = "linear",
        *,
        weights: Any = None,
        block_size: int | None = None,
    ) -> "BottleneckDenoiser":
        """Eigenpairs of the covariance, and the codes of the training images.

        Args:
          images: [N, H, W, C], uint8 or float in model units [-1, 1].
          code_dim: r, from 1 to min(N - 1, D), N images with weight.
          decoder: "linear", mu + V q(u); or "posterior", the mean of the training images given the
            code, which needs code="linear".
          code: what q is under a linear decoder. "linear" multiplies: LinearDenoiser(rank=r).
            "posterior" is the Bayes-optimal denoiser of the projected training set.
          weights: [N] probabilities up to a factor, not negative; None weighs all alike.
          block_size: images a scan step of a posterior; the answer does not depend on it.

        Raises:
          TypeError: on images of another dtype or a code_dim that is not whole.
          ValueError: on a wrong shape or range, bad weights, a code_dim out of bounds, or both code
            and decoder "posterior".

        Example:
          >>> import numpy as np
          >>> points = np.array([[-1.0, 0.2], [0.0, -0.4], [1.0, 0.2]]).reshape(3, 1, 1, 2)
          >>> y = jnp.array([0.8, 0.3]).reshape(1, 1, 1, 2)  # the code is the first coordinate
          >>> for decoder, code in [("linear", "posterior"), ("posterior", "linear")]:
          ...     x_hat = BottleneckDenoiser.fit(points, 1, decoder, code)(y, jnp.float32(0.1))
          ...     print([round(float(v), 2) for v in x_hat.ravel()])
          [1.0, 0.0]
          [1.0, 0.2]
        """
        _check.choice("decoder", decoder, KINDS)
        _check.choice("code", code, KINDS)
        if code == decoder == "posterior":
            raise ValueError(
                "code and decoder are both 'posterior', but the mean of the training images given "
                "the code is the posterior already, with nothing left to denoise in the code. "
                "Accepted (code, decoder): (linear, linear), (linear, posterior), "
                "(posterior, linear)."
            )
        images, p = axes.training_set(images, weights)
        flat = images.reshape(len(images), -1)
        most = axes.num_axes(int(np.count_nonzero(p)), flat.shape[1])
        code_dim = _check.integer("code_dim", code_dim, maximum=most)
        mean, eigenvalues, basis = axes.principal_axes(flat, p)
        # The codes of the rounded mean and axes, which are the ones that a call projects on.
        mean, basis = mean.astype(np.float32), basis[:, :code_dim].astype(np.float32)
        bank = None
        if "posterior" in (code, decoder):
            codes = np.concatenate([(x - mean) @ basis for x, _ in axes.blocks(flat, p)])
            codes = codes.astype(np.float32).reshape(-1, 1, 1, code_dim)
            values = flat[p > 0] if decoder == "posterior" else None
            bank = core.bank(codes, p[p > 0], values=values, block_size=block_size)
        return cls(
            jnp.asarray(mean),
            jnp.asarray(basis),
            jnp.asarray(eigenvalues[:code_dim], jnp.float32),
            bank,
            code,
            decoder,
            images.shape[1:],
        )

    def __call__(
        self, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """The best estimate of this class.

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
        x_hat = self._denoise(self.codes(y), check_sigma(sigma, y)[:, None])
        if self.decoder == "posterior":
            return x_hat.reshape(y.shape)
        return self._along_axes().expand(x_hat)

    def codes(self, y: Any) -> jax.Array:
        """V^T (y - mu) of images [B, H, W, C], model units: [B, r]."""
        check_rows("y", y, self.image_shape)
        return self._along_axes().project(y)

    def coordinates(self) -> Coordinates | None:
        """The same denoiser in the code's space; None where the decoder leads out of it."""
        return None if self.decoder == "posterior" else self._along_axes()

    def _along_axes(self) -> Coordinates:
        return along_axes(self.mean, self.basis, self.image_shape, self._denoise)

    def _denoise(self, u: jax.Array, sigma: jax.Array) -> jax.Array:
        """q(u) [B, r] of codes [B, r]; with a posterior decoder E[x | u] [B, D].

        The mean over the bank is both: its values are images where the decoder is a posterior.
        """
        level = jnp.broadcast_to(sigma, (len(u), 1))
        if self.bank is not None:
            return core.posterior_mean(self.bank, u, level)
        return self.eigenvalues[None] / (self.eigenvalues[None] + level**2) * u
