"""The Bayes-optimal denoiser of a finite training set: the null hypothesis, pure copying.

    D(y) = E[x | y] = sum_n p_n x_n,   p = softmax( log w_n - |y - x_n|^2 / (2 sigma^2) )

No denoiser has a smaller squared error on noisy training images, and sampled to sigma = 0 it gives
training images back. Whatever a network generates beyond them is its architecture's doing.

Reference: Levine and Weiss 2026, arXiv 2605.16415; Karras et al. 2022, appendix B.3.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check
from jdiff.denoisers import posterior as core
from jdiff.denoisers.protocol import flatten


class OptimalDenoiser(flax.struct.PyTreeNode):
    """The posterior mean over the training set; made by `fit`.

    Attributes:
      bank: the training set, N images of D = H * W * C values.
      image_shape: (H, W, C).
      num_classes: how many classes the labels name, or None without labels.
    """

    sharded_fields = ("bank",)  # what `jdiff.parallel.shard` splits

    bank: core.Bank
    image_shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)
    num_classes: int | None = flax.struct.field(pytree_node=False, default=None)
    sigmas: jax.Array | None = None

    @classmethod
    def fit(
        cls,
        images: Any,
        weights: Any = None,
        labels: Any = None,
        *,
        block_size: int | None = None,
    ) -> "OptimalDenoiser":
        """Stores a training set as it is (uint8 stays uint8).

        Args:
          images: [N, H, W, C], uint8 or float in model units [-1, 1].
          weights: [N] probabilities up to a factor, not negative; None weighs all alike.
          labels: int [N] in 0 .. num_classes - 1, every class present, or None. Called with a
            label, the denoiser is the posterior mean over that class alone.
          block_size: images a scan step; the answer does not depend on it.

        Raises:
          TypeError: on images of another dtype or labels that are not whole numbers.
          ValueError: on a wrong shape or range, bad weights, or a class without images.

        Example:
          >>> import numpy as np
          >>> points = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
          >>> denoiser = OptimalDenoiser.fit(points)
          >>> y = jnp.full((1, 1, 1, 1), 0.5)
          >>> round(float(denoiser(y, jnp.float32(1.0))[0, 0, 0, 0]), 4)  # tanh(0.5)
          0.4621
        """
        images = _check.images("images", images)
        n = len(images)
        weights = None if weights is None else _check.weights("weights", weights, n)
        num_classes = None
        if labels is not None:
            labels = _check.labels("labels", labels, n)
            counted = labels if weights is None else labels[weights > 0]
            present = np.unique(counted)
            num_classes = int(labels.max()) + 1
            missing = sorted(set(range(num_classes)) - set(present.tolist()))
            if missing:
                raise ValueError(
                    f"labels must name every class in 0 .. {num_classes - 1} at least once, with "
                    f"weight; no image has {missing[:5]}."
                )
        bank = core.bank(images, weights, labels, block_size=block_size)
        return cls(bank, images.shape[1:], num_classes)

    def __call__(
        self, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """The posterior mean.

        Args:
          y: noisy images [B, H, W, C], model units.
          sigma: noise level > 0, a scalar or [B].
          labels: int [B]; num_classes, the null class, means all images, as None does.

        Returns:
          x_hat [B, H, W, C], in the convex hull of the training set.
        """
        flat, level = flatten(y, sigma, self.image_shape)
        return core.posterior_mean(self.bank, flat, level, self._admit(labels)).reshape(y.shape)

    def posterior(
        self, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
    ) -> core.Posterior:
        """The posterior mean [B, D] with the K = 32 leading training images and their weights.

        Arguments as in a call. What the named weights lack of 1 belongs to other images.
        """
        flat, level = flatten(y, sigma, self.image_shape)
        return core.posterior(self.bank, flat, level, self._admit(labels))

    def _admit(self, labels: jax.Array | None) -> jax.Array | None:
        """Labels as the core reads them: the null class admits every image."""
        if labels is None:
            return None
        if self.num_classes is None:
            raise ValueError("labels must be None: this OptimalDenoiser was fitted without labels.")
        labels = jnp.broadcast_to(labels, (labels.shape or (1,)))
        return jnp.where(labels == self.num_classes, -1, labels)
