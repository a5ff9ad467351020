"""What the report of the study `laws` is made from: one `LawRow` a case, its record and arrays.

A record is one row of results.json; arrays are what its figures draw. Predictions, test results,
measures and intervals come ready from the study: nothing here is computed from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jdiff import _check
from jdiff.report.rows import STATUSES

LAWS = ("gaussian", "push-forward", "atoms", "dimension")

# Each section's arrays: name -> shape, a letter the same length within a row. A "?" at the end of a
# name: may be absent. k images, n samples, K points, b bins, m axes, g points of a curve.
_LINE = {"samples": "n", "points": "K", "weights": "K", "edges": "b+1", "density": "b"}
ARRAYS: dict[str, dict[str, str]] = {
    "star": {**_LINE, "optimal_samples?": "n", "reference?": "b"},
    "two_points": {**_LINE, "optimal_samples?": "n"},
    "moments": _LINE,
    "gaussian": {
        **{"samples": "k H W C", "law_samples": "k H W C"},
        **{"predicted": "m", "measured": "m", "low?": "m", "high?": "m"},
    },
    "plane": {"training": "N 2", "samples": "n 2", "axis?": "2", "mean?": "2", "curve?": "g 2"},
    "atoms": {"samples": "k H W C", "atoms": "k H W C"},
    "without_law": {"samples": "k H W C", "singular_values?": "m"},
    "sweep": {},
}
SECTIONS = tuple(ARRAYS)


@dataclass(frozen=True, eq=False)
class LawRow:
    """One case of the study `laws`: an architecture on one data set, shown in one section.

    Attributes:
      record: one row of results.json, with at least "label", "section" (one of `SECTIONS`) and
        "status" ("ok" or "failed"). Whatever else is missing, None or NaN is printed as a dash.
      arrays: what its figures draw, by name, as `ARRAYS` lists them; None if they were not kept,
        or if it failed.

    Raises:
      ValueError: on a record without a label, an unknown section, status or law, a failed row with
        arrays, or arrays that are missing or do not fit together.

    Example:
      >>> LawRow({"label": "linear", "section": "sweep", "status": "ok", "knob": 16}).number("knob")
      16
    """

    record: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray] | None = None

    def __post_init__(self):
        label = self.record.get("label")
        if not isinstance(label, str) or not label:
            raise ValueError(f"record['label'] must be a name that is not empty; got {label!r}.")
        _check.choice("record['section']", self.record.get("section"), SECTIONS)
        _check.choice("record['status']", self.record.get("status"), STATUSES)
        if self.law is not None:
            _check.choice("record['law']", self.law, LAWS)
        if self.arrays and self.failed:
            raise ValueError(f"arrays of the failed row {label!r} must be None.")
        if self.arrays:
            self._check_arrays()

    def _check_arrays(self) -> None:
        """Holds every array's shape against `ARRAYS`."""
        lengths: dict[str, int] = {}
        for entry, form in ARRAYS[self.section].items():
            name = entry.rstrip("?")
            array = self.optional(name)
            if array is None:
                if entry == name:
                    raise ValueError(f"arrays of row {self.label!r} lack {name!r}.")
                continue
            letters = form.split()
            got = np.shape(array)
            fits = len(got) == len(letters) and all(
                self._wanted(letter, size, lengths) == size
                for letter, size in zip(letters, got, strict=True)
            )
            if not fits or 0 in got:
                known = "".join(f", {k} = {v}" for k, v in lengths.items() if k in form)
                raise ValueError(
                    f"arrays[{name!r}] of row {self.label!r} must have shape "
                    f"[{', '.join(letters)}], none of them 0{known}; got {list(got)}."
                )

    @staticmethod
    def _wanted(letter: str, size: int, lengths: dict[str, int]) -> int:
        """The length that a letter stands for; the first array to use a letter settles it."""
        if letter.isdigit():
            return int(letter)
        name, _, more = letter.partition("+")
        return lengths.setdefault(name, size - int(more or 0)) + int(more or 0)

    @property
    def label(self) -> str:
        """What the case is called."""
        return self.record["label"]

    @property
    def section(self) -> str:
        """Where on the page it is shown."""
        return self.record["section"]

    @property
    def failed(self) -> bool:
        """Whether it stopped with an error."""
        return self.record["status"] == "failed"

    @property
    def law(self) -> str | None:
        """The kind of its law; None if it has none."""
        return self.record.get("law")

    @property
    def check(self) -> Mapping[str, Any] | None:
        """What the check of its samples found; None if they were not checked."""
        return self.record.get("check")

    @property
    def twins(self) -> Sequence[Mapping[str, Any]]:
        """The wrong samples or laws that were tried, each with "about" and its "check"."""
        return self.record.get("twins") or ()

    def measure(self, name: str) -> Mapping[str, Any]:
        """Returns one entry of record["measures"], empty if it was not measured."""
        return (self.record.get("measures") or {}).get(name) or {}

    def number(self, *path: str) -> Any:
        """Returns one entry of the record, such as ("seconds", "fit"); None if it is absent."""
        value: Any = self.record
        for key in path:
            value = (value or {}).get(key)
        return value

    def array(self, name: str) -> np.ndarray:
        """Returns one of its arrays.

        Raises:
          ValueError: if it has none of that name.
        """
        found = self.optional(name)
        if found is None:
            raise ValueError(f"row {self.label!r} has no array {name!r} to draw.")
        return np.asarray(found)

    def optional(self, name: str) -> np.ndarray | None:
        """Returns one of its arrays; None if it is absent."""
        return (self.arrays or {}).get(name)


def failed_tests(check: Mapping[str, Any]) -> list[str]:
    """Names of the tests that a check failed.

    Example:
      >>> failed_tests({"rows": [{"name": "mean", "passed": True},
      ...                        {"name": "radius", "passed": False}]})
      ['radius']
    """
    return [row["name"] for row in check.get("rows") or () if not row.get("passed")]


def checked(rows: Sequence[LawRow]) -> list[LawRow]:
    """The rows whose samples were held against a law."""
    return [row for row in rows if row.check]


def obeying(rows: Sequence[LawRow]) -> list[LawRow]:
    """The rows whose samples passed."""
    return [row for row in checked(rows) if (row.check or {}).get("passed")]


def all_twins(rows: Sequence[LawRow]) -> list[tuple[LawRow, Mapping[str, Any]]]:
    """Every wrong sample or law with the row that it was tried on."""
    return [(row, twin) for row in rows for twin in row.twins]
