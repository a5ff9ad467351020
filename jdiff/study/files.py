"""The files of a study directory, written and read in one place.

study.json, results.json, report.html, data.npz, and runs/<label>-n<N>-s<seed>/ with row.json,
samples.npz, neighbors.npz and what training keeps there.
"""

import dataclasses
import os
import platform
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import jaxlib
import numpy as np
import optax

from jdiff import _files, parallel, report
from jdiff._version import __version__
from jdiff.data import ImageData
from jdiff.report import Pictures, Row
from jdiff.study.config import Architecture
from jdiff.training.rundir import RunDirectory, as_arrays, differences, holds_files

# What to do about a report whose files are missing or damaged.
AGAIN = "Run the study again: what is whole is kept, the rest made anew."
_SHOWN = 32  # real images of each kind that a report may show
# What a row's figures draw; row.json keeps their checksums, since all rows' have the same shapes.
_DRAWN = ("samples.npz", "neighbors.npz", "pictures.npz")


class StudyDirectory:
    """A directory that holds one study."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def run(self, architecture: Architecture, num_train: int, seed: int) -> Path:
        """Where a row's files lie."""
        return self.path / "runs" / f"{architecture.slug}-n{num_train}-s{seed}"

    def claim(self, study: Any, data: ImageData, *, force: bool = False) -> None:
        """Makes the directory that of `study`, or checks that it is.

        Args:
          study: a dataclass. Adding to the fields that its class names as `GROWS` adds rows to the
            study; anything else that differs makes it another one.
          data: its whole data set.
          force: removes what an earlier study wrote here.

        Raises:
          ValueError: if it belongs to another study, naming the differences, or to none, or if
            its study.json is damaged; in all processes, if any does not see what one wrote.
        """
        parallel.on_writer(lambda: self._claim(study, data, force))
        seen = (self.path / "study.json").exists()
        if not parallel.true_everywhere(seen):
            raise ValueError(
                f"out_dir {self.path} must lie on a disk that all processes share; this one "
                f"{'sees' if seen else 'does not see'} what the writing process put there."
            )

    def _claim(self, study: Any, data: ImageData, force: bool) -> None:
        _files.refuse_file("out_dir", self.path)
        file = self.path / "study.json"
        described = _files.plain(
            {
                "schema": report.SCHEMA,
                "study": dataclasses.asdict(study),
                "data": {"name": data.name, "fingerprint": data.fingerprint()},
            }
        )
        if file.exists() and force:
            shutil.rmtree(self.path / "runs", ignore_errors=True)
            for name in ("study.json", "results.json", "report.html", "data.npz"):
                (self.path / name).unlink(missing_ok=True)
        elif not file.exists():
            if holds_files(self.path):
                raise ValueError(
                    f"out_dir {self.path} holds files but no study.json, so it is not a study; "
                    "choose an empty or new directory."
                )
        else:
            self._check_same(described, type(study).GROWS)
        _files.write_json(file, described)

    def _check_same(self, described: dict, grows: Sequence[str]) -> None:
        """Refuses to go on with a study that is not `described`, but for what was added to it."""
        file = self.path / "study.json"
        otherwise = "Choose another directory with --out, or start anew with --force"
        try:
            found = _files.read_object(file, schema=int, study=dict, data=dict)
        except ValueError as error:
            raise ValueError(f"{error} {otherwise}.") from None
        there, here = (whole["study"].get("name") for whole in (found, described))
        if there != here:  # of another kind, perhaps: its fields would say nothing
            raise ValueError(
                f"out_dir {self.path} belongs to the study {there!r}, and this is {here!r}. "
                f"{otherwise}; nothing was changed."
            )
        fixed = lambda whole: {
            **whole,
            "study": {k: v for k, v in whole["study"].items() if k not in grows},
        }
        different = differences(fixed(found), fixed(described))
        if different:
            raise ValueError(
                f"out_dir {self.path} belongs to another study: {'; '.join(different)}. "
                f"{otherwise}; nothing was changed."
            )
        for name in grows:
            had = found["study"].get(name)
            if not isinstance(had, list):
                raise ValueError(f"{file} is damaged: {name!r} must be a list. {otherwise}.")
            dropped = [value for value in had if value not in described["study"][name]]
            if dropped:
                raise ValueError(
                    f"{name} leaves out {dropped[0]!r}, which the study in {self.path} has: "
                    "name it too, or choose another directory with --out."
                )

    def keep_examples(self, sets: Sequence[ImageData]) -> None:
        """Writes data.npz: images trained on and held out, for the report to show.

        Args:
          sets: the training sets of the study, of which the largest is shown.
        """
        data = max(sets, key=lambda data: data.num_train)
        toy = data.image_shape[:2] == (1, 1)  # points in a plane: all of them are drawn
        shown = slice(None) if toy else slice(_SHOWN)
        _files.write_arrays(
            self.path / "data.npz",
            images=data.images[shown],
            held_out=data.held_out[shown],
            num_train=data.num_train,
            num_held_out=len(data.held_out),
        )

    def write_report(self, results: dict, rows: list[Row]) -> None:
        """Writes results.json and report.html."""
        _files.write_json(self.path / "results.json", results)
        self.render(results, rows)

    def render(self, results: dict, rows: list[Row]) -> Path:
        """Writes report.html from rows alone; returns its path."""
        arrays = read_arrays(
            self.path / "data.npz", "images", "held_out", "num_train", "num_held_out"
        )
        name = results["study"].get("data")
        if not isinstance(name, str):
            file = self.path / "results.json"
            raise ValueError(f"{file} is damaged: 'study.data' must be a name; got {name!r}.")
        about = {
            "name": name,
            "num_train": int(arrays["num_train"]),
            "num_held_out": int(arrays["num_held_out"]),
            "image_shape": arrays["images"].shape[1:],
            "images": arrays["images"],
            "held_out": arrays["held_out"],
        }
        report.write(self.path / "report.html", results, rows, data=about)
        return self.path / "report.html"

    def row(self, record: dict) -> Row:
        """A record with the pictures that its files hold.

        Raises:
          FileNotFoundError, ValueError: if they are missing or damaged, naming the file.
        """
        bare = Row(record)
        return bare if bare.failed else Row(record, load_pictures(self.path, record))

    def results(self) -> dict:
        """What results.json says.

        Raises:
          FileNotFoundError: if there is none: it is no study, or none that has finished.
          ValueError: if it cannot be read, or is of another schema.
        """
        file = self.path / "results.json"
        if not file.exists():
            raise FileNotFoundError(f"{self.path} has no results.json: no study finished there.")
        try:
            results = _files.read_object(file)
            if results.get("schema") == report.SCHEMA:
                results = _files.read_object(file, study=dict, rows=list)
                if not results["rows"]:
                    raise ValueError(f"{file} is damaged: it has no rows.")
        except ValueError as error:
            raise ValueError(f"{error} {AGAIN}") from None
        report.check(results)
        return results


