"""Runs a study: trains or fits every architecture, samples all from one noise, measures, reports.

Started again it goes on where it stopped: a finished row is read, a half-trained network resumed.
One failing row is reported as failed and stops no other.
"""

import functools
import os
import time
import traceback
from pathlib import Path
from typing import Any

from jdiff import _check, data, parallel, report
from jdiff.study import claims, cost, files, laws, row
from jdiff.study.config import LEAST_TRAIN, Architecture, Study, check_data
from jdiff.study.laws import LawStudy
from jdiff.training import TrainConfig, check_network
from jdiff.training.rundir import differences


def run(
    study: Study | LawStudy,
    out_dir: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    force: bool = False,
    progress: bool = True,
    command: str | None = None,
) -> list[Any]:
    """Runs what is not done yet and writes the report.

    Args:
      study: what to do: a Study, or a LawStudy.
      out_dir: the study directory; new, or one of the same study. Architectures, sizes and seeds
        (sections of a LawStudy) may be added to it, anything else that differs is refused.
      data_dir: where TFDS data sets lie; None is TFDS's own default.
      download: whether TFDS may prepare a data set that is not there (needs TensorFlow).
      force: starts the study anew, removing what an earlier one wrote into `out_dir`.
      progress: says on stderr what it does, with progress bars.
      command: what results.json says made it; None names the Python call.

    Returns:
      One Row an architecture, size and seed (of a LawStudy one LawRow a case); failed ones have
      status "failed" and their error.

    Raises:
      ValueError: on a data set that cannot be loaded or is smaller than a training size, an
        architecture that cannot be built, or a directory that belongs to another study, naming
        the differences.
    """
    if isinstance(study, LawStudy):
        return laws.run(
            study, out_dir, data_dir=data_dir, download=download, force=force, progress=progress,
            command=command,
        )  # fmt: skip
    say = parallel.teller(progress)
    whole = data.load(study.data, data_dir=data_dir, download=download, held_out=study.held_out)
    check_data(whole)
    directory = files.StudyDirectory(out_dir)
    references = {}
    for n in study.num_train:
        if n is not None:
            _check.integer("num_train", n, minimum=LEAST_TRAIN, maximum=whole.num_train)
        subset = whole
        if n is not None and n != whole.num_train:
            subset = whole.subset(n, row.study_key(study, row.SUBSET))
        references[subset.num_train] = row.Reference(study, subset)
    plan = [
        (architecture, n, seed)
        for n in references
        for architecture in study.parsed()
        # A closed form is fitted, not trained: it has no seed to vary.
        for seed in (study.seeds[:1] if architecture.closed_form else study.seeds)
    ]
    # What cannot be built fails here, before a file is touched or hours are spent on what can.
    for architecture, n, _ in plan:
        architecture.check(references[n].data)
        if not architecture.closed_form:
            images = references[n].data
            check_network(architecture.network(images.image_shape), images, study.batch_size)
    flops = {
        entry: row.flops_per_image(entry[0], references[entry[1]].data)
        for entry in plan
        if not entry[0].closed_form
    }
    train_configs = functools.partial(_train_configs, study, plan, references, directory)
    # Seconds are timed, which waits until the directory is known to be this study's.
    configs = None if study.budget.unit == "seconds" else train_configs()
    directory.claim(study, whole, force=force)
    parallel.on_writer(lambda: directory.keep_examples([r.data for r in references.values()]))
    configs = train_configs() if configs is None else configs
    say(cost.describe(study, plan, configs, flops))

    started, records = time.perf_counter(), []
    for number, entry in enumerate(plan, 1):
        architecture, n, seed = entry
        run_dir, config = directory.run(*entry), configs.get(entry)
        wanted = row.settings(study, architecture, references[n].data, seed, config)
        title = f"[{number}/{len(plan)}] {run_dir.name}"
        record = row.identity(architecture, references[n].data, seed)
        fixed = ("label", "architecture", "options", "data", "num_train", "seed")
        expected = {name: record[name] for name in fixed}
        expected["samples"] = f"runs/{run_dir.name}/samples.npz"
        found = files.read_done(run_dir, expected, directory.row, say)
        if found is not None:
            different = differences(found[0], wanted)
            if different:
                raise ValueError(
                    f"{run_dir} holds another row: {'; '.join(different)}. Remove it, or choose "
                    "another directory with --out."
                )
            say(f"{title}: done before, kept")
            records.append(found[1])
            continue
        say(title)
        if parallel.is_writer():
            # A row that failed before it had a config.json would never be taken for a run again.
            (run_dir / "row.json").unlink(missing_ok=True)
        try:
            record |= row.make(study, architecture, references[n], seed, config, run_dir, progress)
        except Exception as error:  # a row's failure is a result; the others go on
            if progress:
                traceback.print_exc()
            record |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        parallel.on_writer(functools.partial(files.write_row, run_dir, wanted, record))
        records.append(record)

    results = files.results(study, command, records)
    results["claims"] = claims.of(study.claims, records)
    results["notes"] = _notes(records)
    rows = [directory.row(record) for record in records]
    parallel.on_writer(lambda: directory.write_report(results, rows))
    say(f"finished in {cost.duration(time.perf_counter() - started)}")
    return rows


