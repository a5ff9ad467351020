"""What does speed buy: copies, creations or nonsense?

Every architecture at one budget on one data set, sampled from one noise: throughput of training and
sampling beside memorization, novelty, realism and the verdict, over three training seeds. It is
`jdiff.study` that runs it, and so a killed run goes on from its last row and a failing network
stops no other; each row here is one architecture, its numbers the mean and the range over seeds.
Of networks it also tells the share of the device's peak (MFU) that training and sampling reach.
"""

import dataclasses
import functools
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import jdiff
from benchmarks import hardware, record, suite
from benchmarks.images import load
from benchmarks.suite import Case, Skip
from jdiff import parallel, report
from jdiff.study import Budget, Study, cost


def _architectures(levels: int) -> tuple[str, ...]:
    unets = (f"width=16,levels={levels}", f"width=16,levels={levels},skips=false")
    return (
        *("optimal", "linear", "local_linear:patch_size=3", "bottleneck:code_dim=8"),
        *(f"unet:{options}" for options in (*unets, f"width=4,levels={levels}")),
        *("paper_unet:width=16,levels=2", "resnet:width=32,depth=2"),
        *("mlp:width=32", "mlp:width=200", "mlp:width=400", "bottleneck_mlp"),
    )


ARCHITECTURES = _architectures(levels=2)
LARGE = _architectures(levels=3)  # of images of 28 pixels a side and more
_UNFINISHED = ".unfinished"
FEW = ("optimal", "linear", "unet:width=16,levels=2", "mlp:width=32", "mlp:width=400")
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {
        "digits": {
            "architectures": (
                *("optimal", "linear", "unet:width=4,levels=1", "mlp:width=32,depth=2"),
            ),
            **{"num_train": (100,), "seeds": (0,), "budget": Budget(20), "num_samples": 40},
            **{"sigmas": "karras:4", "batch_size": 32},
        },
    },
    "cpu": {
        "digits": {"num_train": (300,), "budget": Budget(1000)},
        # As the studies of 28 pixels have it. Small batches: of as many images, more steps.
        "tfds:fashion_mnist": {
            **{"architectures": LARGE, "num_train": (300,), "budget": Budget(1200)},
            **{"batch_size": 16, "schedule": "cosine"},
        },
    },
    # What compiles within minutes there; all of `ARCHITECTURES` by --architectures.
    "accelerator": {
        "digits": {"architectures": FEW, "num_train": (300,), "budget": Budget(3000)},
    },
    "pod": {
        "tfds:cifar10": {
            **{"architectures": LARGE, "num_train": (1000, 10_000), "budget": Budget(50_000)},
            "batch_size": 1024,
        },
    },
}
_COMMON: dict[str, Any] = {
    **{"architectures": ARCHITECTURES, "seeds": (0, 1, 2), "batch_size": 64, "num_samples": 256},
}


def cases(size: str, options: Any) -> list[Case]:
    """One study a data set; `--data`, `--architectures`, `--budget` and `--seeds` change it.

    Raises:
      ValueError: on what could not be run, before anything is.
    """
    studies = SIZES[size]
    if options.data is not None:
        first = next(iter(studies.values()))
        studies = {options.data: studies.get(options.data, first)}
    asked = {
        "architectures": options.architectures,
        "seeds": options.seeds,
        "budget": None if options.budget is None else Budget.parse(options.budget),
    }
    given = {name: value for name, value in asked.items() if value}
    made = [suite.peak(size)]
    for data, fields in studies.items():
        study = Study(name="frontier", data=data, **{**_COMMON, **fields, **given})
        try:
            whole = load(data, options.data_dir)
        except (ValueError, FileNotFoundError) as error:
            if options.data is not None:  # what was asked for by name is not left out in silence
                raise
            run = functools.partial(_lacks, f"{error} Say where it lies with --data-dir.")
        else:
            _check(study, whole)
            numbers = [n if n is None else min(n, whole.num_train) for n in study.num_train]
            study = dataclasses.replace(study, num_train=tuple(dict.fromkeys(numbers)))
            run = functools.partial(_frontier, study, size, options)
        made.append(Case(data, run))
    return made


def _lacks(reason: str) -> list[dict[str, Any]]:
    raise Skip(reason)


def _check(study: Study, data: jdiff.data.ImageData) -> None:
    """Refuses architectures that cannot be built and budgets that do not buy them a step."""
    for architecture in study.parsed():
        architecture.check(data)
        # Seconds are timed, which is left to the study.
        if not architecture.closed_form and study.budget.unit != "seconds":
            cost.steps_each(study.budget, architecture, data, study.batch_size)


