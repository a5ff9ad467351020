"""The page of the study `laws`: predictions beside samples, and what the tests say of them.

One HTML file that stands alone, made like the report of `page`. `laws_table` says the same rows in
a terminal.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jdiff import _files
from jdiff.report import (
    canvas,
    formats,
    glossary,
    law_figures,
    law_glossary,
    law_sweep,
    law_tables,
    page,
)
from jdiff.report.law_rows import LawRow, all_twins, checked, obeying
from jdiff.report.rows import check


def write_laws(path: str | os.PathLike, results: Mapping[str, Any], rows: Sequence[LawRow]) -> None:
    """Writes the page; whatever goes wrong, an earlier one at `path` stays as it was.

    Args:
      path: the file to write; its folder is made if need be.
      results: the contents of results.json: "schema", "study" (a name, or its fields by name),
        "command", "device", "versions", and optionally "notes", a list of sentences.
      rows: the rows to show, in order.

    Raises:
      ValueError: if the schema is another one, or there are no rows.
    """
    _files.write_text(path, render_laws(results, rows))


def render_laws(results: Mapping[str, Any], rows: Sequence[LawRow]) -> str:
    """Returns the page as one HTML text; the arguments are those of `write_laws`.

    Equal rows give equal text, byte for byte.
    """
    check(results)
    if not rows:
        raise ValueError("rows must hold at least one row; got none.")
    study = results.get("study")
    settings = dict(study) if isinstance(study, Mapping) else {"name": study}
    if settings.get("num_train", 0) is None:
        settings["num_train"] = "all"
    tables = law_tables.tables(rows)
    used = law_tables.ordered(column for table in tables for column in table["columns"])
    memorized = glossary.measure("memorized_fraction")
    return page.environment().get_template("laws.html.jinja").render(
        study=settings.pop("name", None) or "",
        settings=settings,
        results=results,
        summary=_summary(rows),
        sections=_sections(rows),
        tables=tables,
        tests={name: law_glossary.TESTS.get(name, "") for name in used},
        definitions=law_glossary.DEFINITIONS | {memorized.title: memorized.definition},
        numbers=[law_tables.numbers(row) for row in rows],
        paper=glossary.PAPER,
    )  # fmt: skip


def laws_table(rows: Sequence[LawRow]) -> str:
    """The rows as aligned text: what law, whether it is obeyed, which wrong ones were rejected.

    Example:
      >>> record = {"label": "linear", "section": "gaussian", "status": "ok", "data": "digits",
      ...           "law": "gaussian", "check": {"passed": True, "rows": []}}
      >>> print(laws_table([LawRow(record)])[:50])
      section   case    data    law       verdict  memor
    """
    heads = (
        *("section", "case", "data", "law", "verdict", "memorized [95 %] (control)"),
        *("distance (control)", "wrong rejected"),
    )
    lines = [
        [
            row.section.replace("_", " "),
            row.label,
            row.record.get("data") or formats.DASH,
            row.law or formats.DASH,
            law_tables.said(row),
            law_tables.measured(row, "memorized_fraction"),
            law_tables.measured(row, "law_distance"),
            _rejected(row),
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in (heads, *lines)]
    return "\n".join(
        text + [f"{row.label} failed: {law_tables.error(row)}" for row in rows if row.failed]
    )


def _rejected(row: LawRow) -> str:
    """How many of the wrong laws that were tried were rejected."""
    if not row.twins:
        return formats.DASH
    passed = [twin["about"] for twin in row.twins if twin["check"].get("passed")]
    text = f"{len(row.twins) - len(passed)} of {len(row.twins)}"
    return f"{text}; NOT {', '.join(passed)}" if passed else text


def _summary(rows: Sequence[LawRow]) -> dict[str, Any]:
    """What the head of the page says; every number counts rows."""
    twins = all_twins(rows)
    missed = [(row, twin) for row, twin in twins if twin["check"].get("passed")]
    itself = [twin for _, twin in twins if "training set" in twin["about"]]
    records = [row.record for row in rows]
    # Sets of a few points are told of where they are drawn.
    shown = [r for r in records if r.get("data") and r["section"] not in _ON_A_LINE]
    data = {r["data"]: None for r in shown}
    data |= {r["data"]: r["num_train"] for r in shown if r.get("num_train")}
    used = lambda key: list(dict.fromkeys(r[key] for r in records if r.get(key)))
    chance = lambda check: any(test.get("p_value") is not None for test in check.get("rows") or ())
    alphas = {row.check["alpha"] for row in checked(rows) if row.check and chance(row.check)}
    return {
        "checked": len(checked(rows)),
        "obeying": len(obeying(rows)),
        "disobeying": [
            (row, law_tables.said(row)) for row in checked(rows) if row not in obeying(rows)
        ],
        "twins": len(twins),
        "rejected": len(twins) - len(missed),
        "missed": missed,
        "itself": bool(itself) and not any(twin["check"].get("passed") for twin in itself),
        "failed": [row for row in rows if row.failed],
        "data": data,
        "solvers": used("solver"),
        "grids": [grid for grid in used("sigmas") if isinstance(grid, str)],
        "alphas": [formats.significant(alpha, 2) for alpha in sorted(alphas)],
    }


def _sections(rows: Sequence[LawRow]) -> list[dict[str, Any]]:
    """The sections that have anything to show, in the page's order."""
    made = []
    for name, words in law_glossary.SECTIONS.items():
        own = [row for row in rows if row.section == name]
        section: dict[str, Any] = {"name": name, "about": words}
        section |= {"panels": [], "strips": [], "more": None, "wide": ""}
        shown = [row for row in own if row.arrays or (name == "sweep" and not row.failed)]
        section |= _DRAWN[name](shown) if shown else {}
        section["failed"] = [
            {"label": row.label, "error": law_tables.error(row)} for row in own if row.failed
        ]
        if section["panels"] or section["strips"] or section["wide"] or section["failed"]:
            made.append(section)
    return made


