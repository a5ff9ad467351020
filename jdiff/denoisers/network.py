"""A network F as a denoiser D: one table of preconditionings.

    D(y; sigma) = c_skip y + c_out F(c_in y, c_noise),   loss weight 1 / c_out^2

with c_in = 1/sqrt(s^2 + sd^2) and c_noise = log(s)/4 in every row, s = sigma, sd = the data's
standard deviation. The architecture is D, not F: where c_skip is not 0 the noisy image goes round
the network, so only the row x0 lets a bottleneck constrain the samples.

Reference: Karras et al. 2022 (EDM), eq. 7 and table 1.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from jdiff import _check
from jdiff.denoisers.protocol import check_rows, check_sigma
from jdiff.noise import per_row

# Each row: (sigma, data deviation) -> (c_skip, c_out).
PRECONDITIONINGS: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "edm": lambda s, sd: (sd**2 / (s**2 + sd**2), s * sd / jnp.sqrt(s**2 + sd**2)),
    "x0": lambda s, sd: (jnp.zeros_like(s), jnp.ones_like(s)),
    "eps": lambda s, sd: (jnp.ones_like(s), -s),
    "v": lambda s, sd: (1 / (1 + s**2), -s / jnp.sqrt(1 + s**2)),
}


def precondition(
    apply: Callable[[jax.Array, jax.Array], jax.Array],
    preconditioning: str,
    data_std: jax.Array,
    y: jax.Array,
    sigma: jax.Array,
) -> jax.Array:
    """D(y; sigma) from F.

    Args:
      apply: F, maps (c_in y [B, H, W, C], c_noise [B]) to [B, H, W, C].
      preconditioning: a row of `PRECONDITIONINGS`.
      data_std: scalar, model units.
      y: noisy images [B, H, W, C], model units.
      sigma: [B] > 0.

    Raises:
      ValueError: on F of another shape.
    """
    c_skip, c_out = PRECONDITIONINGS[preconditioning](sigma, data_std)
    c_in = 1 / jnp.sqrt(sigma**2 + data_std**2)
    f = apply(per_row(c_in, y) * y, jnp.log(sigma) / 4)
    if jnp.shape(f) != y.shape:  # it would be broadcast
        raise ValueError(f"F must have the shape of y, {y.shape}; the network gave {jnp.shape(f)}.")
    return per_row(c_skip, y) * y + per_row(c_out, y) * f


def loss_weight(preconditioning: str, data_std: jax.Array, sigma: jax.Array) -> jax.Array:
    """1 / c_out^2: the weight under which F's targets have one scale at all levels; like sigma."""
    return 1 / PRECONDITIONINGS[preconditioning](sigma, data_std)[1] ** 2


class NetworkDenoiser(flax.struct.PyTreeNode):
    """A Flax linen module with its variables as a denoiser; `jdiff.train` makes trained ones.

    Attributes:
      variables: the module's variables ({"params": ...}, batch statistics where it has them).
      data_std: scalar, the training data's standard deviation, model units.
      sigmas: the levels it was trained at, [T] decreasing, or None for any.
      module: takes (x [B, H, W, C], c_noise [B], labels, train) and returns [B, H, W, C].
      preconditioning: a row of `PRECONDITIONINGS`.
      image_shape: (H, W, C).
    """

    variables: Any
    data_std: jax.Array
    sigmas: jax.Array | None
    module: nn.Module = flax.struct.field(pytree_node=False)
    preconditioning: str = flax.struct.field(pytree_node=False)
    image_shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)

    @classmethod
    def create(
        cls,
        module: nn.Module,
        variables: Any,
        image_shape: tuple[int, int, int],
        *,
        data_std: float,
        preconditioning: str | None = None,
        sigmas: Any = None,
    ) -> "NetworkDenoiser":
        """Wraps a module and its variables.

        Args:
          module: the network.
          variables: its variables, from `module.init` or from training.
          image_shape: (H, W, C).
          data_std: standard deviation of the training data, model units, > 0.
          preconditioning: a row of `PRECONDITIONINGS`; None takes the module's own default.
          sigmas: levels it is defined at, decreasing, or None for any.

        Warns:
          UserWarning: if a network that is meant to constrain the samples, since its own row is x0
            or it has a bottleneck, is given another.

        Raises:
          ValueError: on an unknown preconditioning or a deviation that is not positive.
        """
        if preconditioning is None:
            preconditioning = default_preconditioning(module)
        made = cls.trained(module, variables, image_shape, data_std, preconditioning, sigmas)
        warn_of_detour(module, preconditioning)
        return made

    @classmethod
    def trained(
        cls,
        module: nn.Module,
        variables: Any,
        image_shape: tuple[int, int, int],
        data_std: float,
        preconditioning: str,
        sigmas: Any,
    ) -> "NetworkDenoiser":
        """As `create`, of a network whose training has given the warning."""
        _check.choice("preconditioning", preconditioning, PRECONDITIONINGS)
        data_std = _check.number("data_std", data_std, above=0)
        levels = None if sigmas is None else jnp.asarray(_check.levels("sigmas", sigmas))
        shape = _check.image_shape("image_shape", image_shape)
        return cls(
            variables, jnp.asarray(data_std, jnp.float32), levels, module, preconditioning, shape
        )

    @property
    def num_classes(self) -> int | None:
        """The module's number of classes, None if it has no labels."""
        return getattr(self.module, "num_classes", None)

    def __call__(
        self, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """The network's estimate, in evaluation mode.

        Args:
          y: noisy images [B, H, W, C], model units.
          sigma: noise level > 0, a scalar or [B].
          labels: int [B] in 0 .. num_classes (the last is the null class), or None.

        Returns:
          x_hat [B, H, W, C].
        """
        check_rows("y", y, self.image_shape)
        sigma = check_sigma(sigma, y)
        apply: Any = functools.partial(self.module.apply, self.variables, labels=labels)
        return precondition(apply, self.preconditioning, self.data_std, y, sigma)


def warn_of_detour(module: nn.Module, preconditioning: str) -> None:
    """Warns where y is led round a network that is meant to constrain the samples."""
    channels = getattr(module, "bottleneck", None)  # of a UNet's middle; True is no number
    narrow = isinstance(channels, int) and not isinstance(channels, bool) and channels > 0
    if (narrow or default_preconditioning(module) == "x0") and preconditioning != "x0":
        warnings.warn(
            f"preconditioning {preconditioning!r} adds c_skip y to the output, so that the noisy "
            f"image goes round {type(module).__name__}, whose bottleneck or width then constrains "
            "the samples no more; with x0 nothing goes round it." + _of_tanh(module),
            stacklevel=3,
        )


def _of_tanh(module: nn.Module) -> str:
    """What to say of a network whose output is bounded where its target is not."""
    if getattr(module, "output", None) != "tanh":
        return ""
    return " Its tanh keeps F in [-1, 1], which the target of F leaves there: take output='linear'."


def default_preconditioning(module: nn.Module) -> str:
    """The row that a network names as its own default; "edm" if it names none."""
    return getattr(module, "preconditioning", "edm")
