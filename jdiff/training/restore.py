"""A trained denoiser from the files of its run: one network, or one a noise level."""

import dataclasses
import os
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jdiff._files import plain
from jdiff.denoisers import NetworkDenoiser, PerLevelDenoiser
from jdiff.training.checkpoints import Checkpoints
from jdiff.training.levels import level_dir
from jdiff.training.rundir import RunDirectory, describe_module, differences
from jdiff.training.state import TrainConfig
from jdiff.training.step import programs


def restore(run_dir: str | os.PathLike, network: nn.Module) -> NetworkDenoiser:
    """The network of a run with the averaged weights of its newest undamaged checkpoint.

    Args:
      run_dir: what `train` was given.
      network: the module that was trained.

    Raises:
      FileNotFoundError: if the run has no checkpoint.
      ValueError: if the run trained another network, naming both.
    """
    run = RunDirectory(run_dir)
    described = run.config()
    trained = described["architecture"]
    if isinstance(trained.get("options"), dict):  # one that an older version had not is its default
        trained = {**trained, "options": {**_defaults(network), **trained["options"]}}
    different = differences(trained, plain(describe_module(network)))
    if different:
        raise ValueError(
            f"network is not the one that the run in {run.path} trained: {'; '.join(different)}."
        )
    config = TrainConfig(**described["train"])
    image_shape = tuple(described["image_shape"])
    shapes = jax.eval_shape(programs(network, config, image_shape).init, jax.random.key(0))
    if not run.checkpoints.exists():
        raise FileNotFoundError(f"run_dir {run.path} has no checkpoint yet.")
    checkpoints = Checkpoints(run.checkpoints, read_only=True)
    try:
        found = checkpoints.restore(jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes))
    finally:
        checkpoints.close()
    if found is None:
        raise FileNotFoundError(f"run_dir {run.path} has no checkpoint yet.")
    variables = jax.tree.map(jnp.asarray, found[1].ema)
    data_std, preconditioning = described["data"]["std"], described["preconditioning"]
    return NetworkDenoiser.trained(
        network, variables, image_shape, data_std, preconditioning, config.sigmas
    )


def restore_levels(run_dir: str | os.PathLike, network: nn.Module) -> PerLevelDenoiser:
    """The networks of a run of `train_levels`, each from its newest undamaged checkpoint.

    Args:
      run_dir: what `train_levels` was given.
      network: the module that was trained.

    Raises:
      FileNotFoundError: if a level has no checkpoint yet.
      ValueError: if the run trained another network, naming both.
    """
    sigmas = RunDirectory(run_dir).config()["sigmas"]
    networks = [restore(level_dir(run_dir, number), network) for number in range(len(sigmas))]
    return PerLevelDenoiser.stack(networks)


def _defaults(network: nn.Module) -> dict[str, Any]:
    """The options of a module that have a default, as config.json holds them."""
    fields = dataclasses.fields(network)
    known = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    return plain({k: v for k, v in known.items() if k in describe_module(network)["options"]})
