"""One network for every noise level, as one denoiser.

    D(y; sigma_t) = D_t(y)

Nothing is shared between levels, so none of the networks needs to be told its sigma: the setting of
Levine and Weiss 2026 (arXiv 2605.16415), where the architecture alone decides what each level does.
"""

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check
from jdiff.denoisers.levels import nearest_level
from jdiff.denoisers.network import NetworkDenoiser
from jdiff.denoisers.protocol import check_rows, check_sigma


class PerLevelDenoiser(flax.struct.PyTreeNode):
    """T networks of one architecture, each used at its own level.

    Attributes:
      networks: a NetworkDenoiser whose arrays are stacked, [T, ...], without levels of its own.
      sigmas: the levels, [T] decreasing.
    """

    networks: NetworkDenoiser
    sigmas: jax.Array

    @classmethod
    def stack(cls, networks: Sequence[NetworkDenoiser]) -> "PerLevelDenoiser":
        """Joins networks that were trained at one level each.

        Args:
          networks: of one architecture, preconditioning and shape, each with one level in `sigmas`,
            decreasing from one to the next.

        Raises:
          TypeError: on something that is no NetworkDenoiser.
          ValueError: on none, other architectures, or levels that are not one each or do not
            decrease.
        """
        if not networks:
            raise ValueError("networks must hold at least one NetworkDenoiser; got none.")
        for number, network in enumerate(networks):
            if not isinstance(network, NetworkDenoiser):
                raise TypeError(
                    f"networks[{number}] must be a NetworkDenoiser; got {type(network).__name__}."
                )
            if network.sigmas is None or np.shape(network.sigmas) != (1,):
                own = None if network.sigmas is None else np.asarray(network.sigmas).tolist()
                raise ValueError(f"networks[{number}] must have one level in sigmas; got {own}.")
        plain = [network.replace(sigmas=None) for network in networks]
        structures = [jax.tree.structure(network) for network in plain]
        shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(network)] for network in plain]
        for number, network in enumerate(plain):
            if structures[number] != structures[0] or shapes[number] != shapes[0]:
                raise ValueError(
                    "networks must be of one module, preconditioning and image shape; got "
                    f"{_names(plain[0])} and, as networks[{number}], {_names(network)}."
                )
        levels = np.concatenate([np.asarray(network.sigmas) for network in networks])
        levels = _check.levels("sigmas of the networks", levels)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *plain)
        return cls(stacked, jnp.asarray(levels))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.networks.image_shape

    @property
    def module(self) -> Any:
        """The linen module that all networks are."""
        return self.networks.module

    @property
    def preconditioning(self) -> str:
        """The row of the table of preconditionings."""
        return self.networks.preconditioning

    @property
    def num_classes(self) -> int | None:
        """The module's number of classes, None if it has no labels."""
        return self.networks.num_classes

    def __call__(
        self, y: jax.Array, sigma: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """The estimate of the network whose level is nearest to sigma, in the log.

        Args:
          y: noisy images [B, H, W, C], model units.
          sigma: one of `sigmas`, a scalar or [B].
          labels: int [B] in 0 .. num_classes (the last is the null class), or None.

        Returns:
          x_hat [B, H, W, C].
        """
        check_rows("y", y, self.image_shape)
        if jnp.ndim(sigma) == 0:
            return self._at(sigma, y, labels)
        # A level a row: gathering the weights for every row would cost as many copies of them.
        rows = (check_sigma(sigma, y), y[:, None], None if labels is None else labels[:, None])
        return jax.lax.map(lambda row: self._at(*row)[0], rows)

    def _at(self, sigma: Any, y: jax.Array, labels: jax.Array | None) -> jax.Array:
        level = nearest_level(self.sigmas, sigma)
        network = jax.tree.map(lambda leaf: leaf[level], self.networks)
        return network(y, self.sigmas[level], labels)


def _names(network: NetworkDenoiser) -> str:
    module = " ".join(str(network.module).split())  # linen prints an attribute a line
    return f"{module} ({network.preconditioning}, {network.image_shape})"
