"""`jdiff evaluate` of a run, or of samples that somebody else's model left in a file or folder.

Finds the samples and the data that they are held against, and writes evaluation.json,
evaluation.npz (what the figures draw) and evaluation.html.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check, _files, data, parallel, report, sampling
from jdiff.data import ImageData
from jdiff.denoisers import Denoiser
from jdiff.metrics import inputs
from jdiff.study import files
from jdiff.study.config import LEAST_SAMPLES
from jdiff.study.evaluate import Evaluation, evaluate
from jdiff.study.measures import check_names
from jdiff.study.row import NOISE, SUBSET
from jdiff.study.saved import load
from jdiff.study.single import grid_of
from jdiff.training.rundir import RunDirectory

NAMES = ("evaluation.json", "evaluation.npz", "evaluation.html")
# Of float images: [-1, 1], [0, 1] and [0, 255].
RANGES = ("model", "unit", "byte")
# What the 1 and 99 % quantiles of unclipped samples in each range are like.
_LOOKS = {
    "model": lambda low, high: -4 <= low <= -0.25 and high <= 4,
    "unit": lambda low, high: -0.25 < low and high <= 1.5,
    "byte": lambda low, high: -30 <= low and 4 < high <= 300,
}


def evaluate_from(
    run: str | os.PathLike | None,
    samples: str | os.PathLike | None,
    *,
    data: str | None,
    out: str | os.PathLike | None,
    num: int | None,
    sigmas: str | None,
    solver: str | None,
    value_range: str | None,
    num_train: int | None,
    **common: Any,
) -> tuple[Path, Evaluation]:
    """Evaluates a run or samples, whichever is given, as the command line names them.

    Returns:
      The directory that was written to, and what was found.

    Raises:
      ValueError: if both or neither are given, or an option of the other kind.
    """
    if (run is None) == (samples is None):
        raise ValueError(
            "one of RUN and --samples must be given: jdiff evaluate RUN, or jdiff evaluate "
            f"--samples PATH --data NAME; got {'neither' if run is None else 'both'}."
        )
    of_run = {"num": num, "sigmas": sigmas, "solver": solver}
    of_samples = {"value_range": value_range, "num_train": num_train, "out": out}
    wrong = of_samples if samples is None else of_run
    for name, value in wrong.items():
        if value is not None:
            kind = "--samples" if wrong is of_samples else "a run, which is sampled anew"
            option = name.replace("_", "-")
            raise ValueError(f"--{option} is for {kind}; got {value}.")
    if run is not None:
        return Path(run), evaluate_run(run, spec=data, **of_run, **common)
    assert samples is not None
    if data is None:
        raise ValueError("--data must name what the model behind --samples was trained on.")
    out = Path("runs") / f"evaluate-{Path(samples).stem}" if out is None else Path(out)
    found = evaluate_samples(
        samples, data, out, value_range=value_range, num_train=num_train, **common
    )
    return out, found


def evaluate_run(
    run_dir: str | os.PathLike,
    *,
    num: int | None = None,
    sigmas: str | None = None,
    solver: str | None = None,
    spec: str | None = None,
    held_out: float | None = None,
    names: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    seed: int = 0,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    force: bool = False,
    progress: bool = True,
    command: str | None = None,
) -> Evaluation:
    """Evaluates a trained or fitted run into its directory.

    Samples are those that a study drew for it (samples.npz), unless num, sigmas or solver say how
    to draw others.

    Args:
      run_dir: a run, as `jdiff train` and studies make them.
      num: how many samples to draw, at least 20; 1,000 if there are none yet.
      sigmas: GRID:STEPS; None is the denoiser's own levels, else karras:18.
      solver: a solver's name; None is heun.
      spec: the data it was trained on; None is what the run says.
      held_out: the share of images to hold out, for data that brings none.
      names: which measures; None takes all.
      features: feature spaces beside pixels; None chooses one.
      seed: of the samples' noise, and of the measures.
      data_dir: where TFDS data sets lie.
      download: whether TFDS may prepare a data set that is not there.
      force: replaces an evaluation that is there.
      progress: whether what is being done is told on stderr.
      command: how it was called, for the record.

    Raises:
      FileNotFoundError, ValueError: if the run or its data cannot be loaded, or the data is not
        what it was trained on.
      FileExistsError: if there is an evaluation and `force` is not given.
    """
    run = Path(run_dir)
    config = RunDirectory(run).config()
    _refuse_taken(run, force)
    check_names(names, True)
    num = None if num is None else _check.integer("num", num, minimum=LEAST_SAMPLES)
    denoiser = load(run)
    images = _trained_on(run, config, spec, held_out, data_dir, download)
    drawn = run / "samples.npz"
    if num is None and sigmas is None and solver is None and drawn.exists():
        arrays = files.read_arrays(drawn, "images", "sigmas", "seed", "solver")
        samples, grid = arrays["images"], arrays["sigmas"]
        solver, drawn_by = str(arrays["solver"]), int(arrays["seed"])
        # As a study draws them.
        key = jax.random.fold_in(jax.random.key(drawn_by, impl="threefry2x32"), NOISE)
        num, source = len(samples), drawn.name
    else:
        source, solver, drawn_by = "drawn for this evaluation", solver or "heun", seed
        grid = grid_of(denoiser, sigmas)
        key, samples = jax.random.key(seed, impl="threefry2x32"), None
        num = 1000 if num is None else num

    def draw(other: Denoiser) -> np.ndarray:
        return np.asarray(sampling.sample(other, key, num, sigmas=grid, solver=solver))

    found = evaluate(
        draw(denoiser) if samples is None else samples, images, denoiser, names=names,
        features=features, title=_title(config, run), cache_dir=run, seed=seed, redraw=draw,
        progress=progress,
    )  # fmt: skip
    about = {"source": source, "solver": solver, "seed": drawn_by, "steps": len(grid) - 1}
    return _written(run, found, about, command)


def evaluate_samples(
    path: str | os.PathLike,
    spec: str,
    out: str | os.PathLike,
    *,
    value_range: str | None = None,
    num_train: int | None = None,
    held_out: float | None = None,
    names: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    seed: int = 0,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    force: bool = False,
    progress: bool = True,
    command: str | None = None,
) -> Evaluation:
    """Evaluates samples that lie in a file or a folder, made by whatever model.

    Args:
      path: an npz with "images" [n, H, W, C], or a folder of PNG or JPEG files.
      spec: what the model was trained on, as `jdiff.data.load` reads it.
      out: the directory to write to; made if need be.
      value_range: of float images: "model" [-1, 1], "unit" [0, 1] or "byte" [0, 255]; None takes
        "model", and refuses floats that look like another.
      num_train: a training subset, drawn by the seed; None takes all.
      held_out: the share of images to hold out, for data that brings none.
      names: which measures; None takes all.
      features: feature spaces beside pixels; None chooses one.
      seed: of the training subset and of the measures.
      data_dir: where TFDS data sets lie.
      download: whether TFDS may prepare a data set that is not there.
      force: replaces an evaluation that is there.
      progress: whether what is being done is told on stderr.
      command: how it was called, for the record.

    Raises:
      FileNotFoundError, ValueError: if samples or data cannot be read, or do not fit.
      FileExistsError: if there is an evaluation in `out` and `force` is not given.
    """
    _files.refuse_file("out", out)
    out, path = Path(out), Path(path)
    _refuse_taken(out, force)
    check_names(names, False)
    samples = _ranged(read_samples(path), value_range)
    images = data.load(spec, data_dir=data_dir, download=download, held_out=held_out)
    if num_train is not None:
        images = images.subset(num_train, jax.random.key(seed, impl="threefry2x32"))
    found = evaluate(
        samples, images, names=names, features=features, title=path.name, cache_dir=out, seed=seed,
        progress=progress,
    )  # fmt: skip
    return _written(out, found, {"source": path.name}, command)


def read_samples(path: str | os.PathLike) -> np.ndarray:
    """Images of an npz ("images") or of a folder of PNG or JPEG files, as they are.

    Raises:
      FileNotFoundError: if there is nothing.
      ValueError: on an npz without "images", an empty folder, images of mixed sizes, other files.
    """
    path = Path(path)
    if path.is_dir():
        return data.read_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"samples {path} is neither a file nor a folder.")
    if path.suffix != ".npz":
        raise ValueError(f"samples must be a .npz file or a folder of images; got {path}.")
    try:
        arrays = _files.read_arrays(path)
    except Exception as error:  # zip and NumPy errors
        kind = type(error).__name__
        raise ValueError(f"samples {path} cannot be read as an npz file ({kind}).") from error
    if "images" not in arrays:
        raise ValueError(f"samples {path} must hold 'images'; it holds {', '.join(arrays)}.")
    return arrays["images"]


def _ranged(images: np.ndarray, value_range: str | None) -> np.ndarray:
    """Images in model units, or uint8, whatever range their floats have."""
    if value_range is not None:
        _check.choice("value_range", value_range, RANGES)
    if images.dtype == np.uint8:
        if value_range not in (None, "byte"):
            raise ValueError(f"value_range of uint8 samples is byte; got {value_range}.")
        return images
    if images.ndim != 4 or not np.issubdtype(images.dtype, np.floating) or 0 in images.shape:
        return inputs.samples("samples", images)  # says what is wrong
    images = images.astype(np.float32, copy=False)
    if not np.isfinite(images).all() or images.shape[1] * images.shape[2] == 1:
        return images  # points have no range; what is not finite is counted later
    # Samples are unclipped: where most values lie tells the range, and a few lie outside.
    low, high = np.quantile(images[: max(1, 2**22 // images[0].size)], (0.01, 0.99))
    likely = [name for name, looks in _LOOKS.items() if looks(low, high)]
    if value_range is None and "model" not in likely:
        guess = f" ({likely[0]}, it seems)" if likely else ""
        raise ValueError(
            f"samples are floats of which most lie in [{low:.3g}, {high:.3g}]: say by value_range "
            f"what their range is{guess}: model for [-1, 1], unit for [0, 1], byte for [0, 255]."
        )
    if value_range in ("unit", "byte") and value_range not in likely:
        wanted = "[0, 1]" if value_range == "unit" else "[0, 255]"
        raise ValueError(
            f"samples must mostly lie in {wanted} for value_range {value_range}; most lie in "
            f"[{low:.3g}, {high:.3g}]."
        )
    scale = {"unit": 2.0, "byte": 1 / 127.5}.get(value_range or "model")
    return images if scale is None else images * np.float32(scale) - 1


def _refuse_taken(directory: Path, force: bool) -> None:
    taken = [directory / name for name in NAMES if (directory / name).exists()]
    if taken and not force:
        raise FileExistsError(f"{taken[0]} is there already; --force replaces it.")


def _title(config: dict, run: Path) -> str:
    named = config.get("architecture")
    if isinstance(named, str):
        return named
    if isinstance(named, dict) and "class" in named:
        return f"{named['class'].rpartition('.')[2]} ({run.name})"
    return run.name


def _trained_on(
    run: Path,
    config: dict,
    spec: str | None,
    held_out: float | None,
    data_dir: str | os.PathLike | None,
    download: bool,
) -> ImageData:
    """The data that a run was trained on, its subset too, proved by the fingerprint.

    Raises:
      ValueError: if it cannot be found again.
    """
    described = config.get("data")
    if not isinstance(described, dict) or not {"name", "num_train", "fingerprint"} <= set(
        described
    ):
        raise ValueError(f"{run / 'config.json'} does not say what data the run was made from.")
    file = run.parent.parent / "study.json"  # of the study that it belongs to
    study = _files.read_object(file, study=dict)["study"] if file.exists() else {}
    spec = str(spec or study.get("data") or described["name"])
    held_out = study.get("held_out") if held_out is None else held_out
    whole = data.load(spec, data_dir=data_dir, download=download, held_out=held_out)
    number, wanted = described["num_train"], described["fingerprint"]
    if whole.fingerprint() == wanted:
        return whole
    for key in _subset_keys(config, study) if number < whole.num_train else ():
        part = whole.subset(number, key)
        if part.fingerprint() == wanted:
            return part
    raise ValueError(
        f"data {spec} is not what {run} was made from (its fingerprint is {whole.fingerprint()}, "
        f"the run's {wanted}): give the right --data, --data-dir and --held-out."
    )


def _subset_keys(config: dict, study: dict) -> list[jax.Array]:
    """Keys that a subset may have been drawn by: the study's, or the run's own."""
    key = functools.partial(jax.random.key, impl="threefry2x32")
    keys = []
    if isinstance(study.get("seed"), int):
        keys.append(jax.random.fold_in(key(study["seed"]), SUBSET))
    if isinstance(config.get("seed"), int):
        keys.append(key(config["seed"]))
    if isinstance(config.get("key"), list):
        data = jnp.asarray(config["key"], jnp.uint32)
        keys.append(jax.random.wrap_key_data(data, impl="threefry2x32"))
    return keys


def _written(out: Path, found: Evaluation, samples: dict, command: str | None) -> Evaluation:
    record = {**found.record, "samples": {**found.record["samples"], **samples}}
    record["command"] = command
    whole = dataclasses.replace(found, record=_files.plain(record))
    if parallel.is_writer():
        out.mkdir(parents=True, exist_ok=True)
        _files.write_json(out / NAMES[0], whole.record)
        _files.write_arrays(out / NAMES[1], **whole.arrays)
        report.write_evaluation(out / NAMES[2], whole.record, whole.arrays)
    return whole
