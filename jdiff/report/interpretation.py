"""What explains a network: its measures against the noise level, and the closed forms beside it.

The table's numbers for the denoiser are means over the noise levels it was measured at, each level
counting alike; the figures show every level. All numbers are means over seeds with their range.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jdiff.report import figures, formats, glossary, groups, tables
from jdiff.report.groups import Group, Spread
from jdiff.report.rows import Row

STATISTIC = "pearson_r"  # of the table and the figures; the other four are folded away
_EXPLAINED, _SAMPLES = "explained_by ", "samples of "
_LOWEST_IS_BEST = ("mse",)
SHARE = "75%"  # of the locality profile that is drawn


@dataclass(frozen=True, eq=False)
class Curve:
    """A measure of one architecture against the noise level, over its seeds.

    Attributes:
      sigmas: float64 [T], rising; all levels at which a run has the measure.
      mean: [T] over the runs that have the level, NaN where none has a number.
      low: [T] the smallest of them.
      high: [T] the largest of them.
      control: [T] the mean of the controls, NaN where there is none.
      note: what the measure was taken with, where architectures differ in it.
    """

    sigmas: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    control: np.ndarray
    note: str = ""


@dataclass(frozen=True, eq=False)
class Panel:
    """One measure: a caption, and a curve or None for each architecture."""

    caption: str
    curves: tuple[Curve | None, ...]


@dataclass(frozen=True, eq=False)
class Family:
    """Panels that are read alike.

    Attributes:
      name: for addresses in the page.
      title: what is asked.
      read: how to read it.
      y: what the y axis is called.
      panels: its measures.
      ends: values that the y axis must reach.
      control: whether the control is drawn too.
    """

    name: str
    title: str
    read: str
    y: str
    panels: tuple[Panel, ...]
    ends: tuple[float, ...] = ()
    control: bool = False


def interpreted(rows: Sequence[Row]) -> list[Group]:
    """The architectures that have any measure of this section."""
    known = lambda row: any(
        glossary.of_denoiser(key) and row.measure(key) for key in row.record.get("measures") or {}
    )
    return [one for one in groups.group(rows) if any(map(known, one.runs))]


def key(reference: str, statistic: str, *, samples: bool = False) -> str:
    """The key of an agreement with a closed form, of the denoiser or of its samples."""
    return f"{_EXPLAINED}{_SAMPLES if samples else ''}{reference} {statistic}"


def references(rows: Sequence[Row]) -> list[str]:
    """The closed forms that any row is explained by, in the order they appear."""
    found = []
    for row in rows:
        for name in row.record.get("measures") or {}:
            words, _, statistic = name.rpartition(" ")
            if name.startswith(_EXPLAINED) and statistic in glossary.STATISTICS:
                found.append(words.removeprefix(_EXPLAINED).removeprefix(_SAMPLES))
    return list(dict.fromkeys(found))


def named(reference: str) -> str:
    """A closed form in words.

    Example:
      >>> named("local_linear 5"), named("equivariant_linear")
      ('local linear 5 × 5', 'equivariant linear')
    """
    words, _, last = reference.replace("_", " ").rpartition(" ")
    return f"{words} {last} × {last}" if words and last.isdecimal() else f"{words} {last}".strip()


def explained(one: Group, reference: str, statistic: str, *, samples: bool = False) -> Spread:
    """An agreement over seeds: of the samples, or of the denoiser as a mean over noise levels.

    A run without a number at one of its levels has no mean.
    """
    entries = [row.measure(key(reference, statistic, samples=samples)) for row in one.runs]
    values = [np.ravel(np.array(entry.get("value"), np.float64)) for entry in entries]
    return Spread.of([float(np.mean(value)) for value in values if value.size])


def best(one: Group, names: Sequence[str], *, samples: bool = False) -> str | None:
    """The closed form that agrees best, by the mean over seeds of Pearson's r."""
    means = {name: explained(one, name, STATISTIC, samples=samples).mean for name in names}
    known = {name: mean for name, mean in means.items() if mean is not None}
    return max(known, key=lambda name: known[name]) if known else None


