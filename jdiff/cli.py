"""The command line: arguments -> dataclass -> one call; no logic of its own."""

import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro

from jdiff import _allocator, parallel
from jdiff.study.config import Architecture, Budget
from jdiff.study.presets import PRESETS
from jdiff.training import TrainConfig

_TRAINING = TrainConfig()
_arguments: list[str] = []  # what this process was called with, for results.json


def study(
    name: Annotated[str, tyro.conf.Positional],
    data: str | None = None,
    architectures: tuple[str, ...] | None = None,
    num_train: tuple[int, ...] | None = None,
    seeds: tuple[int, ...] | None = None,
    budget: str | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    schedule: str | None = None,
    interpret: Annotated[bool | None, tyro.conf.FlagConversionOff] = None,
    num_samples: int | None = None,
    sigmas: str | None = None,
    solver: str | None = None,
    seed: int | None = None,
    sections: tuple[str, ...] | None = None,
    held_out: float | None = None,
    out: Path | None = None,
    data_dir: Path | None = None,
    download: bool = False,
    force: bool = False,
    cache: bool = True,
    distributed: bool = False,
) -> None:
    """Compare architectures on one data set and write a report.

    Trains or fits each architecture, samples all of them from the same noise, measures whether
    the samples are copies, creations or nonsense, and writes OUT/report.html and
    OUT/results.json. Started again, it skips what is done. What is not given is the preset's.

    Args:
        name: A preset: demo compares four architectures, laws holds samples against their
            predicted distribution; unet-changes, mlp-width, preconditioning and locality change one
            thing of a network at a time, over three training seeds. None needs a download but
            unet-changes-28, mlp-width-28 and so on: the same for images of 28 pixels a side, of
            Fashion-MNIST by TFDS unless told otherwise.
        data: digits, npz:PATH, folder:TRAIN,HELD_OUT, tfds:NAME or toy:NAME.
        architectures: Of all but laws: names with options, for example: optimal linear
            unet:width=16,skips=false. More may be added to OUT.
        num_train: Training-set sizes, for example: 100 1000; of laws one.
        seeds: Of all but laws: training seeds of networks.
        budget: Training of each network: tiny, steps:N, seconds:N or flops:N.
        batch_size: Training images a step.
        learning_rate: Of AdamW.
        schedule: Of the learning rate: constant or cosine.
        interpret: True or False: are networks also held against closed forms, and asked how far
            they see?
        num_samples: Samples of each architecture.
        sigmas: Noise levels as GRID:STEPS, for example karras:18.
        solver: ddim, heun, ddpm or dpmpp_2m; of laws those that all its laws know, ddim or heun.
        seed: Of training subsets and of the starting noise.
        sections: Of laws: which parts of the page, for example: star gaussian. More may be added
            to OUT.
        held_out: The share of images to hold out, for data that brings no held-out images.
        out: Where results go; default runs/NAME.
        data_dir: Where TFDS data sets lie.
        download: Let TFDS prepare a data set that is not there (needs TensorFlow).
        force: Start anew, removing what an earlier study wrote into OUT.
        cache: Compiled programs are kept in your cache folder for the next run; this turns it off.
        distributed: This process is one of those of a TPU pod, or of a SLURM, Open MPI or
            Kubernetes job, which all call the same command and share a disk.
    """
    import jdiff
    from jdiff import _check

    chosen = PRESETS[_check.choice("study", name, PRESETS)]
    given = {
        "data": data,
        "architectures": architectures,
        "num_train": num_train,
        "seeds": seeds,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "interpret": interpret,
        "num_samples": num_samples,
        "sigmas": sigmas,
        "solver": solver,
        "seed": seed,
        "sections": sections,
        "held_out": held_out,
    }
    given = {field: value for field, value in given.items() if value is not None}
    if isinstance(chosen, jdiff.study.LawStudy) and num_train is not None:
        if len(num_train) != 1:
            raise ValueError(f"num_train of the study laws is one size; got {num_train}.")
        (given["num_train"],) = num_train
    option = lambda field: f"--{field.replace('_', '-')}"
    taken = [option(field) for field in vars(chosen) if field not in ("name", "claims")]
    for field in given:
        if option(field) not in taken:
            raise ValueError(
                f"study {name} takes no {option(field)}; of what makes a study it takes "
                f"{', '.join(taken)}."
            )
    budget = budget or os.environ.get("JDIFF_BUDGET") or None
    if budget == "tiny":
        chosen = chosen.tiny()
    elif budget is not None:
        given["budget"] = Budget.parse(budget)
    chosen = dataclasses.replace(chosen, **given)
    out = out or Path("runs") / name
    _start(cache, distributed)
    variable = os.environ.get("JDIFF_BUDGET")
    command = shlex.join(["jdiff", *_arguments])
    command = f"JDIFF_BUDGET={variable} {command}" if variable else command
    rows = jdiff.study.run(
        chosen, out, data_dir=data_dir, download=download, force=force, command=command
    )
    if isinstance(chosen, jdiff.study.LawStudy):
        _tell(jdiff.report.laws_table(rows))
    else:
        claims = jdiff.study.claims.of(chosen.claims, [row.record for row in rows])
        _tell(jdiff.report.table(rows, claims))
    _tell(f"\nreport: {out / 'report.html'}")
    failed = [row.label for row in rows if row.failed]
    if failed:
        print(
            f"jdiff: {len(failed)} of {len(rows)} rows failed: {', '.join(failed)}", file=sys.stderr
        )
        sys.exit(1)