def _panel(row: LawRow, figure: Any, part: str, caption: str, notes: Sequence[str] = ()) -> dict:
    """A figure of one row with its caption, its badge and what is said below."""
    name = f"{row.section}-{part}"
    return {
        "caption": caption,
        "label": row.label,
        "badge": law_tables.word(row),
        "notes": [note for note in notes if note],
        "svg": page.svg(figure, name, f"{law_glossary.SECTIONS[row.section].title}: {row.label}"),
    }


def _star(rows: Sequence[LawRow]) -> dict[str, Any]:
    captions = [f"degree {row.number('knob')}, {len(row.array('points'))} points" for row in rows]
    return {"panels": list(_lines(rows, captions, _shared(rows)))}


def _two_points(rows: Sequence[LawRow]) -> dict[str, Any]:
    shared = law_figures.frame(rows)
    captions = [f"degree {row.number('knob')}" for row in rows]
    panels = list(_lines(rows, captions, lambda row: law_figures.density(row, shared)))
    last = next((row for row in rows if row.optional("optimal_samples") is not None), None)
    if last is not None:
        drawn = law_figures.copies(last, shared)
        panels.append(_panel(last, drawn, "optimal", "optimal denoiser") | {"badge": ("none", "")})
    return {"panels": panels}


def _moments(rows: Sequence[LawRow]) -> dict[str, Any]:
    draw = _shared(rows, beside=True)
    return {"panels": list(_lines(rows, [row.label for row in rows], draw))}


def _shared(rows: Sequence[LawRow], beside: bool = False) -> Callable[[LawRow], Any]:
    """Draws each row on the axes of all, if wanted with the first one's density beside it."""
    shared = law_figures.frame(rows)
    return lambda row: law_figures.line(row, shared, rows[0] if beside else None)


def _lines(rows: Sequence[LawRow], captions: Sequence[str], draw: Any) -> Iterator[dict]:
    for i, (row, caption) in enumerate(zip(rows, captions, strict=True)):
        if row.number("knob") is None:
            caption = row.label
        notes, (escaped, deviation) = [], (row.measure(n) for n in ("escaped", "deviation"))
        if escaped.get("value") or escaped.get("control"):
            said = (law_tables.share(escaped.get(key)) for key in ("value", "control"))
            notes.append("escaped: {} of the samples, {} by the law".format(*said))
        if deviation:
            said = (formats.significant(deviation.get(key), 3) for key in ("value", "control"))
            notes.append("standard deviation {}, by the law {}".format(*said))
        yield _panel(row, draw(row), str(i), caption, notes)