def _frontier(study: Study, size: str, options: Any) -> list[dict[str, Any]]:
    head = record.head("frontier", size, {})
    directory = folder(options.work, study, head)
    rows = jdiff.study.run(
        study, directory, data_dir=options.data_dir, progress=options.progress,
        command=head["command"],
    )  # fmt: skip
    about = {
        **{"data": study.data, "budget": dataclasses.asdict(study.budget)},
        **{"batch": study.batch_size, "schedule": study.schedule},
        **{"solver": study.solver, "sigmas": study.sigmas},
    }
    peak = hardware.matmul_peak(size)
    found = [{"part": one.name, **about, **_row(one, peak)} for one in report.group(rows)]
    # Finished: asked again, it is measured again.
    done = directory.with_name(directory.name.removesuffix(_UNFINISHED))
    parallel.on_writer(lambda: _move(directory, done))
    return found


def _move(directory: Path, done: Path) -> None:
    shutil.rmtree(done, ignore_errors=True)
    directory.rename(done)


def folder(work: Path, study: Study, head: dict[str, Any]) -> Path:
    """Where an unfinished frontier lies: a killed call of the same study, code and device goes on.

    Its name without the ending is where it lies when finished, with its samples and page.
    """
    of = {name: head[name] for name in ("device", "versions", "flags", "commit")}
    text = json.dumps([dataclasses.asdict(study), of], sort_keys=True)
    data = study.data.replace(":", "-").replace("/", "-")
    return work / f"frontier-{data}-{head['size']}-{zlib.crc32(text.encode()):08x}{_UNFINISHED}"


def _row(one: report.Group, peak: dict[str, float]) -> dict[str, Any]:
    """One architecture: means and ranges over the seeds that finished."""
    whole = one.runs
    first = (whole or one.rows)[0].record
    row: dict[str, Any] = {
        **{"architecture": first["label"], "num_train": first["num_train"]},
        "seeds": [run.record["seed"] for run in whole],
    }
    errors = [f"seed {run.record['seed']}: {run.error}" for run in one.rows if run.failed]
    if errors:  # what fewer seeds say is not set beside what all of them do
        return row | {"status": "failed", "error": "; ".join(errors)}
    number = lambda *path: _spread(one.spread(*path))
    value = lambda name: number("measures", name, "value")
    control = lambda name: number("measures", name, "control")
    # Of closed forms, which are not trained, no share is told: their FLOPs depend on blocks.
    flops = first["flops_per_image"] if first["budget"] else None
    dtype = first["options"].get("dtype", "float32")
    most = hardware.peak_of_all(dtype, peak)
    share = lambda rate, per_image: rate and {n: per_image * v / most for n, v in rate.items()}
    trained, sampled = number("images_per_s", "train"), number("images_per_s", "sample")
    return row | {
        "num_params": first["num_params"],
        "flops_per_image": first["flops_per_image"],
        "steps": (first["budget"] or {}).get("steps"),
        "train_images_per_s": trained,
        "sample_images_per_s": sampled,
        "nfe": first["nfe"],
        "peak_flops_per_s": most,
        "train_mfu": flops and share(trained, cost.FORWARDS_A_STEP * flops),
        "sample_mfu": flops and share(sampled, first["nfe"] * flops),
        # Of the seed that compiled: the others share its programs.
        "compile_seconds": max(run.entry("seconds", "compile") for run in whole),
        "memorized_fraction": value("memorized_fraction"),
        "memorized_control": control("memorized_fraction"),
        # 1 is as far from the training set as images that were never seen; 0 is a copy.
        "novelty": _ratio(value("nearest_rms"), control("nearest_rms")),
        # 1 is as often within the training images' balls as images that were never seen.
        "realism": _ratio(value("precision"), control("precision")),
        "frechet_distance": value("frechet_distance"),
        "frechet_control": control("frechet_distance"),
        "agreement_with_optimal": value("pearson_r_to_optimal"),
        "verdicts": dict(one.counts),
    }


def _spread(spread: report.Spread) -> dict[str, Any] | None:
    mean, low, high, _ = spread
    return None if mean is None else {"mean": mean, "low": low, "high": high}


def _ratio(value: dict | None, control: dict | None) -> dict[str, float] | None:
    """A spread over its control's mean, which no seed changes."""
    if value is None or control is None or control["mean"] == 0:
        return None
    return {name: number / control["mean"] for name, number in value.items()}