def agreement(rows: Sequence[Row], statistic: str = STATISTIC) -> dict[str, Any]:
    """A table of agreements: halves (samples, denoiser), a line an architecture.

    Args:
      rows: all rows of the report.
      statistic: one of `glossary.STATISTICS`.
    """
    names, found = references(rows), interpreted(rows)
    colors, form = figures.colors(rows), glossary.measure(statistic).form
    halves = [
        {"samples": samples, "title": title, "names": names}
        for samples, title in ((True, "its samples"), (False, "its denoiser, mean over levels"))
        if any(
            explained(one, name, statistic, samples=samples).count
            for one in found
            for name in names
        )
    ]
    choose = min if statistic in _LOWEST_IS_BEST else max
    lines = []
    for one in found:
        cells = []
        for half in halves:
            spreads = [explained(one, n, statistic, samples=half["samples"]) for n in names]
            means = [spread.mean for spread in spreads if spread.mean is not None]
            for place, (name, spread) in enumerate(zip(names, spreads, strict=True)):
                cell: dict[str, Any] = tables.spread_cell(spread, form, len(one.runs))
                cell["best"] = bool(means) and spread.mean == choose(means)
                cell["label"], cell["first"] = named(name), place == 0
                cell["column"] = key(name, statistic, samples=half["samples"])
                cells.append(cell)
        field = one.spread("receptive_field")
        lines.append(
            {
                "name": one.name,
                "parts": one.parts,
                "color": colors[one.numbers[0]],
                "field": tables.spread_cell(field, formats.count, len(one.runs), fixed=True),
                "cells": cells,
            }
        )
    return {
        "title": glossary.measure(statistic).title,
        "halves": halves,
        "names": [named(name) for name in names],
        "lines": lines if halves else [],
    }


