"""What a report is made from: one `Row` an architecture, its record and its pictures.

A record is one row of results.json; pictures are the arrays that figures draw. Nothing here is
computed from them: measures, intervals, controls and verdicts come ready from the study.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jdiff import _check

SCHEMA = 1
STATUSES = ("ok", "failed")


@dataclass(frozen=True, eq=False)
class Pictures:
    """The arrays behind one row's figures; n samples, m held-out images.

    Attributes:
      samples: [n, H, W, C] float, model units, not clipped. Sample i of every row started from
        the same noise. Pixels that are not finite are drawn as holes.
      nearest: [n, H, W, C] uint8 or float in model units, each sample's nearest training image.
      d1: [n] distance to the nearest training image, Euclidean on pixels in [0, 1].
      d2: [n] distance to the second nearest distinct one.
      held_out_d1: [m] the same for held-out real images.
      held_out_d2: [m] the same for held-out real images.
      history: the learning curves, 1-D arrays by name: "step" with "loss", "held_out_step" with
        "held_out_loss"; None where nothing was trained.

    Raises:
      ValueError: if shapes or lengths do not fit together.
    """

    samples: np.ndarray
    nearest: np.ndarray
    d1: np.ndarray
    d2: np.ndarray
    held_out_d1: np.ndarray
    held_out_d2: np.ndarray
    history: Mapping[str, np.ndarray] | None = None

    def __post_init__(self):
        shape = np.shape(self.samples)
        if len(shape) != 4 or 0 in shape:
            raise ValueError(
                f"samples must have shape [n, height, width, channels], n >= 1; got {shape}."
            )
        for name, wanted in (
            ("nearest", shape),
            ("d1", shape[:1]),
            ("d2", shape[:1]),
            ("held_out_d2", np.shape(self.held_out_d1)),
        ):
            if np.shape(getattr(self, name)) != wanted:
                got = np.shape(getattr(self, name))
                raise ValueError(f"{name} must have shape {wanted}; got {got}.")
        if np.ndim(self.held_out_d1) != 1:
            raise ValueError(f"held_out_d1 must have shape [m]; got {np.shape(self.held_out_d1)}.")
        for step, loss in (("step", "loss"), ("held_out_step", "held_out_loss")):
            lengths = [np.shape(curve) for curve in (self.curve(step), self.curve(loss))]
            if lengths[0] != lengths[1] or len(lengths[0]) != 1:
                raise ValueError(
                    f"history[{step!r}] and history[{loss!r}] must be 1-D and equally long; "
                    f"got shapes {lengths[0]} and {lengths[1]}."
                )

    def curve(self, name: str) -> np.ndarray:
        """Returns one array of the history, empty if it is not there."""
        return np.asarray((self.history or {}).get(name, ()), np.float64)


@dataclass(frozen=True, eq=False)
class Row:
    """One architecture in a report.

    Attributes:
      record: one row of results.json, with at least "label" and "status" ("ok" or "failed").
        Whatever else is missing, None or NaN is printed as a dash.
      pictures: what its figures draw; None if they were not kept, or if it failed.

    Raises:
      ValueError: on a record without a label, an unknown status, or a failed row with pictures.

    Example:
      >>> Row({"label": "unet", "status": "failed", "error": "loss is NaN at step 40"}).failed
      True
    """

    record: Mapping[str, Any]
    pictures: Pictures | None = None

    def __post_init__(self):
        label = self.record.get("label")
        if not isinstance(label, str) or not label:
            raise ValueError(f"record['label'] must be a name that is not empty; got {label!r}.")
        _check.choice("record['status']", self.record.get("status"), STATUSES)
        if self.failed and self.pictures is not None:
            raise ValueError(f"pictures of the failed row {label!r} must be None.")

    @property
    def label(self) -> str:
        """The architecture's name."""
        return self.record["label"]

    @property
    def failed(self) -> bool:
        """Whether it stopped with an error."""
        return self.record["status"] == "failed"

    @property
    def error(self) -> str:
        """What stopped a failed row."""
        return self.record.get("error") or "stopped without a message"

    @property
    def verdict(self) -> Mapping[str, str]:
        """The verdict's "word" and "reason"; empty if there is none."""
        return self.record.get("verdict") or {}

    def measure(self, name: str) -> Mapping[str, Any]:
        """Returns one entry of record["measures"], empty if it was not measured."""
        return self.entry("measures", name) or {}

    def entry(self, *path: str) -> Any:
        """Returns one entry of the record, such as ("seconds", "compile"); None if it is absent."""
        value: Any = self.record
        for key in path:
            value = (value or {}).get(key)
        return value


def titles(rows: Sequence[Row]) -> list[str]:
    """Names that tell the rows apart: the label, with training size and seed where labels repeat.

    Example:
      >>> records = [{"label": "mlp", "status": "ok", "seed": seed} for seed in (0, 1)]
      >>> titles([Row(record) for record in records])
      ['mlp, seed 0', 'mlp, seed 1']
    """
    names = [row.label for row in rows]
    for key, form in (("num_train", "N = {:,}"), ("seed", "seed {}")):
        for label in {row.label for row in rows}:
            same = [i for i, row in enumerate(rows) if row.label == label]
            if len({rows[i].record.get(key) for i in same}) > 1:
                for i in same:
                    value = rows[i].record.get(key)
                    names[i] += ", " + ("–" if value is None else form.format(value))
    return names


def check(results: Mapping[str, Any]) -> None:
    """Refuses the contents of a results.json that this version cannot read.

    Args:
      results: the file's contents: "schema", "study", "command", "device", "versions", "rows",
        and optionally "notes", a list of sentences.

    Raises:
      ValueError: if its schema is another one.
    """
    schema = results.get("schema")
    if schema != SCHEMA:
        raise ValueError(
            f"results['schema'] is {schema!r}; this version of jdiff reads schema {SCHEMA}. "
            "Run the study again, or read it with the version that wrote it."
        )
