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

from jdiff import _check, _files
from jdiff.report import (
    canvas,
    claims,
    figures,
    formats,
    glossary,
    groups,
    interpretation,
    interpretation_figures,
    plane,
    tables,
)
from jdiff.report.rows import Row, check, titles

MOST_NAMES = 6  # a headline that names more architectures counts them instead
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
    seeds: str = ""  # said too where architectures have several seeds


SECTIONS = (
    Section(
        "nearest",
        "Each sample beside its nearest training image",
        "Above, a sample; below it, the training image nearest to it; the number is their "
        "root-mean-square difference per pixel (0: equal, 1: black against white). Framed pairs "
        "are copies: d₁/d₂ < c, with d₁ and d₂ the distances to the nearest and the second nearest "
        "training image.",
        figures.nearest,
        groups.leaders,
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
        groups.leaders,
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
        seeds="All seeds of an architecture share a panel, the first drawn strongest.",
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
        "command", "device", "versions", and optionally "notes", a list of sentences, and "claims",
        what the literature says: a list of {"claim": a sentence, "shown": true, false or null
        where it cannot be told, "evidence": a sentence with numbers}.
      rows: the rows to show, in order. Rows of one label and "num_train" are training seeds of one
        architecture; the first architecture is what others of its kind are compared with.
      data: about the data set: "name", "num_train", "num_held_out", "image_shape" (H, W, C), and
        some real images [k, H, W, C]: "images" (training) and "held_out".

    Raises:
      ValueError: if the schema is another one, a claim is none, there are no rows, `data` lacks a
        key, or its images and the samples differ in shape.
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
    study = results.get("study")
    settings = dict(study) if isinstance(study, Mapping) else {"name": study}
    said = claims.read(results.get("claims"))
    return environment().get_template("page.html.jinja").render(
        study=settings.pop("name", None) or "",
        settings=settings,
        results=results,
        data=data,
        toy=figures.is_toy(rows),
        clauses=_clauses(rows),
        number=len(groups.group(rows)),
        many=groups.several(rows) and len(groups.group(rows)) > MOST_NAMES,
        verdicts=glossary.VERDICTS,
        claims=said,
        claimed=claims.counted(said),
        **tables.context(rows),
        strips=_strips(rows, data),
        sections=_sections(rows, data),
        overview=_overview(rows),
        **_interpretation(rows),
        definitions=tables.definitions(rows),
        made=tables.settings(rows),
        paper=glossary.PAPER,
    )  # fmt: skip


def table_html(rows: Sequence[Row], said: Sequence[claims.Claim] = ()) -> str:
    """The table of verdicts alone, with its styles and the claims, to be shown in a notebook."""
    return (
        environment()
        .get_template("notebook.html.jinja")
        .render(claims=said, claimed=claims.counted(said), **tables.context(rows))
    )


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


def _clauses(rows: Sequence[Row]) -> list[tuple[str, list[str], str]]:
    if groups.several(rows):
        return groups.clauses(groups.group(rows))
    return glossary.clauses(rows, titles(rows))


def _strips(rows: Sequence[Row], data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A strip an architecture, of its first seed that did not fail; its other seeds as "more"."""
    names = titles(rows)

    def strip(i: int) -> dict[str, Any]:
        drawn = figures.samples(rows, data, only=i)
        return {"row": i, "svg": svg(drawn, f"samples-{i}", f"samples of {names[i]}")}

    strips = [
        strip(i) | {"more": [strip(other) for other in groups.others(rows, i)]}
        for i in groups.leaders(rows)
    ]
    if not figures.is_toy(rows):
        for key, words in (("images", "training images"), ("held_out", "held-out images")):
            drawn = svg(figures.real(data, only=key), f"real-{key}", f"real {words}")
            strips.append({"row": None, "words": words, "svg": drawn, "more": []})
    return strips


def _sections(rows: Sequence[Row], data: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = titles(rows)
    place = {i: k for k, one in enumerate(groups.group(rows)) for i in one.numbers}
    sections = []
    for section in SECTIONS:
        if section.images and figures.is_toy(rows):
            continue
        panels = []
        for i in section.shown(rows):
            label = f"{section.title}: {names[i]}"
            drawn = section.draw(rows, data, only=i)
            own = svg(drawn, f"{section.name}-{i}", label)
            panels.append({"row": i, "group": place[i] if section.seeds else None, "svg": own})
        if panels:
            sections.append({"about": section, "panels": panels})
    return sections


def _overview(rows: Sequence[Row]) -> str:
    if not plane.comparable(rows):
        return ""
    return svg(plane.overview(rows), "overview", "all architectures in one plane")


def _interpretation(rows: Sequence[Row]) -> dict[str, Any]:
    """Tables and figures of what explains the networks; empty ones without such measures."""
    found = interpretation.interpreted(rows)
    parts = interpretation_figures.chunks(len(found))
    families = []
    drawn_levels = ""
    for family in interpretation.families(rows):
        drawn_levels = drawn_levels or interpretation_figures.left_out(family)
        measures = []
        for number, panel in enumerate(family.panels):
            about = f"{family.title} {panel.caption}".strip()
            drawn = [
                svg(
                    interpretation_figures.panel(family, number, part, found, rows),
                    f"{family.name}-{number}-{place}",
                    f"{about}: {', '.join(found[i].name for i in part)}",
                )
                for place, part in enumerate(parts)
                if any(panel.curves[i] is not None for i in part)
            ]
            measures.append({"caption": panel.caption, "drawn": drawn})
        families.append({"about": family, "measures": measures})
    others = [name for name in glossary.STATISTICS if name != interpretation.STATISTIC]
    return {
        "interpreted": bool(found),
        "agreement": interpretation.agreement(rows),
        "agreements": [interpretation.agreement(rows, name) for name in others],
        "levels": interpretation.levels(rows),
        "families": families,
        "split": len(parts) > 1,
        "drawn": drawn_levels,
    }
