"""The page of `jdiff evaluate`: one set of samples, the verdict, its numbers and the pictures.

One HTML file that stands alone, made like the report of `page`. First the verdict with what decided
it, then what there is to look at, then every measure beside its control.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdiff import _files
from jdiff.report import evaluation_figures as figures
from jdiff.report import evaluation_tables as tables
from jdiff.report import formats, glossary, page
from jdiff.report.evaluation_record import EXPLAINED, Finding, Findings
from jdiff.report.figures import COLORS

DECIDE = ("memorized_fraction", "precision", "frechet_distance")  # what a verdict is made from
MOST = 32  # images shown a row


def write_evaluation(
    path: str | os.PathLike, record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Writes the page; whatever goes wrong, an earlier one at `path` stays as it was.

    Args:
      path: the file to write; its folder is made if need be.
      record: the contents of evaluation.json, see `Findings`.
      arrays: the contents of evaluation.npz, see `evaluation_record.ARRAYS`; any group may be
        absent, and so may be all.

    Raises:
      TypeError: if record or arrays are no mappings, or arrays of a wrong dtype.
      ValueError: on a record or arrays that do not fit together.
    """
    _files.write_text(path, render_evaluation(record, arrays))


def render_evaluation(record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the page as one HTML text; the arguments are those of `write_evaluation`.

    Equal records and arrays give equal text, byte for byte.
    """
    found = Findings(record, arrays)
    word = found.verdict.get("word") or ""
    return page.environment().get_template("evaluation.html.jinja").render(
        found=found,
        record=record,
        word=word,
        verb=glossary.VERBS.get(word, (f"is {word}",))[0],
        meaning=glossary.VERDICTS.get(word, ""),
        evidence=[_evidence(found, name) for name in DECIDE],
        looks=_looks(found),
        groups=[(name, tables.rows(own)) for name, own in tables.grouped(found, folded=False)],
        explained=tables.rows(found.of(EXPLAINED)),
        skipped=tables.skipped(found),
        strip=(tables.WIDTH, tables.HEIGHT),
        ratios=_ratios(found),
        copied=_pairs(found, "copied", "copied_source", "copied_ratio"),
        novel=_pairs(found, "novel", "novel_nearest", "novel_rms"),
        mosaics=_mosaics(found),
        planes=_planes(found),
        spectra=_spectra(found),
        denoiser=_denoiser(found),
        inks={"samples": figures.SAMPLES},
        definitions=_definitions(found),
        paper=glossary.PAPER,
    )  # fmt: skip


def _evidence(found: Findings, name: str) -> dict[str, Any]:
    """One of the measures that decide: its numbers and mark, dashes if it was not taken."""
    return tables.rows([found.measure(name)])[0]


def _looks(found: Findings) -> list[dict[str, Any]]:
    """Rows of pictures: samples, training and held-out images."""
    if found.toy or not found.has("pictures"):
        return []
    words = {"samples": "samples", "training": "training images", "held_out": "held-out images"}
    return [
        {
            "words": words[name],
            "images": [figures.picture(image) for image in found.array(name)[:MOST]],
            "total": len(found.array(name)),
        }
        for name in words
    ]


def _ratios(found: Findings) -> dict[str, Any]:
    if not found.has("ratios"):
        return {}
    return {
        "svg": page.svg(figures.ratios(found), "ratios", "histogram of d1/d2"),
        "n": found.array("ratio").size,
        "m": found.array("held_out_ratio").size,
        "entry": _evidence(found, "memorized_fraction"),
        "threshold": figures.threshold(found),
    }


def _pairs(found: Findings, name: str, other: str, number: str) -> list[dict[str, Any]]:
    """Samples beside training images, with the number that says how near they are."""
    if found.toy or not found.has(name):
        return []
    c = figures.threshold(found)
    return [
        {
            "above": figures.picture(above),
            "below": figures.picture(below),
            "number": formats.full(value),
            "text": formats.significant(float(value), 2),
            "framed": number == "copied_ratio" and c is not None and bool(value < c),
        }
        for above, below, value in zip(
            found.array(name), found.array(other), found.array(number), strict=True
        )
    ]


def _mosaics(found: Findings) -> list[dict[str, Any]]:
    """Each sample, its mosaic, and a map of where the tiles come from."""
    if found.toy or not found.has("mosaics"):
        return []
    made = []
    shape = found.array("mosaic_samples").shape[1:3]
    for k, sources in enumerate(found.array("mosaic_sources")):
        # The sources that occur, and how often: what the map shows, told in words.
        known, times = np.unique(sources[sources >= 0], return_counts=True)
        made.append(
            {
                "sample": figures.picture(found.array("mosaic_samples")[k]),
                "mosaic": figures.picture(found.array("mosaic_images")[k]),
                "tiles": figures.tiles(sources, found.mosaic_side, shape),
                "shape": shape,
                "side": found.mosaic_side,
                "sources": len(known),
                "most": int(times.max(initial=0)),
                "left_out": int(np.sum(sources < 0)),
                "total": sources.size,
            }
        )
    return made


def _planes(found: Findings) -> list[dict[str, Any]]:
    """Precision against recall and density against coverage, in each feature space."""
    pairs = []
    for right, up in (("precision", "recall"), ("density", "coverage")):
        for x in found.of(right):
            alike = lambda y, x=x: (y.features, y.differs) == (x.features, x.differs)
            pairs += [(x, y) for y in filter(alike, found.of(up)) if _point(x) and _point(y)]
    spaces = list(dict.fromkeys(x.features for x, _ in pairs))
    made = []
    for x, y in sorted(pairs, key=lambda pair: spaces.index(pair[0].features)):
        about = f"{x.title} and {y.title}"
        svg = page.svg(figures.plane(x, y), f"plane-{len(made)}", about)
        made.append({"words": about, "features": x.features, "svg": svg})
    return made


def _point(measure: Finding) -> bool:
    """Whether it is one number that is known."""
    return measure.known and not measure.levels


def _spectra(found: Findings) -> dict[str, Any]:
    if not found.has("spectra"):
        return {}
    drawn = page.svg(figures.spectra(found), "spectra", "radial power spectra")
    return {"svg": drawn, "without": figures.off_the_axes(found)}


def _denoiser(found: Findings) -> list[dict[str, Any]]:
    """The measures with one value a noise level: panels, what to read in them, their colours."""
    made = [_psnr(found), _locality(found), _equivariance(found), _explained(found)]
    known = {kind for kind in glossary.GROUPS["Denoiser"]}
    others = [m for m in _curved(found.measures) if m.kind not in known]
    made += [
        _family(
            f"other-{i}", m.title[:1].upper() + m.title[1:], glossary.measure(m.kind).reading,
            [(m.title, [m], [figures.SAMPLES], m.title, False)],
        )
        for i, m in enumerate(others)
    ]  # fmt: skip
    return [family for family in made if family]


def _curved(measures: Sequence[Finding]) -> list[Finding]:
    return [measure for measure in measures if measure.levels and measure.known]


def _family(
    name: str,
    title: str,
    read: str,
    panels: Sequence[tuple[str, Sequence[Finding], Sequence[str], str, bool]],
    key: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """A heading with its panels: (caption, measures, colours, y axis, whether 0 is shown)."""
    drawn = [
        {
            "caption": caption,
            "svg": page.svg(
                figures.curves(measures, colors, y, zero=zero), f"{name}-{i}", f"{title}: {caption}"
            ),
        }
        for i, (caption, measures, colors, y, zero) in enumerate(panels)
    ]
    return {"name": name, "title": title, "read": read, "panels": drawn, "key": list(key)}


def _psnr(found: Findings) -> dict[str, Any]:
    measures = _curved(found.of("psnr_gap"))
    if not measures:
        return {}
    family = _family(
        "psnr",
        "Does it know its own images?",
        "How much better the denoiser restores training images than held-out ones, at each noise "
        "level. At 0 it has learnt what images are like; above 0 it has learnt these images. "
        "Beside it, how well each is restored: training images (line), held-out images (dashed).",
        [(m.title, [m], [figures.SAMPLES], "PSNR gap (dB)", True) for m in measures],
    )
    for i, measure in enumerate(measures):
        both: list[Any] = [measure.constants.get(name) for name in ("psnr_train", "psnr_held_out")]
        if all(np.shape(values) == (measure.levels,) for values in both):
            svg = page.svg(figures.psnr(measure), f"psnr-both-{i}", "PSNR of both")
            family["panels"].append({"caption": "PSNR of both", "svg": svg})
    return family


def _locality(found: Findings) -> dict[str, Any]:
    measures = _curved(found.of("locality_profile"))
    if not measures:
        return {}
    measures = sorted(measures, key=lambda m: m.constants.get("q") or 0)
    colors = _shades(len(measures))
    shares = [m.constants.get("q") for m in measures]
    words = [
        m.title if q is None else f"{100 * q:g} %" for m, q in zip(measures, shares, strict=True)
    ]
    return _family(
        "locality",
        "How far does it look?",
        "The side of the square around a pixel that holds so much of what decides the answer "
        "there. Small squares: images are put together from pieces. The image’s own size: from "
        "the whole. Dashed: at noisy held-out images.",
        [("side of the square", measures, colors, "pixels", True)],
        list(zip(colors, words, strict=True)),
    )


def _equivariance(found: Findings) -> dict[str, Any]:
    measures = _curved(found.of("equivariance_error"))
    if not measures:
        return {}
    colors = [COLORS[i % len(COLORS)] for i in range(len(measures))]
    steps = [m.constants.get("step") for m in measures]
    words = [
        m.title if step is None else f"steps of {step} pixel{'s' * (step != 1)}"
        for m, step in zip(measures, steps, strict=True)
    ]
    return _family(
        "equivariance",
        "Does it treat every place alike?",
        "How much the answer changes, beyond being moved along, when the noisy image is moved. At "
        "0 no place is special. Dashed: at noisy held-out images.",
        [("equivariance error", measures, colors, "error", True)],
        list(zip(colors, words, strict=True)),
    )


def _explained(found: Findings) -> dict[str, Any]:
    measures = {m.explains: m for m in _curved(found.of(EXPLAINED)) if m.explains}
    if not measures:
        return {}
    references = list(dict.fromkeys(reference for _, reference in measures))
    color = {name: COLORS[i % len(COLORS)] for i, name in enumerate(references)}
    panels = []
    for number in glossary.STATISTICS:
        own = [name for name in references if (number, name) in measures]
        if own:
            title = glossary.measure(number).title
            drawn = [measures[number, name] for name in own]
            panels.append((title, drawn, [color[name] for name in own], title, False))
    return _family(
        "explained",
        "Which closed form explains it?",
        "How far its answers agree with those of denoisers whose generated images are known. 1 "
        "(mean squared error: 0) at every noise level means that it does the same. Dashed: at "
        "noisy held-out images. The five numbers are often confused, and differ.",
        panels,
        [(color[name], name) for name in references],
    )


def _shades(number: int) -> list[str]:
    """Shades of one colour for quantities in order; colours of their own if there are many."""
    if number <= len(figures.SHADES):
        return list(figures.SHADES[-number:] if number < 3 else figures.SHADES)
    return [COLORS[i % len(COLORS)] for i in range(number)]


def _definitions(found: Findings) -> list[dict[str, Any]]:
    """Each kind of measure in words, and the constants it was taken with."""
    made = []
    for _, measures in tables.grouped(found):
        for kind in dict.fromkeys(measure.kind for measure in measures):
            own = [measure for measure in measures if measure.kind == kind]
            told = {(formats.plain(m.constants), m.features, m.entry.get("n")): None for m in own}
            taken = [
                ", ".join(
                    words
                    for words in (
                        f"n = {formats.plain(n)}" if n is not None else "",
                        f"on {features}" if features else "",
                        constants if constants != formats.DASH else "",
                    )
                    if words
                )
                for constants, features, n in told
            ]
            words = glossary.measure(kind)
            made.append(
                {"title": words.title, "name": kind, "words": words.definition, "taken": taken}
            )
    return made
