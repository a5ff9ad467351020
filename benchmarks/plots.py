"""The frontier as a picture: realism against memorization, throughput as size.

Copies lie at the right, creations above at the left, nonsense below at the left. The architectures
are named beside it by their numbers, a column for each number of training images.
"""

import itertools
import json
import math
import zlib
from pathlib import Path
from typing import Any

COLORS = {
    "memorizes": "#a63a0b",
    "creates": "#1b7f5a",
    "unrealistic": "#69707a",
    "mixed": "#8a6d1b",
}
_INK, _MUTED, _RULE = "#1d2126", "#69707a", "#dcd9d1"
# One for each number of training images, and how the key writes it.
_MARKERS = {"o": "\u25cf", "s": "\u25a0", "D": "\u25c6", "^": "\u25b2", "v": "\u25bc"}
# Inches: the figure's height, the axes' box, a column of the key and a line of it.
_HEIGHT, _LEFT, _BOTTOM, _WIDE, _HIGH = 6.2, 0.75, 0.65, 6.6, 4.75
_COLUMN, _LINE = 3.25, 0.335
_A_COLUMN = 13
# The place that a number beside a point takes, in units of the axes, and the ends of these.
_STEP, _X = (0.042, 0.055), (-0.1, 1.1)


def frontier(rows: list[dict[str, Any]], title: str, about: str, path: Path) -> None:
    """Draws the architectures of one data set into a PNG.

    Args:
      rows: rows of the suite frontier with "verdicts", all of one data set.
      title: what stands above it.
      about: what stands below the title.
      path: the file.
    """
    import matplotlib
    import matplotlib.style

    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"Software": None, "Description": digest(rows, title, about)}
    with matplotlib.rc_context():
        matplotlib.style.use("default")
        drawn(rows, title, about).savefig(path, metadata=kept)


def drawn(rows: list[dict[str, Any]], title: str, about: str) -> Any:
    """The figure that `frontier` saves."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = _columns(rows)
    keys = _LEFT + _WIDE + 0.35
    width = keys + _COLUMN * len(columns)
    figure = Figure(figsize=(width, _HEIGHT), dpi=120)
    FigureCanvasAgg(figure)
    box = (_LEFT / width, _BOTTOM / _HEIGHT, _WIDE / width, _HIGH / _HEIGHT)
    _draw(figure.add_axes(box), [row for _, column in columns for row in column])
    at = lambda x, y: (x / width, 1 - y / _HEIGHT)  # inches from the left, and from the top
    figure.text(*at(_LEFT, 0.35), title, color=_INK, fontsize=13, weight="bold")
    figure.text(*at(_LEFT, 0.6), about, color=_MUTED, fontsize=9)
    number = 1
    for i, (head, column) in enumerate(columns):
        _key(figure, at, keys + i * _COLUMN, head, column, number)
        number += len(column)
    note = "Area: samples a second, logarithmic.\nBars: range over training seeds."
    figure.text(*at(keys, _HEIGHT - 0.2), note, color=_MUTED, fontsize=7.5)
    return figure


def digest(rows: list[dict[str, Any]], title: str, about: str) -> str:
    """What a figure is made of, in a word that it carries with it."""
    return f"{zlib.crc32(json.dumps([rows, title, about], sort_keys=True).encode()):08x}"


def carried(path: Path) -> str | None:
    """The `digest` that the figure at `path` was drawn with."""
    from PIL import Image

    with Image.open(path) as image:
        return image.info.get("Description")


def _columns(rows: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(head, rows) of each column of the key: by training images, then by falling realism."""
    sizes = sorted({row["num_train"] for row in rows})
    made = []
    for size, marker in zip(sizes, itertools.cycle(_MARKERS)):
        of_size = sorted(
            (row for row in rows if row["num_train"] == size),
            key=lambda row: (-row["realism"]["mean"], row["architecture"]),
        )
        of_size = [row | {"marker": marker} for row in of_size]
        head = f"{_MARKERS[marker]}  {size:,} training images"
        for start in range(0, len(of_size), _A_COLUMN):
            made.append((head, of_size[start : start + _A_COLUMN]))
    return made


