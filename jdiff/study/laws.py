"""The study `laws`: for every family with a law, do samples obey it, and do wrong laws fail?

Each case is fitted, sampled and checked once; started again the study skips what is done. The
figures are the paper's: few points become a continuum, and a knob goes from creation to copying.
"""

import dataclasses
import functools
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from jdiff import _check, _files, data, noise, parallel, report
from jdiff.report import LawRow
from jdiff.report.law_rows import ARRAYS
from jdiff.study import cost, files, law_row
from jdiff.study.config import LEAST_TRAIN, Budget, check_data, check_names
from jdiff.study.law_cases import SECTIONS, Case, Sets, cases
from jdiff.theory.checks import LEAST_SAMPLES
from jdiff.theory.steps import SOLVERS
from jdiff.training.rundir import differences

KIND = "laws"
_PICTURES = "pictures.npz"


@dataclasses.dataclass(frozen=True)
class LawStudy:
    """Samples of every family against their laws, on images and on toys.

    Attributes:
      name: what it is called.
      data: the images, as `jdiff.data.load` reads them.
      num_train: how many of them are trained on; None is all.
      num_samples: samples of every architecture on images; of toys four times as many.
      sigmas: the grid, NAME:STEPS.
      solver: ddim or heun.
      seed: of the training subset, of starting noise, random features and training.
      budget: training steps of the networks among the cases.
      sections: which parts of the page are made; they may be added to a study that is there.
      held_out: the share of images to hold out of a data set that brings no held-out images.
    """

    name: str = KIND
    data: str = "digits"
    num_train: int | None = None
    num_samples: int = 1000
    sigmas: str = "karras:18"
    solver: str = "ddim"
    seed: int = 0
    budget: Budget = Budget(3000)
    sections: tuple[str, ...] = SECTIONS
    held_out: float | None = None

    # What may be added to a study that is there.
    GROWS: ClassVar[tuple[str, ...]] = ("sections",)

    def __post_init__(self) -> None:
        """Refuses what cannot be run, before anything is."""
        if self.num_train is not None:
            _check.integer("num_train", self.num_train, minimum=LEAST_TRAIN)
        _check.integer("num_samples", self.num_samples, minimum=LEAST_SAMPLES)
        _check.integer("seed", self.seed, minimum=0)
        noise.parse_grid(self.sigmas)
        _check.choice("solver", self.solver, [s for s in SOLVERS if s != "ddpm"])
        if self.budget.unit != "steps":
            raise ValueError(f"budget of the study laws must be steps:N; got {self.budget.unit}.")
        if self.held_out is not None:
            _check.number("held_out", self.held_out, above=0, below=1)
        check_names("sections", self.sections)
        for section in self.sections:
            _check.choice("section", section, SECTIONS)

    def tiny(self) -> "LawStudy":
        """The same study at a budget that only shows that it runs."""
        return dataclasses.replace(self, budget=Budget(60), num_samples=200)


def run(
    study: LawStudy,
    out_dir: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    force: bool = False,
    progress: bool = True,
    command: str | None = None,
) -> list[LawRow]:
    """Runs what is not done yet and writes the report; the arguments are those of `study.run`."""
    say = parallel.teller(progress)
    whole = data.load(study.data, data_dir=data_dir, download=download, held_out=study.held_out)
    check_data(whole, least_held_out=1)  # none of these measures divides the held-out images
    settings = law_row.Settings(
        study.num_samples, study.sigmas, study.solver, study.seed, study.budget
    )
    images = whole
    if study.num_train is not None:
        _check.integer("num_train", study.num_train, minimum=LEAST_TRAIN, maximum=whole.num_train)
        images = whole.subset(study.num_train, settings.key(law_row.SUBSET))
    plan = [
        case
        for case in cases(images.image_shape, images.num_train)
        if case.section in study.sections
    ]
    directory = files.StudyDirectory(out_dir)
    directory.claim(study, whole, force=force)
    steps = len(settings.grid) - 1
    say(
        f"{study.name}: {len(plan)} cases on {whole.name} and toys, {study.num_samples} samples "
        f"each in {steps} steps of {study.solver}"
    )
    bench, started, records = law_row.Bench(settings, Sets(images)), time.perf_counter(), []
    wanted = _files.plain(
        {
            "data": {"name": images.name, "fingerprint": images.fingerprint()},
            "settings": dataclasses.asdict(settings),
        }
    )
    for number, case in enumerate(plan, 1):
        run_dir = directory.path / "runs" / case.slug
        title = f"[{number}/{len(plan)}] {case.section}: {case.title}"
        described = {**wanted, "case": dataclasses.asdict(case)}
        record = _identity(study, case)
        found = _done(directory.path, run_dir, described, record, say)
        if found is not None:
            say(f"{title}: done before, kept")
            records.append(found)
            continue
        say(title)
        try:
            made, arrays = law_row.make(bench, case)
            record |= made | {"pictures": f"runs/{case.slug}/{_PICTURES}"}
            if parallel.is_writer():
                _files.write_arrays(run_dir / _PICTURES, **arrays)
        except Exception as error:  # a case's failure is a result; the others go on
            if progress:
                traceback.print_exc()
            record |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        parallel.on_writer(functools.partial(files.write_row, run_dir, described, record))
        records.append(record)
    results = {**files.results(study, command, records), "kind": KIND}
    rows = [row(directory.path, record) for record in records]
    parallel.on_writer(lambda: _write(directory.path, results, rows))
    say(f"finished in {cost.duration(time.perf_counter() - started)}")
    return rows


def render(path: Path, results: dict) -> Path:
    """Writes report.html again from a study's files; returns its path."""
    rows = [row(path, record) for record in results["rows"]]
    report.write_laws(path / "report.html", results, rows)
    return path / "report.html"


def row(path: Path, record: dict) -> LawRow:
    """A record with the arrays that its files hold.

    Raises:
      FileNotFoundError, ValueError: if they are missing or damaged, naming the file.
    """
    bare = LawRow(record)
    if bare.failed:
        return bare
    file = files.place_of(path, record, "pictures")
    needed = [name for name in ARRAYS[bare.section] if not name.endswith("?")]
    arrays = files.read_drawn(file, *needed)
    try:
        return LawRow(record, arrays)
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from None


def _write(path: Path, results: dict, rows: list[LawRow]) -> None:
    _files.write_json(path / "results.json", results)
    report.write_laws(path / "report.html", results, rows)


def _identity(study: LawStudy, case: Case) -> dict[str, Any]:
    """The part of a record that is known before the work."""
    return {
        "label": case.title,
        "section": case.section,
        "architecture": case.spec,
        "data": study.data if case.data == "images" else case.data,
        "solver": study.solver,
        "sigmas": study.sigmas,
        "family": case.family,
        "knob": case.knob,
        "status": "ok",
        "error": None,
    }


def _done(
    path: Path, run_dir: Path, wanted: dict, identity: dict, say: Callable[[str], Any]
) -> dict | None:
    """The record of a case that is done, with the same settings and files that can be read."""
    expected = {**identity, "pictures": f"runs/{run_dir.name}/{_PICTURES}"}
    found = files.read_done(run_dir, expected, lambda record: row(path, record), say)
    if found is None:
        return None
    settings, record = found
    different = differences(settings, _files.plain(wanted))
    if different:
        file = run_dir / "row.json"
        say(f"{file} is of another case: {'; '.join(different)}. The row is made again.")
        return None
    return record