def begun_steps(run_dir: str | os.PathLike) -> int | None:
    """The training steps that a run was begun with; None if it was not."""
    file = Path(run_dir) / "config.json"
    if not file.exists():
        return None
    steps = _files.read_object(file, train=dict)["train"].get("steps")
    if not isinstance(steps, int):
        raise ValueError(f"{file} is damaged: it lacks 'train.steps'.")
    return steps


def read_done(
    run_dir: Path,
    expected: Mapping[str, Any],
    read: Callable[[dict], Any],
    say: Callable[[str], Any],
) -> tuple[dict, dict] | None:
    """The settings and the record of a row that is done; None if it has to be made.

    Args:
      run_dir: where its files lie.
      expected: entries that its record must have: it is of this row and no other.
      read: reads what a record's figures draw.
      say: is told of a file that is there and cannot be used; the row is to be made again.
    """
    file = run_dir / "row.json"
    if not file.exists():
        return None
    try:
        found = _files.read_object(file, settings=dict, record=dict)
        settings, record = found["settings"], found["record"]
        if record.get("status") == "failed":
            return None
        expected = _files.plain(expected)
        other = differences({name: record.get(name) for name in expected}, expected)
        if other:
            raise ValueError(f"{file} is of another row: {'; '.join(other)}.")
        read(record)
    except (ValueError, OSError) as error:
        say(f"{error} The row is made again.")
        return None
    return settings, record