def _draw(axes: Any, rows: list[dict[str, Any]]) -> None:
    top = max(1.2, max(row["realism"]["high"] for row in rows) + 0.15)
    for row in rows:
        x, y = row["memorized_fraction"], row["realism"]
        color = COLORS[_word(row)]
        line = {"color": color, "lw": 1.2, "alpha": 0.6, "zorder": 2}
        axes.plot([x["low"], x["high"]], [y["mean"]] * 2, **line)
        axes.plot([x["mean"]] * 2, [y["low"], y["high"]], **line)
        axes.scatter(
            x["mean"], y["mean"], s=_area(row), color=color, alpha=0.45, edgecolor=color,
            marker=row["marker"], zorder=3,
        )  # fmt: skip
    points = [(row["memorized_fraction"]["mean"], row["realism"]["mean"]) for row in rows]
    away = lambda a, b: math.hypot(*((p - q) / s for p, q, s in zip(a, b, _STEP, strict=True)))
    bars = [place for row in rows for place in _along_bars(row)]
    for number, (row, at) in enumerate(zip(rows, places(points, top, bars), strict=True), 1):
        point = points[number - 1]
        # A line where the number could be read as another point's.
        if away(at, point) > 1.5 or away(at, point) > min(away(at, other) for other in points):
            ends = zip(point, at, strict=True)
            axes.plot(*ends, color=COLORS[_word(row)], lw=0.8, alpha=0.7, zorder=4)
        axes.text(
            *at, str(number), color=COLORS[_word(row)], fontsize=9, weight="bold", zorder=5,
            ha="center", va="center",
        )  # fmt: skip
    axes.set(xlim=_X, ylim=(-0.09, top))
    axes.set_xlabel("memorized fraction of the samples", color=_MUTED, fontsize=10)
    axes.set_ylabel("realism: precision over that of held-out images", color=_MUTED, fontsize=10)
    axes.axhline(1, color=_RULE, lw=1, zorder=1)
    axes.tick_params(colors=_MUTED, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(_RULE)
    for x, y, word, side in (
        (0.5, 0.0, "nonsense", "center"),
        (0.5, top - 0.06, "creations", "center"),
        (1.05, 0.5, "copies", "right"),
    ):
        axes.text(
            x, y, word, color=_RULE, fontsize=20, weight="bold", ha=side, va="center", zorder=0
        )


def _along_bars(row: dict[str, Any]) -> list[tuple[float, float]]:
    """Places on a point's bars, so close that no number fits between them."""
    x, y = row["memorized_fraction"], row["realism"]
    along = lambda bar, step: [
        bar["low"] + (bar["high"] - bar["low"]) * i / n
        for n in (max(1, math.ceil((bar["high"] - bar["low"]) / step)),)
        for i in range(n + 1)
    ]
    return [
        *((at, y["mean"]) for at in along(x, _STEP[0])),
        *((x["mean"], at) for at in along(y, _STEP[1])),
    ]


def places(
    points: list[tuple[float, float]], top: float, bars: list[tuple[float, float]] | None = None
) -> list[tuple[float, float]]:
    """Where the points' numbers stand: each as near as it can beside points, bars and numbers."""
    (dx, dy), reach = _STEP, range(-30, 31)
    # To the right first, then above, below and to the left.
    cells = sorted(
        ((i, j) for i in reach for j in reach if (i, j) != (0, 0)),
        key=lambda cell: (math.hypot(*cell), -cell[0], -cell[1]),
    )
    taken = [*points, *(bars or [])]
    drawn_before = len(taken)
    for x, y in points:
        around = ((x + i * dx, y + j * dy) for i, j in cells)
        inside = (
            (p, q) for p, q in around if _X[0] + dx / 2 < p < _X[1] - dx / 2 and -0.06 < q < top
        )
        free = lambda p, q: all(abs(p - a) >= 0.99 * dx or abs(q - b) >= 0.99 * dy
                                for a, b in taken)  # fmt: skip
        taken.append(next(((p, q) for p, q in inside if free(p, q)), (x, y)))
    return taken[drawn_before:]


def _key(figure: Any, at: Any, left: float, head: str, rows: list[dict[str, Any]], n: int) -> None:
    """Architectures by their numbers from `n` on, with their verdicts and samples a second."""
    figure.text(*at(left, 0.6), head, color=_MUTED, fontsize=9)
    for line, row in enumerate(rows):
        y, color = 0.93 + line * _LINE, COLORS[_word(row)]
        rate = (row["sample_images_per_s"] or {}).get("mean", 0)
        said = ", ".join(row["verdicts"]) if len(row["verdicts"]) > 1 else _word(row)
        figure.text(
            *at(left + 0.2, y), str(n + line), color=color, fontsize=8.5, weight="bold", ha="right"
        )
        figure.text(*at(left + 0.28, y), _short(row["architecture"]), color=_INK, fontsize=8.5)
        figure.text(
            *at(left + 0.28, y + 0.145), f"{said}; {rate:,.0f} samples/s", color=color, fontsize=7.5
        )


def _short(name: str, most: int = 44) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _area(row: dict[str, Any]) -> float:
    rate = (row["sample_images_per_s"] or {}).get("mean") or 1
    return 25 + 45 * max(0.0, math.log10(rate))


def _word(row: dict[str, Any]) -> str:
    """The most frequent verdict."""
    return max(row["verdicts"], key=lambda word: row["verdicts"][word])
