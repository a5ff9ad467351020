"""What every denoiser is: a callable pytree (y, sigma, labels) -> x_hat.

The sampler, the measures and the report know nothing else of a denoiser. `wrap` admits any
function; the checks here are the ones that every class and every entry point shares.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check
from jdiff._exact import dot


@runtime_checkable
class Denoiser(Protocol):
    """A callable pytree that estimates the clean image x from y = x + sigma z.

    Attributes:
      image_shape: (H, W, C).
      sigmas: the levels it is defined at, float32 [T] decreasing without the 0; None for any.
    """

    image_shape: Any
    sigmas: Any

    def __call__(
        self, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """Returns x_hat [B, H, W, C] for y [B, H, W, C] and sigma > 0, a scalar or [B]."""
        ...


class Coordinates(NamedTuple):
    """A denoiser D(y) = mu + V d(V^T (y - mu)) seen in the r coordinates that it acts on.

    What lies outside V is forgotten in the last step, so the sampler can rotate once instead of
    at every step. A class offers this by a method `coordinates() -> Coordinates`.

    Attributes:
      project: y [B, H, W, C] -> u [B, r], V^T (y - mu), V orthonormal.
      denoise: (u, scalar sigma) -> d(u) [B, r].
      expand: u [B, r] -> mu + V u, [B, H, W, C].
    """

    project: Callable[[jax.Array], jax.Array]
    denoise: Callable[[jax.Array, jax.Array], jax.Array]
    expand: Callable[[jax.Array], jax.Array]


def along_axes(
    mean: jax.Array,
    basis: jax.Array,
    image_shape: tuple[int, int, int],
    denoise: Callable[[jax.Array, jax.Array], jax.Array],
) -> Coordinates:
    """The coordinates about a mean [D] along orthonormal columns [D, r]."""
    return Coordinates(
        project=lambda y: dot(y.reshape(len(y), -1) - mean[None], basis),
        denoise=denoise,
        expand=lambda u: (mean[None] + dot(u, basis.T)).reshape(-1, *image_shape),
    )


class FunctionDenoiser(flax.struct.PyTreeNode):
    """Any function as a denoiser; made by `wrap`."""

    function: Callable = flax.struct.field(pytree_node=False)
    image_shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)
    sigmas: jax.Array | None = None

    def __call__(
        self, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """x_hat = function(y, sigma), or function(y, sigma, labels) if labels are given."""
        check_rows("y", y, self.image_shape)
        x_hat = self.function(y, sigma) if labels is None else self.function(y, sigma, labels)
        chex.assert_equal_shape([x_hat, y])
        return x_hat


def wrap(
    function: Callable, image_shape: tuple[int, int, int], *, sigmas: Any = None
) -> FunctionDenoiser:
    """Makes a denoiser of any function of (y, sigma) or (y, sigma, labels).

    Args:
      function: maps y [B, H, W, C] and sigma (scalar or [B]) to x_hat [B, H, W, C]; jax-traceable.
        It is part of the compiled program: what changes between calls belongs in a pytree class.
      image_shape: (H, W, C).
      sigmas: levels it is defined at, decreasing (a closing 0 is left off), or None for any.

    Raises:
      TypeError: if `function` is not callable.
      ValueError: if `image_shape` is not three positive numbers, or `sigmas` do not decrease.

    Example:
      >>> shrink = wrap(lambda y, sigma: y / (1 + sigma**2), (1, 1, 2))
      >>> shrink(jnp.ones((1, 1, 1, 2)), jnp.float32(1.0)).ravel().tolist()
      [0.5, 0.5]
    """
    if not callable(function):
        raise TypeError(f"function must be callable; got {function!r}.")
    levels = None if sigmas is None else jnp.asarray(_check.levels("sigmas", sigmas))
    return FunctionDenoiser(function, _check.image_shape("image_shape", image_shape), levels)


def check_rows(name: str, y: Any, image_shape: tuple[int, int, int]) -> None:
    """Refuses arrays that are not float [B, H, W, C] of the given shape; works while tracing."""
    if (
        y.ndim != 4
        or y.shape[1:] != tuple(image_shape)
        or not jnp.issubdtype(y.dtype, jnp.floating)
    ):
        raise ValueError(
            f"{name} must be a float array [B, {', '.join(map(str, image_shape))}]; "
            f"got {y.dtype} {list(y.shape)}."
        )


def flatten(y: jax.Array, sigma: Any, image_shape: tuple[int, int, int]) -> tuple[Any, Any]:
    """Checked rows for closed forms: y as [B, D] and sigma as [B, 1] of y's dtype."""
    check_rows("y", y, image_shape)
    return y.reshape(y.shape[0], -1), check_sigma(sigma, y)[:, None]


