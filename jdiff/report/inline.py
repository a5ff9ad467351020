"""The same rows in a terminal and in a notebook: a text table, or table and figures inline."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jdiff.report import (
    canvas,
    figures,
    formats,
    glossary,
    groups,
    interpretation,
    interpretation_figures,
    page,
    plane,
)
from jdiff.report import claims as claims_
from jdiff.report.groups import Group
from jdiff.report.rows import Row, titles

# Columns that a table of several seeds has beside its measures: heading, place, form.
_COSTS: tuple[tuple[str, tuple[str, ...], Callable[[Any], str]], ...] = (
    ("field", ("receptive_field",), formats.count),
    ("params", ("num_params",), formats.count),
    ("FLOPs/img", ("flops_per_image",), formats.count),
    ("train img/s", ("images_per_s", "train"), formats.significant),
    ("sample img/s", ("images_per_s", "sample"), formats.significant),
    ("compile s", ("seconds", "compile"), formats.significant),
    ("train s", ("seconds", "train"), formats.significant),
)


def table(rows: Sequence[Row], claims: Sequence[Mapping[str, Any]] | None = None) -> str:
    """The rows as aligned text, a dash for what is missing.

    One seed everywhere: a line a row, value [95 % interval] (control). Several: a line an
    architecture, its verdicts, mean [range over seeds] (control).

    Args:
      rows: the rows to show, in order.
      claims: results["claims"] of the study, which stand below.

    Raises:
      ValueError: on a claim that is none.

    Example:
      >>> measures = {"memorized_fraction": {"value": 1.0, "interval": [0.98, 1.0], "control": 0.0}}
      >>> text = table([Row({"label": "optimal", "status": "ok", "measures": measures})])
      >>> "1.000 [0.980–1.000] (0.000)" in text
      True
    """
    lines = _architectures(rows) if groups.several(rows) else _runs(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    for row, name in zip(rows, titles(rows), strict=True):
        if row.failed:
            text.append(f"{name} failed: {row.error}")
    return "\n".join(text + claims_.text(claims_.read(claims)))


def show(
    rows: Sequence[Row],
    data: Mapping[str, Any] | None = None,
    claims: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Shows claims, table and figures inline in a notebook; elsewhere prints the text table.

    Args:
      rows: the rows to show, in order.
      data: the `data` of `write`; with it, real images are shown too.
      claims: results["claims"] of the study.

    Raises:
      ValueError: on a claim that is none.
    """
    if not _in_notebook():
        print(table(rows, claims))
        return
    from IPython.display import HTML, Image, display

    display(HTML(page.table_html(rows, claims_.read(claims))))
    for title, read, figure in _figures(rows, data):
        buffer = io.BytesIO()
        with canvas.style():
            figure.savefig(buffer, format="png", facecolor="white")
        display(HTML(f"<h3>{title}</h3><p style='max-width: 46em'>{read}</p>"))
        width = round(float(figure.get_size_inches()[0]) * 72)
        display(Image(buffer.getvalue(), format="png", width=width))


def _runs(rows: Sequence[Row]) -> list[list[str]]:
    lines = [
        [
            "architecture",
            "verdict",
            "memorized [95 %] (control)",
            "nearest rms",
            "precision (control)",
            f"{glossary.title('frechet_distance', rows, short=True)} (control)",
            "r to optimal",
            "params",
            "train img/s",
            "sample img/s",
        ]
    ]
    for row, name in zip(rows, titles(rows), strict=True):
        lines.append(
            [
                name,
                "failed" if row.failed else row.verdict.get("word") or formats.DASH,
                _measured(row, "memorized_fraction", interval=True, control=True),
                _measured(row, "nearest_rms"),
                _measured(row, "precision", control=True),
                _measured(row, "frechet_distance", control=True),
                _measured(row, "pearson_r_to_optimal"),
                formats.count(row.entry("num_params")),
                formats.significant(row.entry("images_per_s", "train")),
                formats.significant(row.entry("images_per_s", "sample")),
            ]
        )
    return lines


def _architectures(rows: Sequence[Row]) -> list[list[str]]:
    """A line an architecture: mean [range over seeds] (control), then what it cost on average."""
    measures = glossary.main_measures(rows)
    names = interpretation.references(rows)
    heads = [f"{glossary.title(name, rows, short=True)} [seeds] (control)" for name in measures]
    explained = ["samples explained by (r)"] if names else []
    lines = [["architecture", "verdicts", *heads, *explained, *(head for head, _, _ in _COSTS)]]
    for one in groups.group(rows):
        lines.append(
            [
                one.name,
                one.said,
                *(_over_seeds(one, name) for name in measures),
                *(_explained(one, names) for _ in explained),
                *(form(one.spread(*path).mean) for _, path, form in _COSTS),
            ]
        )
    return lines


def _over_seeds(one: Group, name: str) -> str:
    form = glossary.measure(name).form
    spread = one.spread("measures", name, "value")
    control = one.spread("measures", name, "control").mean
    text = form(spread.mean)
    if spread.ends:
        text += f" [{formats.interval(spread.ends, form)}]"
    return text if control is None else f"{text} ({form(control)})"


def _explained(one: Group, names: Sequence[str]) -> str:
    """The closed form whose samples agree best with an architecture's, and how far."""
    name = interpretation.best(one, names, samples=True)
    if name is None:
        return formats.DASH
    r = interpretation.explained(one, name, interpretation.STATISTIC, samples=True)
    return f"{interpretation.named(name)} ({formats.proportion(r.mean)})"


def _measured(row: Row, name: str, *, interval: bool = False, control: bool = False) -> str:
    entry, form = row.measure(name), glossary.measure(name).form
    text = form(entry.get("value"))
    if interval and not formats.missing(entry.get("interval")):
        text += f" [{formats.interval(entry['interval'], form)}]"
    if control and not formats.missing(entry.get("control")):
        text += f" ({form(entry['control'])})"
    return text


def _figures(rows: Sequence[Row], data: Mapping[str, Any] | None) -> Iterator[tuple[str, str, Any]]:
    """The page's figures in its order, whole, all panels in one: (title, words, figure)."""
    toy = figures.is_toy(rows)
    if figures.with_pictures(rows):
        words = "Beside the training points." if toy else "Every column began from the same noise."
        yield "What they make of the same noise", words, figures.samples(rows, data)
    if data is not None and not toy:
        yield "Real images", "To compare with, in no order.", figures.real(data)
    for section in page.SECTIONS:
        if section.shown(rows) and not (toy and section.images):
            yield section.title, section.read, section.draw(rows, data)
    found = interpretation.interpreted(rows)
    for family in interpretation.families(rows):
        words = f"{family.read} {interpretation_figures.WORDS}"
        yield family.title, words, interpretation_figures.whole(family, found, rows)
    if plane.comparable(rows):
        words = "Grey bands: real held-out images. " + (
            "Runs are joined to their architecture’s mean."
            if groups.several(rows)
            else "Crosses: 95 % intervals."
        )
        yield "All in one plane", words, plane.overview(rows)


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")