def train(
    architecture: Annotated[str, tyro.conf.Positional],
    data: str,
    out: Path,
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = _TRAINING,
    num_train: int | None = None,
    seed: int = 0,
    held_out: float | None = None,
    data_dir: Path | None = None,
    download: bool = False,
    force: bool = False,
    cache: bool = True,
    distributed: bool = False,
) -> None:
    """Train a network, or fit a closed form, into a run directory.

    An interrupted training started again with the same arguments goes on from its last checkpoint.

    Args:
        architecture: A name with options, for example unet:width=32,levels=2 or linear.
        data: digits, npz:PATH, folder:TRAIN,HELD_OUT, tfds:NAME or toy:NAME.
        out: The run directory.
        config: How a network is trained.
        num_train: Train on this many images, drawn by the seed.
        seed: Of the training subset, initialisation and batches.
        held_out: The share of images to hold out, for data that brings no held-out images.
        data_dir: Where TFDS data sets lie.
        download: Let TFDS prepare a data set that is not there (needs TensorFlow).
        force: Remove a run that is there and start anew.
        cache: Compiled programs are kept in your cache folder for the next run; this turns it off.
        distributed: This process is one of those of a TPU pod, or of a SLURM, Open MPI or
            Kubernetes job, which all call the same command and share a disk.
    """
    from jdiff.study import single

    _start(cache, distributed)
    _tell(
        single.train(
            Architecture.parse(architecture),
            data,
            out,
            config,
            num_train=num_train,
            seed=seed,
            data_dir=data_dir,
            download=download,
            force=force,
            held_out=held_out,
        )
    )


def sample(
    run: Annotated[Path, tyro.conf.Positional],
    num: int = 64,
    sigmas: str | None = None,
    solver: str = "heun",
    labels: int | None = None,
    guidance_scale: float | None = None,
    seed: int = 0,
    out: Path | None = None,
    force: bool = False,
    cache: bool = True,
    distributed: bool = False,
) -> None:
    """Sample a trained or fitted run: an npz of samples, and a PNG grid beside it.

    Args:
        run: A run directory, as `jdiff train` and studies make them.
        num: How many samples.
        sigmas: Noise levels as GRID:STEPS; default the run's own levels, else karras:18.
        solver: ddim, heun, ddpm or dpmpp_2m.
        labels: A class for all samples, if the denoiser has classes.
        guidance_scale: Of classifier-free guidance towards that class; 1 is none.
        seed: Of the noise; sample i depends on the seed and i alone.
        out: The npz file; default drawn.npz in the run directory.
        force: Replace a file that is there.
        cache: Compiled programs are kept in your cache folder for the next run; this turns it off.
        distributed: This process is one of those of a TPU pod, or of a SLURM, Open MPI or
            Kubernetes job, which all call the same command and share a disk.
    """
    from jdiff.study import single

    _start(cache, distributed)
    _tell(
        single.sample(
            run,
            num,
            sigmas=sigmas,
            solver=solver,
            labels=labels,
            guidance_scale=guidance_scale,
            seed=seed,
            out=out,
            force=force,
        )
    )


