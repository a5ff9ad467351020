"""What the page's tables print: one line an architecture over its seeds, and one line a run.

Every printed number carries its full value, as results.json has it or as a mean over seeds.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jdiff.report import entries, figures, formats, glossary, groups
from jdiff.report.groups import Group, Spread
from jdiff.report.rows import Row, titles


def context(rows: Sequence[Row]) -> dict[str, Any]:
    """What the tables' templates take: columns, single runs, architectures and their cells."""
    main, extra = glossary.main_measures(rows), glossary.extra_measures(rows)
    costs = entries.shown(entries.COSTS, rows)
    several = groups.several(rows)
    return {
        "rows": runs(rows, main, extra, costs),
        "main": [_heading(rows, name) for name in main],
        "extra": [_heading(rows, name) for name in extra],
        "costs": [_cost_heading(cost) for cost in costs],
        "sizes": sorted(filter(None, {row.measure(m).get("n") or 0 for row in rows for m in main})),
        "several": several,
        "groups": architectures(rows, main, extra) if several else [],
        "group_costs": [_cost_heading(cost) for cost in _group_costs(rows)],
        "seeds": _seeds(rows),
        "base": groups.compared_with(groups.group(rows)),
        "chance": _chance(rows),
    }


def runs(
    rows: Sequence[Row], main: Sequence[str], extra: Sequence[str], costs: Sequence[entries.Entry]
) -> list[dict[str, Any]]:
    """One line a run: every measure with its interval over samples and its control."""
    parts = _run_parts(rows)
    return [
        {
            "name": name,
            "parts": own,
            "color": color,
            "failed": row.failed,
            "error": row.error,
            "optimal": row.record.get("architecture") == "optimal",
            "word": "failed" if row.failed else row.verdict.get("word") or "",
            "reason": row.verdict.get("reason") or "",
            "main": [_cell(row, measure) for measure in main],
            "extra": [_cell(row, measure) for measure in extra],
            "costs": [printed(row.entry(*c.path), None, c.form) for c in costs],
        }
        for row, name, own, color in zip(
            rows, titles(rows), parts, figures.colors(rows), strict=True
        )
    ]


def architectures(
    rows: Sequence[Row], main: Sequence[str], extra: Sequence[str]
) -> list[dict[str, Any]]:
    """One line an architecture: every measure's mean over seeds, its range, and the control."""
    found, colors = groups.group(rows), figures.colors(rows)
    base = groups.compared_with(found)
    return [
        {
            "name": one.name,
            "parts": one.parts,
            "color": colors[one.numbers[0]],
            "said": one.said,
            "counts": one.counts,
            "number": len(one.rows),
            "failed": not one.runs,
            "errors": _errors(one),
            "main": [over_seeds(one, name, base) for name in main],
            "extra": [over_seeds(one, name) for name in extra],
            "costs": [_cost(one, cost) for cost in _group_costs(rows)],
        }
        for one in found
    ]


def over_seeds(one: Group, name: str, base: Group | None = None) -> dict[str, str]:
    """A measure of an architecture: mean, range over seeds, control, and how it lies to the base.

    Args:
      one: the architecture.
      name: the measure.
      base: what it is compared with; "moved" is "up" or "down" where the ranges lie apart.
    """
    form = glossary.measure(name).form
    spread = one.spread("measures", name, "value")
    cell = spread_cell(spread, form, len(one.runs))
    values: list[Any] = [row.measure(name).get("value") for row in one.runs]
    if not spread.count and any(np.ndim(value) > 0 for value in values):
        cell["text"] = "one a noise level"
    control = one.spread("measures", name, "control")
    cell["control"], cell["control_number"] = "", ""
    if control.mean is not None:
        equal = control.low == control.high
        cell["control"] = form(control.mean) if equal else formats.interval(control.ends, form)
        cell["control_number"] = formats.full(control.mean)
    cell["moved"] = ""
    if base is not None and base is not one:
        cell["moved"] = groups.moved(spread, base.spread("measures", name, "value"))
    return cell


def spread_cell(
    spread: Spread, form: Callable[[Any], str], runs: int, *, fixed: bool = False
) -> dict[str, str]:
    """A number over seeds: the mean, the range, and over how many runs if not over all.

    Args:
      spread: mean and range.
      form: how its numbers are printed.
      runs: how many did not fail.
      fixed: whether a number that is the same in all runs, such as a count of parameters, is
        printed without a range.
    """
    if spread.mean is None:
        return {"text": formats.DASH, "number": "", "range": "", "ends": "", "count": ""}
    ends = None if fixed and spread.low == spread.high else spread.ends
    return {
        "text": form(spread.mean),
        "number": formats.full(spread.mean),
        "range": formats.interval(ends, form) if ends else "",
        "ends": " ".join(map(formats.full, ends)) if ends else "",
        "count": f"{spread.count} of {runs}" if spread.count < runs else "",
    }


