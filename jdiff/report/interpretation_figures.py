"""Figures over the noise level that a person can read with a dozen architectures in them.

Every panel draws all architectures, a few of them in colour with their names at their right ends,
the first one dashed to compare with, the others in grey; as many panels stand beside each other as
it takes to colour all. Bands are ranges over training seeds.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jdiff.report import canvas, figures, formats
from jdiff.report.canvas import INK, MUTED, RULE
from jdiff.report.groups import Group, compared_with
from jdiff.report.interpretation import Curve, Family, Panel
from jdiff.report.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORDS = "Lines are means over seeds, bands their range; each panel names a few architectures."
IN_COLOUR = 5  # architectures that one panel names
_SIZE = (384, 226)
_BOX = (50, 42, 10, 134)  # the right margin holds the names
_WIDER = 30  # points of it more where all panels are one figure
_NAME = 22  # letters a line of a name
_LINE = 12.5  # points from line to line
_DASHES, _DOTS = (0, (4, 2)), (0, (1, 2))


def chunks(number: int) -> list[list[int]]:
    """Which architectures are coloured together, as evenly as can be.

    Example:
      >>> chunks(7)
      [[0, 1, 2, 3], [4, 5, 6]]
    """
    parts = -(-number // IN_COLOUR)
    return [part.tolist() for part in np.array_split(np.arange(number), parts)] if parts else []


@canvas.style()
def panel(
    family: Family,
    number: int,
    coloured: Sequence[int],
    found: Sequence[Group],
    rows: Sequence[Row],
) -> "Figure":
    """One panel alone, for the page.

    Args:
      family: what it belongs to.
      number: which of its measures.
      coloured: which architectures are drawn in colour.
      found: the architectures, one for each curve of a panel.
      rows: all rows of the report.
    """
    figure = canvas.figure(*_SIZE)
    _draw(canvas.axes(figure, _BOX), family, family.panels[number], coloured, found, rows)
    return figure


@canvas.style()
def whole(family: Family, found: Sequence[Group], rows: Sequence[Row]) -> "Figure":
    """All panels of a family, a line of panels a measure."""
    parts = chunks(len(found))
    names = [(one.caption or family.y, INK) for one in family.panels for _ in parts]
    # matplotlib's own font is wider than those of pages.
    size, box = (_SIZE[0] + _WIDER, _SIZE[1]), (*_BOX[:3], _BOX[3] + _WIDER)
    figure, axes = canvas.panels(names, size, columns=max(1, len(parts)), box=box)
    places = [(one, part) for one in family.panels for part in parts]
    for at, (one, part) in zip(axes, places, strict=True):
        _draw(at, family, one, part, found, rows)
    return figure


def _draw(
    axes: "Axes",
    family: Family,
    drawn: Panel,
    coloured: Sequence[int],
    found: Sequence[Group],
    rows: Sequence[Row],
) -> None:
    base = compared_with(found)
    compared = drawn.curves[0] if base is not None and 0 not in coloured else None
    for place, curve in enumerate(drawn.curves):
        if curve is not None and place not in coloured and curve is not compared:
            axes.plot(curve.sigmas, curve.mean, color=MUTED, lw=0.9, alpha=0.35, zorder=1)
    _limits(axes, family)
    notes = {curve.note for curve in drawn.curves if curve is not None}
    noted = lambda curve: f" ({curve.note})" if curve.note and notes != {""} else ""
    names = []
    if compared is not None:
        axes.plot(compared.sigmas, compared.mean, color=INK, lw=1.4, ls=_DASHES, zorder=3)
        names.append((compared, found[0].short + noted(compared), INK))
    for place, color in zip(coloured, _colors(coloured, found, rows), strict=True):
        curve = drawn.curves[place]
        if curve is None:
            continue
        axes.fill_between(
            curve.sigmas, curve.low, curve.high, color=color, alpha=0.2, lw=0, zorder=2
        )
        # Dots where it was measured: a network for every level has few.
        axes.plot(curve.sigmas, curve.mean, "o-", color=color, lw=1.8, ms=3, mew=0, zorder=4)
        if family.control:
            axes.plot(curve.sigmas, curve.control, color=color, lw=1, ls=_DASHES, zorder=3)
        names.append((curve, found[place].short + noted(curve), color))
    canvas.tidy(axes, "noise level σ", family.y)
    canvas.plain_log_ticks(axes, "x")
    axes.locator_params(axis="y", nbins=5)
    if family.ends[:1] == (0.0,) and axes.get_ylim()[0] < 0:
        axes.axhline(0, color=RULE, lw=1, zorder=0)
    _place_names(axes, names)


def levels_drawn(family: Family) -> tuple[float, float]:
    """The lowest and highest noise level of the axis: those of most of a family's curves.

    A network for every level may have one at a sigma of 20,000, which would leave no room.
    """
    curves = [curve for one in family.panels for curve in one.curves if curve is not None]
    ends = [(float(curve.sigmas.min()), float(curve.sigmas.max())) for curve in curves]
    return max(dict.fromkeys(ends), key=ends.count)


def left_out(family: Family) -> str:
    """The levels of the axis in words, if a curve of the family goes beyond them, else ""."""
    low, high = levels_drawn(family)
    curves = [curve for one in family.panels for curve in one.curves if curve is not None]
    if all(low <= curve.sigmas.min() and curve.sigmas.max() <= high for curve in curves):
        return ""
    return f"{formats.plain(low)} to {formats.plain(high)}"


def _limits(axes: "Axes", family: Family) -> None:
    """The same axes in all panels of a family, whatever is coloured in them."""
    left, right = levels_drawn(family)
    numbers = [np.array(family.ends)]
    for curve in [curve for one in family.panels for curve in one.curves if curve is not None]:
        inside = (curve.sigmas >= left) & (curve.sigmas <= right)
        numbers += [curve.low[inside], curve.high[inside]]
        numbers += [curve.control[inside]] * family.control
    values = np.concatenate(numbers)
    low, high = np.nanmin(values), np.nanmax(values)
    margin = 0.04 * (high - low) or 0.5
    axes.set_xscale("log")
    axes.set_ylim(low - (0 if low == 0 else margin), high + margin)
    axes.set_xlim(left / 1.15, right * 1.15)


def _colors(coloured: Sequence[int], found: Sequence[Group], rows: Sequence[Row]) -> list[str]:
    """The architectures' own colours; others where two in a panel would share one."""
    own = [figures.colors(rows)[found[place].numbers[0]] for place in coloured]
    return own if len(set(own)) == len(own) else list(figures.COLORS[: len(own)])