def write_row(run_dir: Path, settings: dict, record: dict) -> None:
    """Writes row.json, which marks the row as done."""
    drawn = [run_dir / name for name in _DRAWN if (run_dir / name).exists()]
    sums = {file.name: zlib.crc32(file.read_bytes()) for file in drawn}
    row = {"settings": settings, "record": record, "crc32": sums}
    _files.write_json(run_dir / "row.json", row)


def load_pictures(study_path: Path, record: dict) -> Pictures:
    """What a row's figures draw, from its files.

    Raises:
      FileNotFoundError, ValueError: if they are missing or damaged, naming the file.
    """
    run_dir = place_of(study_path, record, "samples").parent
    samples = read_drawn(run_dir / "samples.npz", "images")
    neighbors = read_drawn(run_dir / "neighbors.npz", *_NEIGHBORS)
    try:
        history = as_arrays(RunDirectory(run_dir).lines())
    except (TypeError, KeyError, ValueError) as error:  # JSON, but no lines of a training
        raise ValueError(f"{run_dir / 'metrics.jsonl'} is damaged: {error!r}.") from None
    trained = len(history["step"]) > 0
    drawn = {name: neighbors[name] for name in _NEIGHBORS}
    try:
        return Pictures(samples["images"], **drawn, history=history if trained else None)
    except ValueError as error:
        raise ValueError(f"{run_dir} is damaged: {error}") from None


_NEIGHBORS = ("nearest", "d1", "d2", "held_out_d1", "held_out_d2")


def place_of(study_path: Path, record: dict, name: str) -> Path:
    """Where the file lies that a record names.

    Raises:
      ValueError: if it names none.
    """
    if not isinstance(record.get(name), str):
        raise ValueError(f"row {record['label']!r} names no {name}; got {record.get(name)!r}.")
    return study_path / record[name]


def results(study: Any, command: str | None, records: Sequence[dict]) -> dict:
    """The contents of results.json: a study (a dataclass), what made it, and its rows."""
    return {
        "schema": report.SCHEMA,
        "study": dataclasses.asdict(study),
        "command": command or f"jdiff.study.run({study.name!r})",
        "device": device(),
        "versions": versions(),
        "rows": records,
    }


def device() -> str:
    """The devices of this run in words."""
    first = jax.devices()[0]
    kind = first.device_kind
    if first.platform == "cpu":
        kind = f"{platform.machine()} CPU, {os.cpu_count()} cores"
    return f"{jax.device_count()} x {kind}"


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    modules = {"jax": jax, "jaxlib": jaxlib, "flax": flax, "optax": optax, "numpy": np}
    found = {"jdiff": __version__, "python": platform.python_version()}
    return found | {name: module.__version__ for name, module in modules.items()}


def read_drawn(file: Path, *names: str) -> dict[str, np.ndarray]:
    """The arrays of a row's file, which must be the one that its row.json was written with.

    Args:
      file: one of the files that figures draw.
      *names: arrays that it must have.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: if it is damaged, or another row's.
    """
    row = file.parent / "row.json"
    sums = _files.read_object(row).get("crc32") if row.exists() else None
    arrays = read_arrays(file, *names)
    known = sums.get(file.name) if isinstance(sums, dict) else None
    if known is not None and known != zlib.crc32(file.read_bytes()):
        raise ValueError(f"{file} is damaged: it is not the file that row.json was written with.")
    return arrays


def read_arrays(file: Path, *names: str) -> dict[str, np.ndarray]:
    """The arrays of an npz file that a study wrote.

    Args:
      file: the file.
      *names: arrays that it must have.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: if it is damaged.
    """
    try:
        arrays = _files.read_arrays(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is missing.") from None
    except Exception as error:  # zip, NumPy and zlib errors: the file is not what was written
        raise ValueError(f"{file} is damaged: {error}.") from error
    lacking = [name for name in names if name not in arrays]
    if lacking:
        raise ValueError(f"{file} is damaged: it lacks {', '.join(lacking)}.")
    return arrays