def check_sigma(sigma: Any, y: jax.Array) -> jax.Array:
    """A scalar or [B] noise level as [B] of y's dtype; other shapes are refused."""
    sigma = jnp.asarray(sigma, y.dtype)
    if sigma.shape not in ((), (y.shape[0],)):
        raise ValueError(f"sigma must be a scalar or [{y.shape[0]}]; got shape {sigma.shape}.")
    return jnp.broadcast_to(sigma, y.shape[:1])


def refuse_labels(denoiser: Any, labels: Any) -> None:
    """Refuses the labels of a call to a class that has no conditional form.

    Raises:
      ValueError: if there are any.
    """
    if labels is not None:
        raise ValueError(f"labels must be None: {type(denoiser).__name__} has no classes.")


def check_denoiser(denoiser: Any) -> None:
    """Refuses what is not a denoiser, saying what is missing.

    Raises:
      TypeError: if `image_shape`, `sigmas` or a call is missing.
    """
    missing = [name for name in ("image_shape", "sigmas") if not hasattr(denoiser, name)]
    if missing or not callable(denoiser):
        raise TypeError(
            f"denoiser must be callable with image_shape and sigmas (see jdiff.denoisers.wrap for "
            f"a plain function); got {type(denoiser).__name__}."
        )


def check_levels(denoiser: Denoiser, sigmas: np.ndarray) -> None:
    """Refuses a grid that asks a denoiser for levels that it was not fitted at.

    Args:
      denoiser: any denoiser.
      sigmas: a grid [T + 1] that ends in 0.

    Raises:
      ValueError: naming the first level that is missing (relative tolerance 1e-5).
    """
    if denoiser.sigmas is not None:
        levels = np.asarray(sigmas)[:-1]
        _check.fitted("sigmas", levels, denoiser.sigmas, type(denoiser).__name__)


def check_labels(denoiser: Denoiser, labels: Any, num_rows: int) -> np.ndarray | None:
    """Class labels as int32 [num_rows], checked against the denoiser's number of classes.

    Args:
      denoiser: any denoiser; its `num_classes`, if it has one, bounds the labels. The null class
        num_classes is accepted and means no label.
      labels: None, one label for all rows, or [num_rows].
      num_rows: how many are needed.

    Raises:
      ValueError: if the denoiser has no classes, or a label is out of range or of a wrong shape, or
        is missing where the denoiser needs one.
    """
    if labels is None:
        if getattr(denoiser, "needs_labels", False):
            raise ValueError(f"labels must be given: this is a {type(denoiser).__name__}.")
        return None
    num_classes = getattr(denoiser, "num_classes", None)
    if num_classes is None and not isinstance(denoiser, FunctionDenoiser):
        raise ValueError(f"labels were given, but this {type(denoiser).__name__} has no classes.")
    labels = np.asarray(labels)
    labels = np.broadcast_to(labels, (num_rows,)) if labels.ndim == 0 else labels
    # One above the last class is the null class, so it is accepted as well.
    top = None if num_classes is None else num_classes + 1
    return _check.labels("labels", labels, num_rows, top)