def _place_names(axes: "Axes", names: Sequence[tuple[Curve, str, str]]) -> None:
    """Writes each curve's name right of the axes, at its last value or as near as there is room."""
    (low, high), (left, right) = axes.get_ylim(), axes.get_xlim()
    width, height = _SIZE[0] - _BOX[0] - _BOX[3], _SIZE[1] - _BOX[1] - _BOX[2]
    # The noise level that many points to the right of the axes.
    beside = lambda points: right * (right / left) ** (points / width)
    ends = []
    for curve, name, color in names:
        known = np.isfinite(curve.mean)
        sigma = min(right, curve.sigmas[known].max())
        if sigma < left:
            continue
        # Where the line leaves the axes, if it does.
        value = np.interp(np.log(sigma), np.log(curve.sigmas[known]), curve.mean[known])
        wanted = (value - low) / (high - low) * height
        ends.append((wanted, sigma, value, _wrapped(name), color))
    ends.sort(key=lambda end: end[0])
    sizes = [_LINE * (end[3].count("\n") + 1) + 2 for end in ends]
    centers = _spread([end[0] for end in ends], sizes, height)
    for (_, sigma, value, name, color), at in zip(ends, centers, strict=True):
        y = low + at / height * (high - low)
        line = {"color": color, "lw": 2.5, "solid_capstyle": "butt", "clip_on": False}
        axes.plot([sigma, beside(8)], [value, y], color=MUTED, lw=0.7, ls=_DOTS, clip_on=False)
        axes.plot([beside(9), beside(16)], [y, y], **line)
        axes.text(
            beside(20), y, name, va="center", fontsize=10.5, color=INK, clip_on=False,
            parse_math=False, linespacing=1.1,
        )  # fmt: skip
    axes.set(xlim=(left, right), ylim=(low, high))


def _wrapped(name: str) -> str:
    """A name in lines, broken after commas and colons where it can be, four lines at most."""
    spaced = name.replace(",", ", ").replace(":", ": ").replace("  ", " ")
    lines = textwrap.wrap(spaced, _NAME, max_lines=4, placeholder=" …", break_on_hyphens=False)
    return "\n".join(line.replace(": ", ":") for line in lines) or name


def _spread(wanted: Sequence[float], sizes: Sequence[float], height: float) -> list[float]:
    """Centres of labels in rising order, near where they are wanted and none over another.

    Args:
      wanted: rising.
      sizes: how much room each takes.
      height: they stay in [0, height] if there is room for all.
    """
    bottoms, edge = [], 0.0
    for center, size in zip(wanted, sizes, strict=True):
        bottoms.append(max(edge, center - size / 2))
        edge = bottoms[-1] + size
    # From the top down again: what was pushed out above makes room.
    edge = max(height, sum(sizes))
    for place in reversed(range(len(bottoms))):
        bottoms[place] = min(bottoms[place], edge - sizes[place])
        edge = bottoms[place]
    return [bottom + size / 2 for bottom, size in zip(bottoms, sizes, strict=True)]