def printed(value: Any, ends: Any, form: Callable[[Any], str]) -> dict[str, str]:
    """A number as it is read ("text") and in full, as results.json has it ("number")."""
    if np.ndim(value) > 0:  # one value a noise level
        return {
            "text": formats.plain(np.asarray(value).tolist()),
            "number": "",
            "interval": "",
            "ends": "",
        }
    interval = formats.interval(ends, form)
    known, bounded = not formats.missing(value), interval != formats.DASH
    return {
        "text": form(value),
        "number": formats.full(value) if known else "",
        "interval": interval if bounded else "",
        "ends": " ".join(map(formats.full, ends)) if bounded else "",
    }


def settings(rows: Sequence[Row]) -> dict[str, Any]:
    """How each architecture was made: one line each, what differs from seed to seed joined."""
    columns = entries.shown(entries.SETTINGS, rows)
    colors, lines = figures.colors(rows), []
    for one in groups.group(rows):
        cells = [_joined([row.entry(*c.path) for row in one.rows], c.form) for c in columns]
        color = colors[one.numbers[0]]
        lines.append({"name": one.name, "parts": one.parts, "color": color, "cells": cells})
    return {"entries": columns, "used": lines}


def definitions(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each measure in words, with the n, features and constants it was taken with."""
    listed = [*glossary.main_measures(rows), *glossary.extra_measures(rows)]
    keys = {key: None for row in rows for key in row.record.get("measures") or {}}
    made = [_definition(rows, name, [name]) for name in listed]
    for kind in glossary.GROUPS["Denoiser"]:
        own = [key for key in keys if key.partition(" ")[0] == kind]
        if own:
            made.append(_definition(rows, kind, own))
    return made


def _definition(rows: Sequence[Row], name: str, keys: Sequence[str]) -> dict[str, Any]:
    found = [row.measure(key) for row in rows for key in keys if row.measure(key)]
    taken = []
    for key, form in (("n", "n = {}"), ("features", "on {}"), ("constants", "{}")):
        # A family of measures differs in constants, which its figures name.
        values = [entry.get(key) for entry in found] if key != "constants" or keys == [name] else []
        words = {formats.plain(value) for value in values} - {formats.DASH}
        taken += [form.format(value) for value in sorted(words)]
    title, words = glossary.title(name, rows), glossary.measure(name).definition
    return {"title": title, "words": words, "taken": ", ".join(taken)}


def _group_costs(rows: Sequence[Row]) -> list[entries.Entry]:
    return [*entries.shown(entries.COSTS, rows), entries.TRAINING]


def _heading(rows: Sequence[Row], name: str) -> dict[str, Any]:
    controls = [row.measure(name).get("control") for row in rows]
    return {
        "name": name,
        "title": glossary.title(name, rows),
        "short": glossary.title(name, rows, short=True),
        "has_control": not all(map(formats.missing, controls)),
    }


def _cost_heading(cost: entries.Entry) -> dict[str, str]:
    return {"name": cost.name, "title": cost.definition, "short": cost.title}


def _cell(row: Row, name: str) -> dict[str, Any]:
    """One measure of one row: the value and its control, each with its interval."""
    entry, form = row.measure(name), glossary.measure(name).form
    return {
        "value": printed(entry.get("value"), entry.get("interval"), form),
        "control": printed(entry.get("control"), entry.get("control_interval"), form),
    }


def _cost(one: Group, cost: entries.Entry) -> dict[str, str]:
    return spread_cell(one.spread(*cost.path), cost.form, len(one.runs), fixed=True)


def _run_parts(rows: Sequence[Row]) -> list[tuple[tuple[str, bool], ...]]:
    """Each run's title in pieces: those of its architecture, then its seed; or in one piece."""
    names = titles(rows)
    if not groups.several(rows):
        return [((name, True),) for name in names]
    found = {i: one for one in groups.group(rows) for i in one.numbers}
    return [
        (*found[i].parts, *_seed_part(name.removeprefix(found[i].name)))
        for i, name in enumerate(names)
    ]


def _seed_part(suffix: str) -> list[tuple[str, bool]]:
    return [("\u00a0" + suffix.removeprefix(", "), False)] if suffix else []


def _errors(one: Group) -> list[tuple[str, str]]:
    """Which seeds failed, and why."""
    return [(formats.plain(row.record.get("seed")), row.error) for row in one.rows if row.failed]


def _joined(values: Sequence[Any], form: Callable[[Any], str]) -> str:
    """Settings of several seeds as one text: equal ones once, numbers that are many by ends."""
    known = [value for value in values if not formats.missing(value)]
    texts = list(dict.fromkeys(map(form, known)))
    if len(texts) < 2:
        return texts[0] if texts else formats.DASH
    if all(isinstance(value, float) for value in known):
        return formats.interval((min(known), max(known)), form)
    return ", ".join(texts)


def _seeds(rows: Sequence[Row]) -> str:
    """How many seeds the architectures that have several were run with, in words."""
    sizes = sorted({len(one.rows) for one in groups.group(rows)} - {1})
    if not sizes:
        return ""
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


def _chance(rows: Sequence[Row]) -> str:
    """How often two architectures' ranges lie apart by chance, if there are seeds enough."""
    base = groups.compared_with(groups.group(rows))
    if base is None or len(base.runs) < groups.LEAST_SEEDS:
        return ""
    number = len(base.runs)
    share = f"{100 * groups.chance(number):.2g}"
    return f"{share}\u00a0% of comparisons of {number} seeds with {number}"