def _gaussian(rows: Sequence[LawRow]) -> dict[str, Any]:
    plots = [_panel(r, law_figures.diagonal(r), f"axes-{i}", r.label) for i, r in enumerate(rows)]
    return {
        "strips": _strips(rows, {"samples": "samples", "law_samples": "draws of the law"}),
        "more": {"about": law_glossary.DIAGONAL, "panels": plots} if plots else None,
    }


def _atoms(rows: Sequence[LawRow]) -> dict[str, Any]:
    return {"strips": _strips(rows, {"samples": "samples", "atoms": "nearest atoms"})}


def _without_law(rows: Sequence[LawRow]) -> dict[str, Any]:
    strips = _strips(rows, {"samples": "samples"})
    for i, (row, strip) in enumerate(zip(rows, strips, strict=True)):
        strip["why"] = row.record.get("why_no_law") or ""
        if row.optional("singular_values") is not None:
            strip["plot"] = page.svg(
                law_figures.spectrum(row), f"spectrum-{i}", f"singular values: {row.label}"
            )
    return {"strips": strips}


def _strips(rows: Sequence[LawRow], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Strips of images below each other, one group a row."""
    groups = []
    for i, row in enumerate(rows):
        memorized = row.measure("memorized_fraction")
        note = ""
        if not formats.missing(memorized.get("value")):
            note = f"copies: {law_tables.share(memorized['value'])}"
            if not formats.missing(memorized.get("control")):
                note += f", held out: {law_tables.share(memorized['control'])}"
        images = [
            {
                "words": words,
                "svg": page.svg(
                    law_figures.strip(row, name),
                    f"{row.section}-{name}-{i}",
                    f"{words}: {row.label}",
                ),
            }
            for name, words in names.items()
        ]
        groups.append(
            {"label": row.label, "badge": law_tables.word(row), "note": note, "images": images}
            | {"why": "", "plot": ""}
        )
    return groups


def _plane(rows: Sequence[LawRow]) -> dict[str, Any]:
    limits = law_figures.plane_limits(rows)
    panels = []
    for i, row in enumerate(rows):
        number = len(row.array("samples"))
        some = f"the first {law_figures.MAX_DOTS:,} of {number:,} samples"
        notes = [some if number > law_figures.MAX_DOTS else ""]
        panels.append(_panel(row, law_figures.plane(row, limits), str(i), row.label, notes))
    return {"panels": panels}


def _sweep(rows: Sequence[LawRow]) -> dict[str, Any]:
    """The figure of all knobs, its key, and what it leaves out."""
    lines = law_sweep.lines_of(rows)
    if not lines:
        return {}
    key = [
        {"family": family, "data": data, "color": _ink(color), "mark": _MARKS[marker]}
        for (family, data), (color, marker) in zip(lines, law_sweep.line_styles(rows), strict=True)
    ]
    left_out = []
    for row in law_sweep.swept(rows):
        entry = row.measure("law_distance")
        constants = entry.get("constants") or {}
        if constants.get("left_out"):
            total = constants["left_out"] + (entry.get("n") or 0)
            left_out.append(
                f"{row.label}: {constants['left_out']:,} of {total:,} samples lie beyond "
                f"{formats.significant(constants.get('bound'))} of the mean and are in neither "
                "number."
            )
    figure = page.svg(law_sweep.sweep(rows), "sweep", law_glossary.SECTIONS["sweep"].title)
    return {"wide": figure, "lines": key, "left_out": left_out}


def _ink(color: str) -> str:
    """A figure's colour in the page's CSS."""
    return f"var({canvas.TOKENS[color]})" if color in canvas.TOKENS else color


_ON_A_LINE = ("star", "two_points", "moments")
_MARKS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚", "X": "✖"}
_DRAWN = {
    "star": _star,
    "two_points": _two_points,
    "moments": _moments,
    "gaussian": _gaussian,
    "plane": _plane,
    "atoms": _atoms,
    "without_law": _without_law,
    "sweep": _sweep,
}
