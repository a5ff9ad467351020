"""`python -m benchmarks`: runs suites, keeps their rows as JSON, and reads them again.

`python -m benchmarks training --size cpu` measures; `python -m benchmarks report` makes the tables
and figures of all results, README's among them; `python -m benchmarks compare OLD NEW` prints what
became slower or faster beyond the noise.
"""

import dataclasses
import difflib
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

from benchmarks import (
    closed_forms,
    compare,
    complete,
    frontier,
    images,
    metrics,
    record,
    report,
    sampling,
    studies,
    suite,
)
from benchmarks import training as training_suite
from jdiff import parallel
from jdiff.study import Budget

SUITES: dict[str, Callable[[str, Any], list[suite.Case]]] = {
    "training": training_suite.cases,
    "sampling": sampling.cases,
    "closed_forms": closed_forms.cases,
    "metrics": metrics.cases,
    "frontier": frontier.cases,
    "studies": studies.cases,
}
# What a suite takes beside its size; options that it would ignore are refused.
TAKES = {
    "training": ("architectures",),
    "sampling": ("architectures",),
    "closed_forms": ("data",),
    "metrics": ("data",),
    "frontier": ("architectures", "data", "budget", "seeds"),
    "studies": (),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure jdiff on this machine.

    Attributes:
      suites: What to measure: training, sampling, closed_forms, metrics, frontier, studies; default
        all.
      size: smoke shows on two cores in minutes that all works, cpu is for the everyday machine,
        accelerator for one GPU or TPU chip, pod for several, on one host or more.
      architectures: Of training, sampling and frontier: strings as jdiff study takes them.
      data: Of frontier: a data set; of closed_forms and metrics: real images, for example
        tfds:mnist, instead of random ones.
      data_dir: Where TFDS data sets lie.
      budget: Of frontier: steps:N, seconds:N or flops:N for every network.
      seeds: Of frontier: training seeds.
      out: The JSON file, for one suite; default benchmarks/results/DEVICE-SUITE-SIZE.json, where
        the published results lie. With architectures, data, budget or seeds of your own, or where a
        published file is of another device of that name, it lies in WORK/results.
      work: Where frontier and studies keep what they ran, with its samples and pages.
      peer_python: Another Python to look for peers in; may be given several times.
      progress: Progress bars.
      distributed: This process is one of those of a TPU pod, or of a SLURM, Open MPI or Kubernetes
        job, which all call the same command; for frontier, work lies on a disk that they share.
    """

    suites: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    size: Literal["smoke", "cpu", "accelerator", "pod"] = "smoke"
    architectures: tuple[str, ...] = ()
    data: str | None = None
    data_dir: Path | None = None
    budget: str | None = None
    seeds: tuple[int, ...] = ()
    out: Path | None = None
    work: Path = Path("runs/benchmarks")
    peer_python: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    progress: bool = False
    distributed: bool = False


@dataclasses.dataclass(frozen=True)
class Compare:
    """Print what became better or worse beyond the noise; ends with 1 if anything became worse.

    Attributes:
      old: A results file.
      new: One of the same suite, size and device, made later.
    """

    old: Annotated[Path, tyro.conf.Positional]
    new: Annotated[Path, tyro.conf.Positional]


@dataclasses.dataclass(frozen=True)
class Report:
    """Write the tables and figures of all results, and README's part that is made from them.

    Attributes:
      results: The folder of results.
      readme: The file whose part between the benchmark marks is replaced.
    """

    results: Path = record.RESULTS
    readme: Path = record.RESULTS.parents[1] / "README.md"


def main(args: Sequence[str] | None = None) -> int:
    """Runs what is asked for; bad input ends with one line on stderr and status 2."""
    args = list(sys.argv[1:] if args is None else args)
    record.arguments[:] = args
    try:
        if args[:1] in (["compare"], ["report"]):
            return _read(args)
        return _measure(tyro.cli(Options, prog="python -m benchmarks", args=args))
    except (ValueError, TypeError, OSError) as error:
        print(f"benchmarks: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbenchmarks: stopped; the same command goes on from here.", file=sys.stderr)
        return 130


def _read(args: list[str]) -> int:
    try:
        if args[0] == "compare":
            found = tyro.cli(Compare, prog="python -m benchmarks compare", args=args[1:])
            return compare.run(found.old, found.new)
        asked = tyro.cli(Report, prog="python -m benchmarks report", args=args[1:])
        for path in report.write(asked.results, asked.readme):
            print(path)
    except KeyError as error:
        raise ValueError(f"a results file is damaged: a row lacks {error}.") from error
    return 0


def _measure(options: Options) -> int:
    record.keep_to_cores()
    if options.distributed:
        parallel.join_hosts()
    suites = options.suites or tuple(SUITES)
    _check(suites, options)
    out = {name: _out(name, options) for name in suites}
    # A warm cache of another call would make compilation look free.
    jax.config.update("jax_enable_compilation_cache", False)
    if options.size == "smoke":  # whose times mean nothing: most of them would be compilation
        jax.config.update("jax_disable_most_optimizations", True)
    cases = {name: SUITES[name](options.size, options) for name in suites}
    failed, paths = 0, []
    for name in suites:
        started = time.perf_counter()
        takes = {field: getattr(options, field) for field in TAKES[name]}
        path = suite.run(name, options.size, cases[name], takes, out[name])
        if not parallel.is_writer():
            continue
        paths.append(path)
        found = record.read(path)
        print(f"{name} ({options.size}), {time.perf_counter() - started:.0f} s -> {path}")
        print(report.text(found))
        failed += sum(row["status"] == "failed" for row in found["rows"])
        for said in complete.lacks(found):
            print(f"benchmarks: {name}: {said}.", file=sys.stderr)
            failed += 1
    for path in paths:  # until here a killed call would go on with its last suite
        suite.partial_of(path).unlink(missing_ok=True)
    if options.size == "smoke" and parallel.is_writer():
        print("size smoke shows that all works: its numbers mean nothing. In earnest: --size cpu.")
    own = [path for path in paths if options.out is None and path.parent != record.RESULTS]
    if own:
        print(
            "Of settings of your own, or of a device with the name of another's, so not among the "
            f"published results: {own[-1].parent}."
        )
    return 1 if failed else 0


def _out(name: str, options: Options) -> Path:
    """The file of a suite; settings of one's own and other devices replace no published one."""
    if options.out is not None:
        return options.out
    own = {field: str(getattr(options, field)) for field in TAKES[name] if getattr(options, field)}
    published = record.path(name, options.size, record.RESULTS)
    if not own and not record.of_another_device(published):
        return published
    path = record.path(name, options.size, options.work / "results")
    if not own:
        return path
    return path.with_stem(f"{path.stem}-{zlib.crc32(repr(sorted(own.items())).encode()):08x}")


def _check(suites: tuple[str, ...], options: Options) -> None:
    """Refuses, before anything is measured, what is unknown or would be ignored."""
    for name in suites:
        if name not in SUITES:
            close = difflib.get_close_matches(name, [*SUITES, "report", "compare"])
            hint = f" Close: {', '.join(close)}." if close else ""
            accepted = f"{', '.join(SUITES)}; or report or compare first"
            raise ValueError(f"unknown suite {name!r}; accepted: {accepted}.{hint}")
    if options.out is not None and len(suites) > 1:
        raise ValueError("--out names one file, so it goes with one suite.")
    if options.out is not None and options.out.is_dir():
        raise ValueError(f"--out must be a file; got the folder {options.out}.")
    for field in ("architectures", "data", "budget", "seeds"):
        if getattr(options, field) and not any(field in TAKES[name] for name in suites):
            takers = ", ".join(name for name in SUITES if field in TAKES[name])
            raise ValueError(f"--{field} goes with {takers}; got {', '.join(suites)}.")
    for python in options.peer_python:
        if not shutil.which(python):
            raise ValueError(f"--peer-python must be an interpreter; got {python}.")
    if options.data is not None:
        images.load(options.data, options.data_dir)
    if options.budget is not None:
        budget = Budget.parse(options.budget)
        if budget.unit == "steps" and budget.amount < 1:
            raise ValueError(f"budget must buy at least one step; got {options.budget}.")


if __name__ == "__main__":
    sys.exit(main())
