"""One network for every noise level, trained in turn.

    D_t = argmin E || D(x + sigma_t z; sigma_t) - x ||^2        for each level sigma_t of a grid

by the loop of loop.py, once a level, on one compiled program: the level is an argument of it. A run
directory holds a run for each level in levels/, which is resumed like any other.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jdiff import _check, parallel
from jdiff.data import ImageData
from jdiff.denoisers import PerLevelDenoiser
from jdiff.denoisers.network import default_preconditioning
from jdiff.training.loop import TrainResult, check_arguments, describe_run, deviation, train
from jdiff.training.rundir import RunDirectory
from jdiff.training.state import TrainConfig

# Folded into the user's key first. 0 is training's, 1 the sampler's, 2 random features', 3 random
# windows'.
LEVELS = 4
KIND = "levels"


def train_levels(
    network: nn.Module,
    data: ImageData,
    config: TrainConfig | None,
    sigmas: Any,
    *,
    key: jax.Array,
    run_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> TrainResult:
    """Trains one network for every noise level.

    Args:
      network: a linen module, as `train` takes it; all levels have this architecture.
      data: images and held-out images.
      config: how each of them is trained, its steps and noise among it: `steps` are those of one
        level, `noise` must be left alone; None takes the defaults of `TrainConfig`.
      sigmas: the levels, decreasing (a closing 0 is left off), model units.
      key: typed threefry key; every level has an own initialisation and own batches.
      run_dir: where the levels' runs go; interrupted, it goes on where it stopped. None keeps
        nothing.
      progress: shows a progress bar a level on stderr.

    Returns:
      A `TrainResult`: its denoiser is a `PerLevelDenoiser`, its history the mean over the levels at
      each step (and "level_loss" [T, steps], "level_held_out_loss" [T, evaluations]), its seconds
      sums over the levels.

    Raises:
      TypeError, ValueError, FloatingPointError: as `train`; on sigmas that are no levels; on a
        config that names a noise.

    Example:
      >>> import jdiff
      >>> data = jdiff.data.load("toy:gaussian_2d")
      >>> network = jdiff.networks.create("mlp", data.image_shape, width=8, depth=1)
      >>> config = TrainConfig(steps=2, batch_size=8, warmup=0)
      >>> result = train_levels(
      ...     network, data, config, [1.0, 0.1], key=jax.random.key(0), progress=False
      ... )
      >>> [round(sigma, 3) for sigma in result.denoiser.sigmas.tolist()]
      [1.0, 0.1]
    """
    config = TrainConfig() if config is None else config
    check_arguments(network, data, config, key)
    levels = _check.levels("sigmas", sigmas)
    check_noise(config)
    preconditioning = config.preconditioning or default_preconditioning(network)
    run = None
    if run_dir is not None:
        run = RunDirectory(run_dir)
        described = describe_run(network, data, config, preconditioning, deviation(data), key)
        described |= {"kind": KIND, "sigmas": levels.tolist()}
        parallel.on_writer(lambda: run.claim(described))
    results = []
    for number, level in enumerate(levels):
        results.append(
            train(
                network,
                data,
                dataclasses.replace(config, noise=float(level)),
                key=jax.random.fold_in(jax.random.fold_in(key, LEVELS), number),
                run_dir=None if run_dir is None else level_dir(run_dir, number),
                progress=progress,
            )
        )
    history = _mean_history([result.history for result in results])
    if run is not None:
        parallel.on_writer(lambda: run.replace(_lines(history)))
    rates = [result.images_per_s for result in results if result.images_per_s is not None]
    return TrainResult(
        PerLevelDenoiser.stack([result.denoiser for result in results]),
        history,
        {name: sum(r.seconds[name] for r in results) for name in results[0].seconds},
        float(np.mean(rates)) if rates else None,
    )


def check_noise(config: TrainConfig) -> None:
    """Refuses a config that names noise levels, where those of networks are named beside it."""
    if config.noise != TrainConfig.noise:
        raise ValueError(
            f"config.noise must be left at its default, since sigmas name the levels; got "
            f"{config.noise!r}."
        )


def level_dir(run_dir: str | os.PathLike, number: int) -> Path:
    """Where the run of level `number` lies, from 0, the noisiest."""
    return Path(run_dir) / KIND / f"{number:03d}"


def _mean_history(histories: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Learning curves averaged over the levels, which all have the same steps."""
    stacked = {name: np.stack([h[name] for h in histories]) for name in histories[0]}
    return {
        "step": stacked["step"][0],
        "loss": stacked["loss"].mean(0),
        "held_out_step": stacked["held_out_step"][0],
        "held_out_loss": stacked["held_out_loss"].mean(0),
        "level_loss": stacked["loss"],
        "level_held_out_loss": stacked["held_out_loss"],
    }


def _lines(history: dict[str, np.ndarray]) -> list[dict]:
    """The averaged curves as lines of metrics.jsonl."""
    pair = lambda step, loss: zip(history[step], history[loss], strict=True)
    losses = [{"step": int(s), "loss": float(v)} for s, v in pair("step", "loss")]
    held_out = pair("held_out_step", "held_out_loss")
    return losses + [{"step": int(s), "held_out_loss": float(v)} for s, v in held_out]
