"""All measures of one evaluation as a table: on the page with a small mark, and in a terminal."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jdiff.report import formats, glossary
from jdiff.report.evaluation_record import EXPLAINED, Finding, Findings

WIDTH, HEIGHT = 120, 26  # of a mark
OTHERS = "Further measures"


_NO_VERDICT = "no verdict, which reads memorized_fraction, precision and frechet_distance"


def evaluation_table(record: Mapping[str, Any]) -> str:
    """The measures as aligned text, one line each, then the verdict with its reason.

    Args:
      record: the contents of evaluation.json.

    Raises:
      TypeError: if it is no mapping.
      ValueError: on a record that does not hold together, see `Findings`.

    Example:
      >>> measures = {"recall": {"value": 0.5, "interval": [0.4, 0.6], "control": 0.7, "n": 90}}
      >>> record = {"schema": 1, "kind": "evaluation", "title": "unet", "measures": measures}
      >>> print(evaluation_table(record))
      measure  value [95 %]         control [95 %]  n
      recall   0.500 [0.400–0.600]  0.700           90
      no verdict, which reads memorized_fraction, precision and frechet_distance
    """
    found = Findings(record, {})
    lines = [("measure", "value [95 %]", "control [95 %]", "n")]
    for _, measures in grouped(found):
        lines += [
            (
                _name(measure),
                _text(measure, "value", "interval"),
                _text(measure, "control", "control_interval"),
                formats.plain(measure.entry.get("n")),
            )
            for measure in measures
        ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    text += [f"not measured: {name}: {why}" for name, why in skipped(found)]
    word, reason = found.verdict.get("word"), found.verdict.get("reason")
    text.append(f"{found.title}: {word}. {reason or ''}".rstrip() if word else _NO_VERDICT)
    return "\n".join(text)


def grouped(found: Findings, *, folded: bool = True) -> list[tuple[str, list[Finding]]]:
    """The measures by the groups of the glossary, in its order; unlisted ones last.

    Args:
      found: all of them.
      folded: whether those of explained_by, five a closed form, are among them.
    """
    known = [kind for kinds in glossary.GROUPS.values() for kind in kinds]
    groups = glossary.GROUPS | {
        OTHERS: tuple(dict.fromkeys(m.kind for m in found.measures if m.kind not in known))
    }
    made = []
    for name, kinds in groups.items():
        own = [m for kind in kinds if folded or kind != EXPLAINED for m in found.of(kind)]
        made += [(name, own)] if own else []
    return made


def skipped(found: Findings) -> list[tuple[str, str]]:
    """What was not measured, and why."""
    return list((found.record.get("skipped") or {}).items())


def rows(measures: list[Finding]) -> list[dict[str, Any]]:
    """One group's lines of the page's table; a meaning stands once for measures of one kind."""
    made = []
    for i, measure in enumerate(measures):
        first = i == 0 or measures[i - 1].kind != measure.kind
        alike = [other for other in measures if other.kind == measure.kind]
        made.append(
            {
                "key": measure.key,
                "title": measure.title,
                "features": measure.features,
                "n": measure.entry.get("n"),
                "levels": measure.levels,
                "value": printed(measure, "value", "interval"),
                "control": printed(measure, "control", "control_interval"),
                "mark": mark(measure),
                "first": first,
                "span": len(alike),
                "reading": glossary.measure(measure.kind).reading if first else "",
            }
        )
    return made


def printed(measure: Finding, field: str, ends: str) -> dict[str, str]:
    """A number with its interval as it is read, and both in full as the record has them.

    Args:
      measure: whose.
      field: "value" or "control"; of one value a noise level the smallest and the largest.
      ends: the field of its interval.
    """
    interval = measure.entry.get(ends)
    if measure.levels:
        levels = f"{measure.levels} noise level{'s' * (measure.levels > 1)}"
        return {
            "text": _range(measure, field),
            "number": _full(measure.numbers(field)),
            "interval": levels if field == "value" else "",
            "ends": _full(measure.numbers(ends)),
        }
    text = formats.interval(interval, measure.form)
    return {
        "text": measure.form(measure.entry.get(field)),
        "number": _full(measure.numbers(field)),
        "interval": text if text != formats.DASH else "",
        "ends": _full(measure.numbers(ends)) if text != formats.DASH else "",
    }


def mark(measure: Finding) -> dict[str, Any]:
    """Where value and control lie in a strip of WIDTH x HEIGHT, to be drawn beside the numbers.

    Shares have the axis 0 .. 1; anything else one that holds 0 and all of the measure's numbers.
    One value a noise level becomes two curves, from low noise to high.

    Returns:
      "value" and "control", each None or {"at", "ends"} (x of a number and of its interval), or of
      curves {"points"}; empty if there is nothing to draw.
    """
    pairs = (("value", "interval"), ("control", "control_interval"))
    values = np.concatenate([measure.numbers(field).ravel() for pair in pairs for field in pair])
    values = values[np.isfinite(values)]
    if not measure.known:
        return {}
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    if _is_share(measure, low, high):
        low, high = 0.0, 1.0
    span = (high - low) or 1.0
    if measure.levels:
        order = np.argsort(measure.sigmas, kind="stable")
        x = np.linspace(4, WIDTH - 4, len(order)) if len(order) > 1 else np.array([WIDTH / 2])
        line = lambda y: HEIGHT - 4 - (HEIGHT - 8) * (y - low) / span
        return {
            field: {"points": _points(x, line(measure.numbers(field)[order]))} for field, _ in pairs
        }
    place = lambda number: round(4 + (WIDTH - 8) * (float(number) - low) / span, 2)
    made: dict[str, Any] = {"zero": place(0.0) if low < 0 else None}
    for field, ends in pairs:
        number, interval = measure.numbers(field), measure.numbers(ends)
        bounds = [place(end) for end in interval] if np.isfinite(interval).all() else None
        made[field] = {"at": place(number), "ends": bounds} if np.isfinite(number) else None
    return made


def _is_share(measure: Finding, low: float, high: float) -> bool:
    """Whether a measure is printed as a share and all of its numbers are one."""
    return measure.form(0.5) == formats.proportion(0.5) and low >= 0 and high <= 1


def _points(x: np.ndarray, y: np.ndarray) -> str:
    finite = np.isfinite(y)
    return " ".join(f"{a:.2f},{b:.2f}" for a, b in zip(x[finite], y[finite], strict=True))


def _full(values: np.ndarray) -> str:
    """Numbers with all their digits, missing ones as nan; nothing where all are missing."""
    numbers = values.ravel().tolist()
    return " ".join(map(repr, numbers)) if np.isfinite(values).any() else ""


def _range(measure: Finding, field: str) -> str:
    numbers = measure.numbers(field)
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return formats.DASH
    low, high = float(finite.min()), float(finite.max())
    return measure.form(low) if low == high else formats.interval([low, high], measure.form)


def _name(measure: Finding) -> str:
    """As jdiff.metrics calls it, with what tells it from others, and its feature space."""
    name = " ".join((EXPLAINED, *measure.explains[::-1])) if measure.explains else measure.name
    name = f"{name}, {measure.differs}" if measure.differs else name
    return f"{name} ({measure.features})" if measure.features else name


def _text(measure: Finding, field: str, ends: str) -> str:
    cell = printed(measure, field, ends)
    if not cell["interval"]:
        return cell["text"]
    form = "{text} ({interval})" if measure.levels else "{text} [{interval}]"
    return form.format(**cell)
