"""One figure of the study `laws`, from the linear denoiser to the optimal one.

Memorized fraction against the distance to the linear law, one line a family of architectures and
data set, its points named by their knobs: degree, rank, patch size, code size.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jdiff.report import canvas, formats
from jdiff.report.canvas import INK, MUTED, PAPER, RULE
from jdiff.report.figures import COLORS, MARKERS
from jdiff.report.law_rows import LawRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = (0, (4, 2))
_UNIT = 360  # points of height from 0 to 1
_LANE = 26 / _UNIT  # height of a lane for the points that have no copies at all
_FAR = 2  # a distance beyond makes the axis logarithmic
_NEAR = 24  # neighbours on a line nearer than this share one label


def swept(rows: Sequence[LawRow]) -> list[LawRow]:
    """The rows that have a point in `sweep`."""
    names = ("law_distance", "memorized_fraction")
    return [
        row
        for row in rows
        if row.section == "sweep"
        and not any(formats.missing(row.measure(name).get("value")) for name in names)
    ]


def lines_of(rows: Sequence[LawRow]) -> dict[tuple[str, str], list[LawRow]]:
    """The lines of `sweep`: the rows of each (family, data), in the order of their knobs."""
    lines: dict[tuple[str, str], list[LawRow]] = {}
    for row in swept(rows):
        name = row.record.get("family") or row.label
        lines.setdefault((name, row.record.get("data") or ""), []).append(row)
    return {name: sorted(line, key=_knob) for name, line in lines.items()}


def line_styles(rows: Sequence[LawRow]) -> list[tuple[str, str]]:
    """Colour and marker of each line of `sweep`; lines of one point are dark crosses."""
    found, number = [], 0
    for line in lines_of(rows).values():
        if len(line) > 1:
            round_ = number // len(COLORS)
            marker = MARKERS[(number + round_) % len(MARKERS)]
            found.append((COLORS[number % len(COLORS)], marker))
            number += 1
        else:
            found.append((INK, "X"))
    return found


@canvas.style()
def sweep(rows: Sequence[LawRow]) -> "Figure":
    """From linear to optimal: memorized fraction against the distance to the linear law.

    One line a family and data set, its points named by their knobs. Points without a single copy
    would all lie on the axis; they stand below it instead, in a lane of their family.
    """
    lines, styles = lines_of(rows), line_styles(rows)
    with_lane = [name for name, line in lines.items() if any(_fraction(r) == 0 for r in line)]
    lanes = {name: -(place + 0.9) * _LANE for place, name in enumerate(with_lane)}
    low, high = -(len(lanes) + 0.6) * _LANE, 1.06
    left = 44 + max([0, *(round(6.4 * len(name)) for name, _ in lanes)])
    fig = canvas.figure(left + 850, _UNIT * (high - low) + 84)
    panel = canvas.axes(fig, (left, 48, 36, 150))
    distances = [_distance(row) for line in lines.values() for row in line]
    if max(distances) > _FAR and min(distances) > 0:
        panel.set(xscale="log", xlim=(0.6 * min(distances), 1.5 * max(distances)))
    else:
        panel.set_xlim(0, 1.1 * max(distances))
    panel.set_ylim(low, high)
    for y in list(lanes.values())[::2]:
        panel.axhspan(y - _LANE / 2, y + _LANE / 2, color=RULE, alpha=0.35, lw=0, zorder=0)
    taken = _draw_floor(panel, rows) + _draw_held_out(panel, rows)
    names = []
    for (name, line), (color, marker) in zip(lines.items(), styles, strict=True):
        points = [(_distance(row), _fraction(row) or lanes[name]) for row in line]
        for (x0, y0), (x1, y1) in zip(points[:-1], points[1:], strict=True):
            if max(y0, y1) > 0:  # along a lane the lane itself is the line
                panel.plot([x0, x1], [y0, y1], color=color, lw=1.8, alpha=0.45, zorder=2)
                taken += _boxes(x0, y0, x1, y1)
        for row, (x, y) in zip(line, points, strict=True):
            ends = row.measure("memorized_fraction").get("interval")
            if y > 0 and ends is not None and formats.interval(ends) != formats.DASH:
                panel.plot([x, x], ends, color=color, lw=1.5, alpha=0.6, zorder=2)
            panel.plot(x, y, marker, ms=9, color=color, mec=PAPER, mew=1.2, zorder=3)
        if len(line) > 1:
            names += _knob_names(panel, line, points, color, "" if name in lanes else name[0])
        elif points[0][1] > 0:
            names.append((*points[0], name[0], color))
    highest = max((row for line in lines.values() for row in line), key=_fraction)
    colors = {name: (y, styles[list(lines).index(name)][0]) for name, y in lanes.items()}
    _name_axes(panel, colors, _distance(highest))
    canvas.place_names(panel, names, taken)
    return fig


def _distance(row: LawRow) -> float:
    return float(row.measure("law_distance")["value"])


def _fraction(row: LawRow) -> float:
    return float(row.measure("memorized_fraction")["value"])


def _knob(row: LawRow) -> float:
    return row.record.get("knob") or 0


def _controls(rows: Sequence[LawRow], name: str) -> dict[str, float]:
    """The largest control of a measure on each data set."""
    found: dict[str, float] = {}
    for row in swept(rows):
        control, data = row.measure(name).get("control"), row.record.get("data") or ""
        if control is not None and not formats.missing(control):
            found[data] = max(control, found.get(data, control))
    return found


def _draw_floor(panel: "Axes", rows: Sequence[LawRow]) -> list[tuple]:
    """A band up to the distance that draws of the linear law have themselves, for each data set."""
    start, _ = panel.get_xlim()
    boxes, beside = [], -np.inf
    floors = _controls(rows, "law_distance")
    for data, control in sorted(floors.items(), key=lambda pair: pair[1]):
        panel.axvspan(start, control, color=RULE, alpha=0.55, lw=0, zorder=0)
        edge = panel.transData.transform((control, 0))[0] * 72 / panel.figure.dpi
        beside = max(edge + 3, beside + 14)  # two floors may be one; their names are beside
        panel.annotate(
            f"noise floor, {data}", (control, 0.97), (beside - edge, 0),
            textcoords="offset points", rotation=90, ha="left", va="top", color=MUTED,
            fontsize=10, parse_math=False,
        )  # fmt: skip
        boxes.append((start, 0.45, control, 0.97))
    return boxes


def _draw_held_out(panel: "Axes", rows: Sequence[LawRow]) -> list[tuple]:
    """Dashed lines at the memorized fraction of held-out images, and of draws of the linear law."""
    lines = [
        (control, f"held out, {data}")
        for data, control in _controls(rows, "memorized_fraction").items()
    ]
    draws = {
        row.record.get("data") or "": row.measure("memorized_fraction_of_linear_law").get("value")
        for row in swept(rows)
    }
    lines += [(value, f"linear law, {data}") for data, value in draws.items() if value]
    below = -np.inf
    for control, words in sorted(lines):
        panel.axhline(control, color=MUTED, lw=1, ls=_DASHES, zorder=1)
        below = max(control, below + 16 / _UNIT)
        panel.annotate(
            words, (1, below), (6, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", color=MUTED, fontsize=10, parse_math=False,
        )  # fmt: skip
    x0, x1 = panel.get_xlim()
    return [(x0, control, x1, control) for control, _ in lines]


def _name_axes(
    panel: "Axes", lanes: dict[tuple[str, str], tuple[float, str]], copying: float
) -> None:
    """Axes, lanes, and the words for the two ends outside the frame where they lie."""
    canvas.tidy(panel, "distance to the linear law, in standard deviations", "")
    panel.set_title("memorized fraction", loc="left", color=MUTED, fontsize=11, pad=10)
    panel.spines["left"].set_bounds(0, 1)
    panel.set_yticks(
        [0, 0.25, 0.5, 0.75, 1, *(y for y, _ in lanes.values())],
        ["0", "", "½", "", "1", *(name for name, _ in lanes)],
    )
    for (_, color), tick in zip(lanes.values(), panel.yaxis.get_major_ticks()[5:], strict=True):
        tick.tick1line.set_visible(False)
        tick.label1.set(color=color, parse_math=False)
    start, _ = panel.get_xlim()
    for word, at, place, side in (
        ("creation", (start, 0), (0, -38), "left"),
        ("copying", (copying, 1), (0, 8), "center"),
    ):
        panel.annotate(
            word, at, place, xycoords=("data", "axes fraction"), textcoords="offset points",
            ha=side, color=INK, fontsize=17, style="italic",
        )  # fmt: skip


def _boxes(x0: float, y0: float, x1: float, y1: float) -> list[tuple]:
    """Small boxes along a sloping line, for names to keep clear of."""
    t = np.linspace(0, 1, 25)
    x, y = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
    return list(zip(x[:-1], y[:-1], x[1:], y[1:], strict=True))


def _knob_names(
    panel: "Axes",
    line: Sequence[LawRow],
    points: Sequence[tuple[float, float]],
    color: str,
    family: str,
) -> list[tuple[float, float, str, str]]:
    """Names of a line's points; neighbours that nearly touch share one, as in "1, 2, 4".

    The last one also says the family, unless that is empty.
    """
    groups: list[list[int]] = []
    places = panel.transData.transform(points) * 72 / panel.figure.dpi
    for i, place in enumerate(places):
        if groups and np.linalg.norm(place - places[groups[-1][-1]]) < _NEAR:
            groups[-1].append(i)
        else:
            groups.append([i])
    names = []
    for group in groups:
        group.sort(key=lambda i: points[i])
        words = ", ".join(formats.plain(line[i].record.get("knob")) for i in group)
        if family and len(line) - 1 in group:
            words += f"  {family}"
        names.append((*points[group[-1]], words, color))
    return names