def levels(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """The noise levels that denoisers were measured at: (in words, names of architectures).

    Those of most architectures come first; a network for every level has levels of its own.
    """
    found: dict[str, list[str]] = {}
    for one in interpreted(rows):
        names = {name: None for row in one.runs for name in row.record.get("measures") or {}}
        sigmas = [
            sigma
            for name in filter(glossary.of_denoiser, names)
            for row in one.runs
            for sigma in _sigmas(row, name)
        ]
        if sigmas:
            words = [formats.significant(sigma) for sigma in sorted(set(sigmas), reverse=True)]
            if len(words) > 5:
                words[2:-2] = ["…"]
            found.setdefault(", ".join(words).replace("…,", "…"), []).append(one.name)
    return sorted(found.items(), key=lambda pair: -len(pair[1]))


def families(rows: Sequence[Row]) -> list[Family]:
    """The figures over the noise level, those of them that have a curve."""
    found = interpreted(rows)
    made = [
        Family(
            "locality",
            "How far does it look?",
            "Side of the square around a pixel that holds 75 % of what moves the denoiser’s answer "
            "there. Low: a pixel is decided by its surroundings. High: by the whole image. Thin "
            "dashed lines: the same at noisy images that were held out of training.",
            "side (pixels)",
            (_panel(found, "", lambda _: f"locality_profile {SHARE}"),),
            ends=(0.0,),
            control=True,
        ),
        Family(
            "equivariance",
            "Does it treat every place alike?",
            "How much the answer changes, beyond being moved along, when the noisy image is "
            "shifted. 0: no place is special. A network that halves its grid once, twice, … can "
            "treat alike only places that lie 2, 4, … pixels apart, so such a shift is shown too; "
            "its length stands in brackets.",
            "error",
            (
                _panel(found, "shifts by one pixel", lambda _: "equivariance_error step 1"),
                _panel(found, "longer shifts", _longest_step, note=_step),
            ),
            ends=(0.0,),
        ),
        Family(
            "psnr",
            "Does it know its own images?",
            "How much better it restores training images than held-out ones, in decibels. 0: it "
            "has learnt what images are like. Above 0: it has learnt these images.",
            "PSNR gap (dB)",
            (_panel(found, "", lambda _: "psnr_gap"),),
            ends=(0.0,),
        ),
        Family(
            "agreement",
            "Where does a closed form explain it?",
            "Pearson r between its answers and those of each closed form to the same noisy images. "
            "1: it does the same there. At the noisiest levels all answer with the mean image and "
            "at the cleanest with the image itself, so the levels between tell them apart.",
            "Pearson r",
            tuple(
                _panel(found, named(name), lambda _, name=name: key(name, STATISTIC))
                for name in references(rows)
            ),
            ends=(1.0,),
        ),
    ]
    made = [_without_empty(family) for family in made]
    return [family for family in made if family.panels]


def curve(one: Group, choose: Callable[[Row], str], note: str = "") -> Curve | None:
    """A measure of an architecture over its seeds, None if no run has it at any level.

    Args:
      one: the architecture.
      choose: the measure's key in a row.
      note: kept in the curve.
    """
    at: dict[float, list[tuple[float, float]]] = {}
    for row in one.runs:
        name = choose(row)
        entry, sigmas = row.measure(name), _sigmas(row, name)
        missing = [None] * len(sigmas)
        control = entry.get("control")
        pairs = zip(sigmas, entry.get("value") or missing, control or missing, strict=True)
        for sigma, *numbers in pairs:
            value, other = np.array(numbers, np.float64)
            at.setdefault(sigma, []).append((value, other))
    sigmas = np.array(sorted(at), np.float64)
    own = [Spread.of([value for value, _ in at[sigma]]) for sigma in sigmas]
    controls = [Spread.of([value for _, value in at[sigma]]).mean for sigma in sigmas]
    if not any(spread.count for spread in own):
        return None
    mean, low, high = (
        np.array(ends, np.float64) for ends in zip(*(s[:3] for s in own), strict=True)
    )
    return Curve(sigmas, mean, low, high, np.array(controls, np.float64), note)


def _sigmas(row: Row, name: str) -> list[float]:
    """The levels of a measure that has one value at each; none for one number.

    Raises:
      ValueError: if it does not say at which levels its values were taken.
    """
    entry = row.measure(name)
    value: Any = entry.get("value")
    sigmas: Any = (entry.get("constants") or {}).get("sigmas")
    if np.ndim(value) != 1:
        return []
    if np.shape(sigmas) != np.shape(value):
        raise ValueError(
            f"measure {name!r} of row {row.label!r} must have one noise level in its constants' "
            f"'sigmas' for each of its {len(value)} values; got {sigmas!r}."
        )
    return [float(sigma) for sigma in sigmas]


def _panel(
    found: Sequence[Group],
    caption: str,
    choose: Callable[[Row], str],
    note: Callable[[Group], str] = lambda _: "",
) -> Panel:
    return Panel(caption, tuple(curve(one, choose, note(one)) for one in found))


def _without_empty(family: Family) -> Family:
    kept = tuple(panel for panel in family.panels if any(panel.curves))
    return dataclasses.replace(family, panels=kept)


def _longest_step(row: Row) -> str:
    """The key of the equivariance error at the longest shift above one pixel."""
    prefix = "equivariance_error step "
    names = [name for name in row.record.get("measures") or {} if name.startswith(prefix)]
    steps = [int(name.removeprefix(prefix)) for name in names if name[len(prefix) :].isdecimal()]
    return f"{prefix}{max([0, *(step for step in steps if step > 1)])}"


def _step(one: Group) -> str:
    steps = {_longest_step(row).rpartition(" ")[2] for row in one.runs} - {"0"}
    return ", ".join(sorted(steps))