def rebuild_report(path: str | os.PathLike) -> Path:
    """Writes a study's report.html again from its files; returns its path.

    Raises:
      FileNotFoundError, ValueError: if there is no readable study at `path`, naming the file that
        is missing or damaged.
    """
    directory = files.StudyDirectory(path)
    results = directory.results()
    of_laws = results.get("kind") == laws.KIND
    try:
        for number, record in enumerate(results["rows"]):
            _check_record(directory.path / "results.json", number, record, of_laws)
        if of_laws:
            return laws.render(directory.path, results)
        return directory.render(results, [directory.row(record) for record in results["rows"]])
    except (ValueError, FileNotFoundError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{error} {files.AGAIN}") from error


# What the entries of a record are, where they are there and not null.
_ENTRIES: dict[type, tuple[str, ...]] = {
    str: ("architecture", "data", "solver", "family", "error", "why_no_law"),
    int: ("num_train", "seed", "num_samples", "num_params", "flops_per_image", "nfe", "knob"),
    dict: ("options", "budget", "seconds", "images_per_s", "measures", "verdict", "check"),
    list: ("twins",),
}


def _check_record(file: Path, number: int, record: Any, of_laws: bool) -> None:
    """Refuses an entry of results.json that is no row, naming the file."""
    try:
        if not isinstance(record, dict):
            raise ValueError(f"it must be an object; got {record!r}.")
        (report.LawRow if of_laws else report.Row)(record)
        for kind, names in _ENTRIES.items():
            for name in names:
                if not isinstance(record.get(name), kind | None):
                    raise ValueError(f"{name!r} cannot be {record[name]!r}.")
    except ValueError as error:
        raise ValueError(f"{file} is damaged: in rows[{number}], {error}") from None


def _notes(records: list[dict]) -> list[str]:
    """What a reader of the rows must know beside them, a sentence each."""
    notes = []
    rows = {record["preconditioning"] for record in records if record["preconditioning"]}
    if len(rows) > 1:
        notes.append(_PRECONDITIONINGS)
    own = {r["label"]: r["sigmas"] for r in records if r["sigmas"] and r["budget"]}
    apart = [label for label, grid in own.items() if f"per_level={grid}" in label]
    if apart:
        notes.append(
            f"One network for every noise level: {', '.join(apart)}. They share a row's steps and "
            "are sampled at their own levels, so more than the network differs from the others."
        )
    for record in records:
        for name, reason in (record["left_out"] or {}).items():
            notes.append(
                f"{record['label']}, seed {record['seed']}: {name} was not measured: {reason}"
            )
    return notes


_PRECONDITIONINGS = (
    "Preconditionings: the denoiser is D(y) = c_skip y + c_out F(c_in y), F the network. x0: F is "
    "the image (c_skip = 0). eps: F is the noise, D = y - sigma F. edm: between both, by the noise "
    "level. v: edm at a data deviation of 1 with the sign of F turned. Where c_skip is not 0 the "
    "noisy image goes round the network, which then constrains the samples less."
)


# A checkpoint takes as long as ten small steps do.
_LEAST_STEPS = 500
# Of a learning curve, which is looked at: the same draws at each of its points.
_EVAL_EXAMPLES = 256


def _train_configs(
    study: Study, plan: list[Any], references: dict[int, Any], directory: files.StudyDirectory
) -> dict[Any, TrainConfig]:
    """The training of every network; its seeds share the steps, and so the compiled programs."""
    bought: dict[Any, int] = {}
    made = {}
    for architecture, n, seed in plan:
        if architecture.closed_form:
            continue
        common = {
            "learning_rate": study.learning_rate,
            "schedule": study.schedule,
            "preconditioning": architecture.preconditioning,
            "eval_examples": _EVAL_EXAMPLES,
        }
        steps = None
        if study.budget.unit == "seconds":
            # A run that was begun keeps the steps that its budget bought then.
            steps = files.begun_steps(directory.run(architecture, n, seed))
        if steps is None and (architecture, n) not in bought:
            bought[architecture, n] = _steps(study, architecture, references[n].data, common)
        steps = bought[architecture, n] if steps is None else steps
        bought.setdefault((architecture, n), steps)
        made[architecture, n, seed] = TrainConfig(
            steps=steps,
            batch_size=study.batch_size,
            warmup=min(100, steps // 10),
            eval_every=max(1, steps // 10),
            checkpoint_every=max(_LEAST_STEPS, steps // 10),
            **common,
        )
    return made


def _steps(study: Study, architecture: Architecture, data: data.ImageData, common: dict) -> int:
    """What a row's budget buys each of its networks, which share it."""
    steps = cost.steps_each(study.budget, architecture, data, study.batch_size, **common)
    return parallel.same_everywhere(steps)  # a timing differs between processes
