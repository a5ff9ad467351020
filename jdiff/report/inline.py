"""The same rows in a terminal and in a notebook: a text table, or table and figures inline."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jdiff.report import canvas, figures, formats, glossary, page
from jdiff.report.rows import Row, titles


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text: value [95 % interval] (control), a dash for what is missing.

    Example:
      >>> measures = {"memorized_fraction": {"value": 1.0, "interval": [0.98, 1.0], "control": 0.0}}
      >>> text = table([Row({"label": "optimal", "status": "ok", "measures": measures})])
      >>> "1.000 [0.980–1.000] (0.000)" in text
      True
    """
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
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    for row, name in zip(rows, titles(rows), strict=True):
        if row.failed:
            text.append(f"{name} failed: {row.record.get('error') or 'stopped without a message'}")
    return "\n".join(text)


def show(rows: Sequence[Row], data: Mapping[str, Any] | None = None) -> None:
    """Shows table and figures inline in a notebook; elsewhere prints the text table.

    Args:
      rows: the rows to show, in order.
      data: the `data` of `write`; with it, real images are shown too.
    """
    if not _in_notebook():
        print(table(rows))
        return
    from IPython.display import HTML, Image, display

    display(HTML(page.table_html(rows)))
    for title, read, figure in _figures(rows, data):
        buffer = io.BytesIO()
        with canvas.style():
            figure.savefig(buffer, format="png", facecolor="white")
        display(HTML(f"<h3>{title}</h3><p style='max-width: 46em'>{read}</p>"))
        width = round(float(figure.get_size_inches()[0]) * 72)
        display(Image(buffer.getvalue(), format="png", width=width))


def _measured(row: Row, name: str, *, interval: bool = False, control: bool = False) -> str:
    entry, form = row.measure(name), glossary.measure(name).form
    text = form(entry.get("value"))
    if interval and not formats.missing(entry.get("interval")):
        text += f" [{formats.interval(entry['interval'], form)}]"
    if control and not formats.missing(entry.get("control")):
        text += f" ({form(entry['control'])})"
    return text


def _figures(rows: Sequence[Row], data: Mapping[str, Any] | None) -> Iterator[tuple[str, str, Any]]:
    """The page's figures in its order, whole, every row's panel in one: (title, words, figure)."""
    toy = figures.is_toy(rows)
    if figures.with_pictures(rows):
        words = "Beside the training points." if toy else "Every column began from the same noise."
        yield "What they make of the same noise", words, figures.samples(rows, data)
    if data is not None and not toy:
        yield "Real images", "To compare with, in no order.", figures.real(data)
    for section in page.SECTIONS:
        if section.shown(rows) and not (toy and section.images):
            yield section.title, section.read, section.draw(rows, data)
    if figures.comparable(rows):
        words = "Grey bands: real held-out images. Crosses: 95 % intervals."
        yield "All in one plane", words, figures.overview(rows)


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")
