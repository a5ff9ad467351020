"""The tables of the study `laws`: every test of every law, and all cases in numbers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jdiff.report import formats, glossary, law_glossary
from jdiff.report.law_rows import LawRow, checked, failed_tests


def said(row: LawRow) -> str:
    """What the tests say of a row's samples, in a word or two."""
    if row.failed:
        return "failed"
    if row.check:
        failed = failed_tests(row.check)
        return _obeys(row) if row.check.get("passed") else f"rejected by {', '.join(failed)}"
    return "not tested" if row.law else "no law"


def _obeys(row: LawRow) -> str:
    """That a row's samples passed, and whose law if it is not their own."""
    if row.law == "dimension":
        return "within its bound"
    other = row.record.get("law_of")
    return f"obeys the law of {other}" if other else "obeys"


def measured(row: LawRow, name: str) -> str:
    """A measure as text: value [interval] (control)."""
    entry, form = row.measure(name), glossary.measure(name).form
    text = form(entry.get("value"))
    if formats.interval(entry.get("interval")) != formats.DASH:
        text += f" [{formats.interval(entry['interval'], form)}]"
    if not formats.missing(entry.get("control")):
        text += f" ({form(entry['control'])})"
    return text


def error(row: LawRow) -> str:
    """What stopped a failed row."""
    return row.record.get("error") or "stopped without a message"


def word(row: LawRow) -> tuple[str, str]:
    """A row's badge: its class and its words."""
    if row.failed:
        return "failed", "failed"
    if row.check:
        return ("obeys", _obeys(row)) if row.check.get("passed") else ("rejected", "rejected")
    return ("none", "") if row.law else ("none", "no law")


def share(value: float | None) -> str:
    """A share in per cent."""
    if value is None or formats.missing(value):
        return formats.DASH
    return f"{formats.significant(100 * value, 2)}\u00a0%"


def ordered(names: Iterable[str]) -> list[str]:
    """Names of tests in the order of the page, those that it does not know last."""
    names = set(names)
    known = [name for name in law_glossary.TESTS if name in names]
    return known + sorted(names - set(known))


def tables(rows: Sequence[LawRow]) -> list[dict[str, Any]]:
    """One table a kind of law: its rows, and the tests that any of them took as columns."""
    made = []
    for kind in dict.fromkeys([*law_glossary.KINDS, *(row.law for row in checked(rows))]):
        own = [row for row in checked(rows) if row.law == kind]
        columns = ordered({test["name"] for row in own for test in _tests(row.check)})
        if own:
            title = law_glossary.KINDS.get(kind or "", kind or "Other laws")
            lines = [_table_row(row, columns) for row in own]
            made.append({"title": title, "columns": columns, "rows": lines})
    return made


def _tests(check: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    return (check or {}).get("rows") or ()


def _table_row(row: LawRow, columns: Sequence[str]) -> dict[str, Any]:
    """A row of a table: a cell a test, the failures in words, the wrong laws."""
    tests = {test["name"]: test for test in _tests(row.check)}
    check = row.check or {}
    facts = [formats.plain(check["num_samples"]) + " samples"] if check.get("num_samples") else []
    if check.get("overflowed"):
        facts.append(f"{check['overflowed']:,} overflowed")
    return {
        "label": row.label,
        "data": row.record.get("data") or "",
        "facts": ", ".join(facts),
        "badge": word(row),
        "cells": [_cell(name, tests.get(name)) for name in columns],
        "failures": [_failure(test) for test in tests.values() if not test.get("passed")],
        "twins": [
            {
                "about": twin["about"],
                "passed": bool(twin["check"].get("passed")),
                "by": [
                    (test["name"], _chance(test))
                    for test in _tests(twin["check"])
                    if not test.get("passed")
                ],
            }
            for twin in row.twins
        ],
    }


def _cell(name: str, test: Mapping[str, Any] | None) -> dict[str, Any]:
    if test is None:
        return {"name": name, "mark": "", "text": formats.DASH, "detail": ""}
    known = not formats.missing(test.get("statistic"))
    return {
        "name": name,
        "mark": "✓" if test.get("passed") else "✗",
        "passed": bool(test.get("passed")),
        "text": formats.significant(test.get("statistic")),
        "number": formats.full(test["statistic"]) if known else "",
        "below": _chance(test) or f"law: {formats.significant(test.get('expected'))}",
        "detail": test.get("detail") or "",
    }


def _chance(test: Mapping[str, Any]) -> str:
    """A test's p-value; empty if it leaves nothing to chance."""
    p = test.get("p_value")
    if p is None or formats.missing(p):
        return ""
    text = "p < 1e−300" if p < 1e-300 else f"p = {formats.significant(p, 2)}"
    return text.replace(" ", "\u00a0")


def _failure(test: Mapping[str, Any]) -> str:
    found, wanted = (formats.significant(test.get(key)) for key in ("statistic", "expected"))
    text = [f"{test['name']}: {found}, where the law has {wanted}", _chance(test)]
    return "; ".join(filter(None, [*text, test.get("detail")]))


def numbers(row: LawRow) -> dict[str, Any]:
    """A row in the list of all cases."""
    seconds = [row.number("seconds", name) for name in ("fit", "sample", "law")]
    return {
        "section": row.section.replace("_", " "),
        "label": row.label,
        "cells": [
            row.record.get("data") or formats.DASH,
            formats.plain(row.record.get("num_train")),
            formats.plain(row.record.get("num_samples")),
            row.law or formats.DASH,
            said(row),
            measured(row, "memorized_fraction"),
            measured(row, "law_distance"),
            share(row.measure("escaped").get("value")),
            " / ".join(formats.significant(value, 2) for value in seconds),
        ],
    }
