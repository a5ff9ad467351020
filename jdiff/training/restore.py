"""A trained denoiser from the files of its run."""

import os

import flax.linen as nn
import jax
import numpy as np

from jdiff._files import plain
from jdiff.denoisers.network import NetworkDenoiser
from jdiff.training.checkpoints import Checkpoints
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
    different = differences(described["architecture"], plain(describe_module(network)))
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
    return NetworkDenoiser.create(
        network,
        jax.tree.map(jax.numpy.asarray, found[1].ema),
        image_shape,
        data_std=described["data"]["std"],
        preconditioning=described["preconditioning"],
        sigmas=config.sigmas,
    )
