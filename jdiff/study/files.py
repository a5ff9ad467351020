"""The files of a study directory, written and read in one place.

study.json, results.json, report.html, data.npz, and runs/<label>-n<N>-s<seed>/ with row.json,
samples.npz, neighbors.npz and what training keeps there.
"""

import dataclasses
import json
import os
import platform
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import flax
import jax
import jaxlib
import numpy as np
import optax

from jdiff import _files, report
from jdiff.data import ImageData
from jdiff.report import Pictures, Row
from jdiff.study.config import Architecture
from jdiff.training.rundir import RunDirectory, as_arrays, differences, holds_files

_SHOWN = 32  # real images of each kind that a report may show


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
          ValueError: if it belongs to another study, naming the differences, or to none.
        """
        file, grows = self.path / "study.json", type(study).GROWS
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
            found = _read_json(file)
            fixed = lambda whole: {
                **whole,
                "study": {k: v for k, v in whole.get("study", {}).items() if k not in grows},
            }
            different = differences(fixed(found), fixed(described))
            if different:
                raise ValueError(
                    f"out_dir {self.path} belongs to another study: {'; '.join(different)}. "
                    "Choose another directory with --out, or start anew with --force; nothing was "
                    "changed."
                )
            for name in grows:
                dropped = [v for v in found["study"][name] if v not in described["study"][name]]
                if dropped:
                    raise ValueError(
                        f"{name} leaves out {dropped[0]!r}, which the study in {self.path} has: "
                        "name it too, or choose another directory with --out."
                    )
        _files.write_json(file, described)

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

    def is_whole(self, record: dict) -> bool:
        """Whether a row is done and its files can be read."""
        try:
            return record["status"] == "ok" and self.row(record) is not None
        except (ValueError, OSError):
            return False

    def write_report(self, results: dict, rows: list[Row]) -> None:
        """Writes results.json and report.html."""
        _files.write_json(self.path / "results.json", results)
        self.render(results, rows)

    def render(self, results: dict, rows: list[Row]) -> Path:
        """Writes report.html from rows alone; returns its path."""
        arrays = read_arrays(self.path / "data.npz")
        about = {
            "name": results["study"]["data"],
            "num_train": int(arrays["num_train"]),
            "num_held_out": int(arrays["num_held_out"]),
            "image_shape": arrays["images"].shape[1:],
            "images": arrays["images"],
            "held_out": arrays["held_out"],
        }
        report.write(self.path / "report.html", results, rows, data=about)
        return self.path / "report.html"

    def row(self, record: dict) -> Row:
        """A record with the pictures that its files hold."""
        failed = record["status"] == "failed"
        return Row(record, None if failed else load_pictures(self.path, record))

    def results(self) -> dict:
        """What results.json says.

        Raises:
          FileNotFoundError: if there is none: it is no study, or none that has finished.
          ValueError: if it cannot be read, or is of another schema.
        """
        file = self.path / "results.json"
        if not file.exists():
            raise FileNotFoundError(f"{self.path} has no results.json: no study finished there.")
        results = _read_json(file)
        report.check(results)
        lacking = [name for name in ("study", "rows") if name not in results]
        if lacking:
            raise ValueError(f"{file} is damaged: it lacks {', '.join(lacking)}.")
        return results


def begun_steps(run_dir: str | os.PathLike) -> int | None:
    """The training steps that a run was begun with; None if it was not."""
    run = RunDirectory(run_dir)
    return run.config()["train"]["steps"] if (run.path / "config.json").exists() else None


def read_row(run_dir: Path) -> tuple[dict, dict] | None:
    """The settings and the record in row.json; None if there is none."""
    file = run_dir / "row.json"
    if not file.exists():
        return None
    found = _read_json(file)
    if not {"settings", "record"} <= set(found):
        return None  # not a row: it is made again
    return found["settings"], found["record"]


def write_row(run_dir: Path, settings: dict, record: dict) -> None:
    """Writes row.json, which marks the row as done."""
    _files.write_json(run_dir / "row.json", {"settings": settings, "record": record})


def load_pictures(study_path: Path, record: dict) -> Pictures:
    """What a row's figures draw, from its files."""
    run_dir = (study_path / record["samples"]).parent
    samples = read_arrays(run_dir / "samples.npz")
    neighbors = read_arrays(run_dir / "neighbors.npz")
    history = as_arrays(RunDirectory(run_dir).lines())
    trained = len(history["step"]) > 0
    return Pictures(samples["images"], **neighbors, history=history if trained else None)


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
    found = {"jdiff": metadata.version("jdiff-jax"), "python": platform.python_version()}
    return found | {name: module.__version__ for name, module in modules.items()}


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged: {error}.") from None


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file that a study wrote.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: if it is damaged.
    """
    try:
        return _files.read_arrays(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # zip, NumPy and zlib errors: the file is not what was written
        raise ValueError(f"{file} is damaged: {error}") from error