def evaluate(
    run: Annotated[Path | None, tyro.conf.Positional] = None,
    samples: Path | None = None,
    data: str | None = None,
    measures: str | None = None,
    features: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    num: int | None = None,
    sigmas: str | None = None,
    solver: str | None = None,
    value_range: str | None = None,
    num_train: int | None = None,
    held_out: float | None = None,
    seed: int = 0,
    out: Path | None = None,
    data_dir: Path | None = None,
    download: bool = False,
    force: bool = False,
    cache: bool = True,
    distributed: bool = False,
) -> None:
    """Judge samples: copies, creations or nonsense, by every measure beside its control.

    Either a run: jdiff evaluate RUN takes the samples of its study, or draws some. Or samples of
    whatever model: jdiff evaluate --samples PATH --data NAME. Writes evaluation.json and
    evaluation.html into the run, or into OUT.

    Args:
        run: A run directory, as jdiff train and studies make them.
        samples: A .npz with "images" [n, height, width, channels], or a folder of PNG or JPEG
            files.
        data: What the samples are held against: digits, npz:PATH, folder:TRAIN,HELD_OUT, tfds:NAME
            or toy:NAME; of a run what it was trained on.
        measures: Names with commas between, for example memorized_fraction,precision; default all.
        features: A feature space beside pixels, again for each: pca:dim=64, classifier,
            random_conv; default a classifier if the data has labels. pixels takes no other.
        num: Of a run: how many samples to draw, if not those that its study drew.
        sigmas: Of a run: noise levels as GRID:STEPS.
        solver: Of a run: ddim, heun, ddpm or dpmpp_2m.
        value_range: Of float samples: model for [-1, 1], unit for [0, 1], byte for [0, 255].
        num_train: Of samples: a training subset of this size, drawn by the seed.
        held_out: The share of images to hold out, for data that brings no held-out images.
        seed: Of noise, subsets and intervals.
        out: Of samples: where results go; default runs/evaluate-NAME.
        data_dir: Where TFDS data sets lie.
        download: Let TFDS prepare a data set that is not there (needs TensorFlow).
        force: Replace an evaluation that is there.
        cache: Compiled programs are kept in your cache folder for the next run; this turns it off.
        distributed: This process is one of those of a TPU pod, or of a SLURM, Open MPI or
            Kubernetes job, which all call the same command and share a disk.
    """
    import jdiff

    _start(cache, distributed)
    place, found = jdiff.study.evaluate_from(
        run,
        samples,
        data=data,
        names=None if measures is None else measures.split(","),
        features=features or None,
        num=num,
        sigmas=sigmas,
        solver=solver,
        value_range=value_range,
        num_train=num_train,
        held_out=held_out,
        seed=seed,
        out=out,
        data_dir=data_dir,
        download=download,
        force=force,
        command=shlex.join(["jdiff", *_arguments]),
    )
    _tell(f"{found}\n\nreport: {place / 'evaluation.html'}")


def report(directory: Annotated[Path, tyro.conf.Positional]) -> None:
    """Write a study's report.html again from its files.

    Args:
        directory: A study directory, for example runs/demo.
    """
    from jdiff.study import rebuild_report

    print(f"report: {rebuild_report(directory)}")


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line; bad input ends with one line on stderr and status 2."""
    _arguments[:] = sys.argv[1:] if args is None else args
    if args is None:  # a process of its own; called from Python, it leaves the caller's alone
        sys.unraisablehook = _on_unraisable
        _allocator.keep_memory()
    commands: dict[str, Any] = {
        **{"study": study, "train": train, "sample": sample, "evaluate": evaluate},
        "report": report,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="jdiff",
            description="What does a denoiser's architecture make a diffusion model generate: "
            "copies, creations or nonsense?",
            args=args,
            config=(
                tyro.conf.OmitArgPrefixes,
                tyro.conf.PositionalMetavarFromFieldName,
                tyro.conf.FlagCreatePairsOff,  # --force and --no-cache, each without its opposite
                tyro.conf.DisallowNone,  # None is what is not given
            ),
        )
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        print(f"jdiff: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if args is None:
            _leave()
        print(_stopped(), file=sys.stderr)
        sys.exit(130)


def _leave() -> NoReturn:
    """Ends a process that was told to stop.

    Not by sys.exit: where a program was just being compiled, XLA's threads go on with that while
    the interpreter takes down what they use, and the process dies of a segmentation fault. Files
    are written whole and renamed: nothing is left to be done.
    """
    print(_stopped(), file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(130)


def _on_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Stops the process where Python would print a Ctrl-C and go on.

    It does so with what is raised in callbacks of the garbage collector, and JAX has one.
    """
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _leave()
    sys.__unraisablehook__(unraisable)


def _stopped() -> str:
    """What is said of a stop; first a line break, since the cursor stands behind ^C or a bar."""
    if not set(_arguments[:1]) & {"study", "train"}:
        return "\njdiff: stopped."
    first = ", without --force," if "--force" in _arguments else ""
    return f"\njdiff: stopped; the same command{first} goes on from here."


def _one_line(error: Exception) -> str:
    """An error's message without line breaks; the system's own with the file first."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(line.strip() for line in str(error).splitlines())


def _start(cache: bool, distributed: bool) -> None:
    if distributed:
        parallel.join_hosts()
    if cache:
        import jax
        import platformdirs

        folder = platformdirs.user_cache_path("jdiff") / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))


def _tell(text: str) -> None:
    """Prints once, not once a process."""
    if parallel.is_writer():
        print(text)
