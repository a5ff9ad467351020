"""The report: one HTML page that stands alone, styles and figures inside, nothing loaded.

Figures are inline SVG whose inks are the page's, so that they follow its light and dark
forms; their images are PNG pixels inside. Later issues add a section by adding a row to `SECTIONS`.
"""

import importlib.resources
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jdiff import _check, _files
from jdiff.report import canvas, figures, formats, glossary
from jdiff.report.rows import Row, check, titles

DATA_KEYS = ("name", "num_train", "num_held_out", "image_shape", "images", "held_out")


@dataclass(frozen=True)
class Section:
    """One figure of the page: how it is named, read and drawn, and for which rows."""

    name: str
    title: str
    read: str
    draw: Callable[..., Any]
    shown: Callable[[Sequence[Row]], list[int]]
    images: bool = False  # left out for toy data, whose points are no pictures


SECTIONS = (
    Section(
        "nearest",
        "Each sample beside its nearest training image",
        "Above, a sample; below it, the training image nearest to it; the number is their "
        "root-mean-square difference per pixel (0: equal, 1: black against white). Framed pairs "
        "are copies: d₁/d₂ < c, with d₁ and d₂ the distances to the nearest and the second nearest "
        "training image.",
        figures.nearest,
        figures.with_pictures,
        images=True,
    ),
    Section(
        "ratios",
        "How close the samples come to being copies",
        "A copy is far nearer to one training image than to any other, so its d₁/d₂ is small. "
        "The curve tells which share of the samples lies below each value of d₁/d₂; where it "
        "leaves the shaded part stands the memorized fraction (dot). Dashed: real held-out images. "
        "A curve along the dashed one is as new as real images are; one that leaps up at the left "
        "is made of copies.",
        figures.ratios,
        figures.with_pictures,
    ),
    Section(
        "curves",
        "Learning curves",
        "Loss against training step. Faint line: training images. Dots: held-out images, which "
        "the network never learns from. Dots that turn up while the faint line falls on mean that "
        "it has begun to memorize. Heights of two panels cannot be compared: each "
        "preconditioning weighs the loss differently.",
        figures.curves,
        figures.trained,
    ),
)


def write(
    path: str | os.PathLike,
    results: Mapping[str, Any],
    rows: Sequence[Row],
    *,
    data: Mapping[str, Any],
) -> None:
    """Writes the report; whatever goes wrong, an earlier one at `path` stays as it was.

    Args:
      path: the file to write; its folder is made if need be.
      results: the contents of results.json: "schema", "study" (a name, or its fields by name),
        "command", "device", "versions", and optionally "notes", a list of sentences.
      rows: the rows to show, in order.
      data: about the data set: "name", "num_train", "num_held_out", "image_shape" (H, W, C), and
        some real images [k, H, W, C]: "images" (training) and "held_out".

    Raises:
      ValueError: if the schema is another one, there are no rows, `data` lacks a key, or its
        images and the samples differ in shape.
    """
    _files.write_text(path, render(results, rows, data=data))


def render(results: Mapping[str, Any], rows: Sequence[Row], *, data: Mapping[str, Any]) -> str:
    """Returns the report as one HTML text; the arguments are those of `write`.

    Equal rows give equal text, byte for byte.
    """
    check(results)
    if not rows:
        raise ValueError("rows must hold at least one row; got none.")
    _check_data(rows, data)
    names = titles(rows)
    study = results.get("study")
    settings = dict(study) if isinstance(study, Mapping) else {"name": study}
    return environment().get_template("page.html.jinja").render(
        study=settings.pop("name", None) or "",
        settings=settings,
        results=results,
        data=data,
        toy=figures.is_toy(rows),
        clauses=glossary.clauses(rows, names),
        verdicts=glossary.VERDICTS,
        **table_context(rows),
        strips=_strips(rows, data),
        sections=_sections(rows, data),
        overview=_overview(rows),
        definitions=_definitions(rows),
        entries=glossary.SETTINGS,
        used=[[entry.form(row.entry(*entry.path)) for entry in glossary.SETTINGS] for row in rows],
        paper=glossary.PAPER,
    )  # fmt: skip


def table_html(rows: Sequence[Row]) -> str:
    """The table of verdicts alone, with its styles, to be shown in a notebook."""
    return environment().get_template("notebook.html.jinja").render(**table_context(rows))


def table_context(rows: Sequence[Row]) -> dict[str, Any]:
    """What the table's template prints: columns, and for each row its cells."""
    names, colors = titles(rows), figures.colors(rows)
    main, extra = glossary.main_measures(rows), glossary.extra_measures(rows)
    return {
        "rows": [
            {
                "name": name,
                "color": color,
                "record": row.record,
                "failed": row.failed,
                "optimal": row.record.get("architecture") == "optimal",
                "word": "failed" if row.failed else row.verdict.get("word") or "",
                "reason": row.verdict.get("reason") or "",
                "main": [_cell(row, measure) for measure in main],
                "extra": [_cell(row, measure) for measure in extra],
                "costs": [_printed(row.entry(*c.path), None, c.form) for c in glossary.COSTS],
            }
            for row, name, color in zip(rows, names, colors, strict=True)
        ],
        "main": [_heading(rows, name) for name in main],
        "extra": [_heading(rows, name) for name in extra],
        "costs": [
            {"name": ".".join(cost.path), "title": cost.definition, "short": cost.title}
            for cost in glossary.COSTS
        ],
        "sizes": sorted(filter(None, {row.measure(m).get("n") or 0 for row in rows for m in main})),
    }


