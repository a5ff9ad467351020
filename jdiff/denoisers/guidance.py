"""Classifier-free guidance: a function from a denoiser to a denoiser.

    D_w(y; sigma, c) = D(y; sigma, none) + w (D(y; sigma, c) - D(y; sigma, none))

w = 0 forgets the class, w = 1 is the plain conditional denoiser, w > 1 goes beyond it: away from
what samples of all classes have in common.

Reference: Ho and Salimans 2022, "Classifier-Free Diffusion Guidance", eq. 6, with 1 + w there for w
here, in x_hat instead of the noise (the same up to the factor -sigma).
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jdiff import _check
from jdiff.denoisers.protocol import Denoiser, check_denoiser


class GuidedDenoiser(flax.struct.PyTreeNode):
    """A conditional denoiser with guidance; made by `guide`. Two evaluations a call.

    Attributes:
      denoiser: a denoiser with classes.
      scale: w, a scalar.
    """

    denoiser: Any
    scale: jax.Array

    needs_labels = True

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.denoiser.image_shape

    @property
    def sigmas(self) -> jax.Array | None:
        """The levels that the denoiser is defined at."""
        return self.denoiser.sigmas

    @property
    def num_classes(self) -> int:
        """The denoiser's number of classes."""
        return self.denoiser.num_classes

    def __call__(
        self, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """The guided estimate.

        Args:
          y: noisy images [B, H, W, C], model units.
          sigma: noise level > 0, a scalar or [B].
          labels: int [B] in 0 .. num_classes (the last is the null class); needed.

        Returns:
          x_hat [B, H, W, C].

        Raises:
          ValueError: if there are no labels.
        """
        if labels is None:
            raise ValueError("labels must be given to a guided denoiser; got None.")
        plain = self.denoiser(y, sigma, jnp.full_like(labels, self.num_classes))
        return plain + self.scale * (self.denoiser(y, sigma, labels) - plain)


def guide(denoiser: Denoiser, scale: float) -> GuidedDenoiser:
    """Adds classifier-free guidance to a denoiser that has classes.

    Args:
      denoiser: a denoiser with `num_classes`; a network trained with label_dropout > 0, so that it
        knows the null class.
      scale: w >= 0; 1 is the plain conditional denoiser.

    Returns:
      A denoiser whose calls need labels.

    Raises:
      TypeError: on something that is no denoiser.
      ValueError: on a denoiser without classes, or a scale that is negative or not finite.

    Example:
      >>> import numpy as np
      >>> from jdiff import OptimalDenoiser
      >>> x = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
      >>> guided = guide(OptimalDenoiser.fit(x, labels=np.array([0, 1])), 1.0)
      >>> y, label = jnp.zeros((1, 1, 1, 1)), jnp.array([1])
      >>> round(guided(y, jnp.float32(1.0), label).item(), 3)  # the one point of class 1
      1.0
    """
    check_denoiser(denoiser)
    if getattr(denoiser, "num_classes", None) is None:
        raise ValueError(
            "denoiser must have classes to be guided by: fit or train it with labels (num_classes "
            f"of a network); this {type(denoiser).__name__} has none."
        )
    scale = _check.number("scale", scale, above=0, closed="[")
    return GuidedDenoiser(denoiser, jnp.asarray(scale, jnp.float32))
