"""All runs in one plane: memorized fraction against precision, else against Fréchet distance.

Every run is a point. Runs of one architecture share its colour and are joined to their mean, where
its name stands; an architecture with one run has crosses for its intervals over samples instead.
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jdiff.report import canvas, formats, glossary, groups
from jdiff.report.canvas import MUTED, PAPER, RULE
from jdiff.report.figures import COLORS, MARKERS, colors
from jdiff.report.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NEAR = 0.5  # where no architecture with seeds memorizes more, the axis ends earlier than at 1
_CROWD = 6  # from here on the figure is larger


def comparable(rows: Sequence[Row]) -> list[int]:
    """Numbers of the rows that have a point in the plane."""
    names = ("memorized_fraction", _measure(rows))
    values = [[row.measure(name).get("value") for name in names] for row in rows]
    return [
        i
        for i, pair in enumerate(values)
        if not rows[i].failed and not any(map(formats.missing, pair))
    ]


@canvas.style()
def overview(rows: Sequence[Row]) -> "Figure":
    """All rows in one plane; the grey bands are where held-out real images lie."""
    shown = comparable(rows)
    several = groups.several(rows)
    found = [
        (one.short if several else one.name, [i for i in one.numbers if i in shown])
        for one in groups.group(rows)
    ]
    found = [(name, numbers) for name, numbers in found if numbers]
    large = several and len(found) > _CROWD
    figure = canvas.figure(*((820, 560) if large else (680, 440)))
    axes = canvas.axes(figure, (60, 52, 16, 20))
    y_name = _measure(rows)
    axes.margins(0.08)
    points, crosses = [], []
    labels = list(dict.fromkeys(row.label for row in rows))
    for name, numbers in found:
        color = colors(rows)[numbers[0]]
        marker = MARKERS[labels.index(rows[numbers[0]].label) // len(COLORS) % len(MARKERS)]
        own = np.array([_place(rows[i], y_name) for i in numbers])
        if len(own) > 1:
            points += _draw_seeds(axes, own, name, color, marker)
            continue
        crosses += [(*line, color) for line in _cross(rows[numbers[0]], y_name)]
        axes.plot(*own[0], marker, ms=9, color=color, mec=PAPER, mew=1.2, zorder=3)
        points.append((*own[0], name, color))
    for x0, y0, x1, y1, color in crosses:
        axes.plot([x0, x1], [y0, y1], color=color, lw=1.5, alpha=0.55)
    right = _right_end(rows, shown)
    axes.set_xlim(-0.04 * right, 1.04 * right)
    if y_name == "precision":
        axes.set_ylim(-0.04, 1.04)
    crossing = [_draw_control(rows, "memorized_fraction", axes.axvspan, axes.axvline)]
    crossing += [_draw_control(rows, y_name, axes.axhspan, axes.axhline)]
    gloss = "1: like real images" if y_name == "precision" else "0: moments agree"
    scale = "1: all copies" if right == 1 else f"1: all copies; the axis ends at {right:g}"
    canvas.tidy(
        axes, f"memorized fraction   ({scale})", f"{glossary.title(y_name, rows)}   ({gloss})"
    )
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    lines = [line[:4] for line in crosses]
    lines += [(x, low, x, high) for x in crossing[0]] + [(left, y, right, y) for y in crossing[1]]
    points += [(x, y, "real images", MUTED) for x, y in itertools.product(*crossing)]
    canvas.place_names(axes, points, lines)
    return figure


def _draw_seeds(
    axes: "Axes", own: np.ndarray, name: str, color: str, marker: str
) -> list[tuple[float, float, str, str]]:
    """Runs [n, 2] joined to their mean; returns all points, the mean with a name."""
    mean = own.mean(axis=0)
    for run in own:
        axes.plot(*np.stack([mean, run]).T, color=color, lw=1.3, alpha=0.6, zorder=2)
    axes.plot(*own.T, marker, ms=6, color=color, mec=PAPER, mew=0.8, alpha=0.75, zorder=3, ls="")
    axes.plot(*mean, marker, ms=9, color=color, mec=PAPER, mew=1.2, zorder=4)
    return [(*mean, name, color), *((x, y, "", color) for x, y in own)]


def _measure(rows: Sequence[Row]) -> str:
    """The measure on the y axis: precision where any row has it, else Fréchet."""
    measured = [not formats.missing(row.measure("precision").get("value")) for row in rows]
    return "precision" if any(measured) else "frechet_distance"


def _place(row: Row, y_name: str) -> tuple[float, float]:
    return row.measure("memorized_fraction")["value"], row.measure(y_name)["value"]


def _cross(row: Row, y_name: str) -> list[tuple[float, float, float, float]]:
    """A run's intervals over samples as lines."""
    x, y = row.measure("memorized_fraction"), row.measure(y_name)
    lines = []
    if formats.interval(x.get("interval")) != formats.DASH:
        lines.append((x["interval"][0], y["value"], x["interval"][1], y["value"]))
    if formats.interval(y.get("interval")) != formats.DASH:
        lines.append((x["value"], y["interval"][0], x["value"], y["interval"][1]))
    return lines


def _right_end(rows: Sequence[Row], shown: Sequence[int]) -> float:
    """Where the axis of the memorized fraction ends: at 1, or earlier where seeds crowd."""
    if not groups.several(rows):
        return 1.0
    measures = [rows[i].measure("memorized_fraction") for i in shown]
    values = [entry.get(key) for entry in measures for key in ("value", "control")]
    most = max(value for value in values if value is not None and not formats.missing(value))
    return 1.0 if most > _NEAR else max(0.05, np.ceil(1.25 * most * 20) / 20)


def _draw_control(rows: Sequence[Row], name: str, band: Any, line: Any) -> list[float]:
    """A grey band over the rows' control intervals, a dashed line at each control, returned."""
    entries = [row.measure(name) for row in rows]
    values = {e["control"] for e in entries if not formats.missing(e.get("control"))}
    for value in values:
        line(value, color=MUTED, lw=1, ls=(0, (4, 2)), alpha=0.7, zorder=1)
    intervals = [e.get("control_interval") for e in entries]
    ends = [pair for pair in intervals if pair and formats.interval(pair) != formats.DASH]
    if ends:
        span = min(low for low, _ in ends), max(high for _, high in ends)
        band(*span, color=RULE, alpha=0.5, lw=0, zorder=0)
    return sorted(values)