def svg(figure: Any, name: str, label: str) -> str:
    """A figure as an SVG element to stand inside a page.

    Args:
      figure: a matplotlib figure.
      name: a prefix for the element's ids, another for each figure of a page.
      label: what the figure shows, for readers who do not see it.
    """
    import markupsafe

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with canvas.style():
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    head, _, body = buffer.getvalue().partition("<svg")[2].partition(">")
    # The page decides the size, and matplotlib's style element would apply to all of the page.
    (view,) = re.findall(r'viewBox="[^"]*"', head)
    body = re.sub(r"<!--.*?-->|<style.*?</style>|<metadata>.*?</metadata>", "", body, flags=re.S)
    body = body.replace("xlink:href", "href")
    body = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", body)
    for color, token in canvas.TOKENS.items():
        body = body.replace(color, f"var({token})")
    about = f'<svg role="img" aria-label="{markupsafe.escape(label)}" {view}>'
    return markupsafe.Markup(about + body)


def _check_data(rows: Sequence[Row], data: Mapping[str, Any]) -> None:
    absent = [key for key in DATA_KEYS if key not in data]
    if absent:
        raise ValueError(
            f"data lacks {', '.join(map(repr, absent))}; it must have {', '.join(DATA_KEYS)}."
        )
    shape = _check.image_shape("data['image_shape']", tuple(data["image_shape"]))
    for key in ("images", "held_out"):
        _check.images(f"data[{key!r}]", data[key], shape=shape)
    for row in rows:
        if row.pictures is not None and row.pictures.samples.shape[1:] != shape:
            raise ValueError(
                f"samples of row {row.label!r} must be images of shape {shape}; "
                f"got {row.pictures.samples.shape[1:]}."
            )


def environment() -> Any:
    """The templates of this room, with the filters that they use."""
    import jinja2

    files = importlib.resources.files("jdiff.report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: files.joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(plain=formats.plain, join_words=glossary.join)
    return environment


def _heading(rows: Sequence[Row], name: str) -> dict[str, Any]:
    controls = [row.measure(name).get("control") for row in rows]
    return {
        "name": name,
        "title": glossary.title(name, rows),
        "short": glossary.title(name, rows, short=True),
        "has_control": not all(map(formats.missing, controls)),
    }


def _cell(row: Row, name: str) -> dict[str, Any]:
    """One measure of one row: the value and its control, each with its interval."""
    entry, form = row.measure(name), glossary.measure(name).form
    return {
        "value": _printed(entry.get("value"), entry.get("interval"), form),
        "control": _printed(entry.get("control"), entry.get("control_interval"), form),
    }


def _printed(value: Any, ends: Any, form: Callable[[Any], str]) -> dict[str, str]:
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
        "number": full(value) if known else "",
        "interval": interval if bounded else "",
        "ends": " ".join(map(full, ends)) if bounded else "",
    }


def full(value: Any) -> str:
    """A number with all its digits, as results.json has it."""
    return repr(value.item() if isinstance(value, np.generic) else value)


def _strips(rows: Sequence[Row], data: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = titles(rows)
    strips = [
        {
            "row": i,
            "svg": svg(
                figures.samples(rows, data, only=i), f"samples-{i}", f"samples of {names[i]}"
            ),
        }
        for i in figures.with_pictures(rows)
    ]
    if not figures.is_toy(rows):
        for key, words in (("images", "training images"), ("held_out", "held-out images")):
            drawn = svg(figures.real(data, only=key), f"real-{key}", f"real {words}")
            strips.append({"row": None, "words": words, "svg": drawn})
    return strips


def _sections(rows: Sequence[Row], data: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = titles(rows)
    sections = []
    for section in SECTIONS:
        if section.images and figures.is_toy(rows):
            continue
        panels = []
        for i in section.shown(rows):
            label = f"{section.title}: {names[i]}"
            drawn = section.draw(rows, data, only=i)
            panels.append({"row": i, "svg": svg(drawn, f"{section.name}-{i}", label)})
        if panels:
            sections.append({"about": section, "panels": panels})
    return sections


def _overview(rows: Sequence[Row]) -> str:
    if not figures.comparable(rows):
        return ""
    return svg(figures.overview(rows), "overview", "all architectures in one plane")


def _definitions(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each measure in words, with the n, features and constants it was taken with."""
    definitions = []
    for name in [*glossary.main_measures(rows), *glossary.extra_measures(rows)]:
        entries = [row.measure(name) for row in rows if row.measure(name)]
        taken = []
        for key, form in (("n", "n = {}"), ("features", "on {}"), ("constants", "{}")):
            values = {formats.plain(entry.get(key)) for entry in entries} - {formats.DASH}
            taken += [form.format(value) for value in sorted(values)]
        definitions.append(
            {
                "title": glossary.title(name, rows),
                "words": glossary.measure(name).definition,
                "taken": ", ".join(taken),
            }
        )
    return definitions
