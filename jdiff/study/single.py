"""One architecture alone: trained or fitted into a run directory, and sampled from it."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdiff import _check, _files, data, noise, parallel, report, sampling, training
from jdiff.denoisers import Denoiser, guide
from jdiff.denoisers.protocol import check_levels
from jdiff.study.config import Architecture
from jdiff.study.saved import load, save
from jdiff.training import TrainConfig
from jdiff.training.loop import deviation
from jdiff.training.rundir import RunDirectory


def train(
    architecture: Architecture,
    spec: str,
    out: str | os.PathLike,
    config: TrainConfig,
    *,
    num_train: int | None = None,
    seed: int = 0,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    force: bool = False,
    held_out: float | None = None,
) -> str:
    """Trains a network or fits a closed form; returns a line that says what was done.

    Args:
      architecture: what.
      spec: a data set, as `jdiff.data.load` reads it.
      out: the run directory.
      config: how a network is trained; a preconditioning that the architecture names goes first. Of
        an architecture with per_level every level's network is trained so.
      num_train: how many training images, drawn by the seed; None takes all.
      seed: of the subset, initialisation and batches.
      data_dir: where TFDS data sets lie.
      download: whether TFDS may prepare a data set that is not there.
      force: removes a run that is there.
      held_out: the share of images to hold out of a data set that brings none.

    Raises:
      ValueError: on what cannot be loaded, built or trained, or a run of another configuration.
    """
    _check.integer("seed", seed, minimum=0)
    _files.refuse_file("out", out)
    images = data.load(spec, data_dir=data_dir, download=download, held_out=held_out)
    key = jax.random.key(seed, impl="threefry2x32")
    if num_train is not None:
        images = images.subset(num_train, key)
    # What cannot be fitted or built fails here, before an old run is removed.
    if architecture.closed_form and config != TrainConfig():
        raise ValueError(
            f"{architecture.name} is fitted, not trained: it takes no training options."
        )
    denoiser = architecture.fit(images, seed=seed) if architecture.closed_form else None
    network: Any = None
    grid = None if architecture.per_level is None else noise.parse_grid(architecture.per_level)
    if denoiser is None:
        network = architecture.network(images.image_shape)
        training.check_arguments(network, images, config, key)
        deviation(images)
        config = _with_preconditioning(config, architecture)
        if grid is not None:
            training.check_noise(config)
    if force and (Path(out) / "config.json").exists() and parallel.is_writer():
        RunDirectory(out).config()  # a run, and of this version: nothing else is removed
        shutil.rmtree(out)
    parallel.wait_for_all("train")
    if denoiser is not None:
        described = {
            "architecture": architecture.label,
            "data": {
                "name": images.name,
                "num_train": images.num_train,
                "fingerprint": images.fingerprint(),
            },
            "seed": seed,
        }
        parallel.on_writer(lambda: save(out, denoiser, described))
        return f"fitted {architecture.label} to {images.num_train} images: {out}"
    options: Any = {"key": key, "run_dir": out}
    if grid is None:
        result = training.train(network, images, config, **options)
    else:
        result = training.train_levels(network, images, config, grid, **options)
    loss = np.mean(result.history["loss"][-50:])
    held_out_loss = result.history["held_out_loss"][-1]
    each = "" if grid is None else " a level"
    return (
        f"trained {architecture.label} for {config.steps} steps{each} on {images.num_train} "
        f"images: loss {loss:.4g}, held out {held_out_loss:.4g}; {out}"
    )


def _with_preconditioning(config: TrainConfig, architecture: Architecture) -> TrainConfig:
    named = architecture.preconditioning
    if None not in (named, config.preconditioning) and named != config.preconditioning:
        raise ValueError(
            f"preconditioning is {named!r} in {architecture.label} and {config.preconditioning!r} "
            "beside it: give one of them."
        )
    return config if named is None else dataclasses.replace(config, preconditioning=named)


def sample(
    run_dir: str | os.PathLike,
    num: int,
    *,
    sigmas: str | None = None,
    solver: str = "heun",
    labels: int | None = None,
    guidance_scale: float | None = None,
    seed: int = 0,
    out: str | os.PathLike | None = None,
    force: bool = False,
) -> str:
    """Samples a run into an npz, with a PNG grid beside it; returns a line with their paths.

    Args:
      run_dir: a trained or fitted run.
      num: how many samples.
      sigmas: GRID:STEPS; None is the denoiser's own levels, else karras:18.
      solver: a solver's name.
      labels: one class for all, or None.
      guidance_scale: of classifier-free guidance, which needs labels; 1 is none.
      seed: of the noise.
      out: the npz; None is drawn.npz in the run directory.
      force: replaces files that are there.

    Raises:
      FileNotFoundError, ValueError: if the run cannot be loaded or sampled so.
      FileExistsError: if `out` is there and `force` is not given.
    """
    _check.integer("seed", seed, minimum=0)
    out = Path(run_dir) / "drawn.npz" if out is None else Path(out)
    if out.suffix != ".npz":
        raise ValueError(f"out must be a .npz file; got {out}.")
    picture = out.with_suffix(".png")
    taken = [str(path) for path in (out, picture) if path.exists()]
    if taken and not force:
        raise FileExistsError(f"out {taken[0]} is there already; choose another --out, or --force.")
    denoiser = load(run_dir)
    if guidance_scale is not None:
        denoiser = guide(denoiser, guidance_scale)
    grid = grid_of(denoiser, sigmas)
    key = jax.random.key(seed, impl="threefry2x32")
    images = sampling.sample(denoiser, key, num, sigmas=grid, solver=solver, labels=labels)
    if not bool(np.all(np.isfinite(np.asarray(images)))):
        bad = int(np.sum(~np.isfinite(np.asarray(images)).all((1, 2, 3))))
        raise FloatingPointError(f"{bad} of {num} samples are not finite; nothing was written.")
    if parallel.is_writer():
        given = None if labels is None else np.full(num, labels, np.int32)
        known = {"seed": seed, "solver": solver, "guidance_scale": guidance_scale}
        _files.write_arrays(out, images=images, labels=given, sigmas=grid, **known)
    h, w, c = denoiser.image_shape
    if h * w == 1 or c not in (1, 3):
        return f"{num} samples: {out}"
    if parallel.is_writer():
        report.write_grid(picture, images)
    return f"{num} samples: {out}, {picture}"


def grid_of(denoiser: Denoiser, sigmas: str | None) -> np.ndarray:
    """The grid [T + 1] asked for as GRID:STEPS; None is the denoiser's own levels, or karras:18.

    Raises:
      ValueError: on levels that a form which differs from level to level was not fitted at, saying
        which were, and how others are.
    """
    own = denoiser.sigmas
    if sigmas is None and own is not None:
        return np.append(np.asarray(own), np.float32(0))
    name = sigmas or "karras:18"
    grid = noise.parse_grid(name)
    try:
        check_levels(denoiser, grid)
    except ValueError:
        fitted = ", ".join(f"{sigma:.4g}" for sigma in np.asarray(denoiser.sigmas))
        raise ValueError(
            f"sigmas {name} asks for levels that this {type(denoiser).__name__} was not fitted at; "
            f"it was at {fitted}. Leave --sigmas out to sample at these, or make another run: a "
            f"closed form with the option sigmas={name}, networks with per_level={name}."
        ) from None
    return grid
