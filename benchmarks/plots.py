"""The frontier as a picture: realism against memorization, throughput as size.

Copies lie at the right, creations above at the left, nonsense below at the left.
"""

import math
from pathlib import Path
from typing import Any

COLORS = {
    "memorizes": "#a63a0b",
    "creates": "#1b7f5a",
    "unrealistic": "#69707a",
    "mixed": "#8a6d1b",
}
_INK, _MUTED, _RULE = "#1d2126", "#69707a", "#dcd9d1"


def frontier(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draws the architectures of one data set into a PNG.

    Args:
      rows: rows of the suite frontier with "verdicts", all of one data set.
      title: what stands above it.
      path: the file.
    """
    import matplotlib
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.style.use("default")
        figure = Figure(figsize=(9.6, 5.4), dpi=120)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.075, 0.11, 0.60, 0.78))
        rows = _ordered(rows)
        _draw(axes, rows)
        figure.text(0.075, 0.94, title, color=_INK, fontsize=12, weight="bold")
        _key(figure, rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None})


def _draw(axes: Any, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        x, y = row["memorized_fraction"], row["realism"]
        color = COLORS[_word(row)]
        axes.plot([x["low"], x["high"]], [y["mean"]] * 2, color=color, lw=1.2, alpha=0.6, zorder=2)
        axes.plot([x["mean"]] * 2, [y["low"], y["high"]], color=color, lw=1.2, alpha=0.6, zorder=2)
        axes.scatter(
            x["mean"], y["mean"], s=_area(row), color=color, alpha=0.55, edgecolor=color, zorder=3
        )
    _number_points(axes, rows)
    axes.set(xlim=(-0.06, 1.06), ylim=(-0.07, max(1.2, _top(rows))))
    axes.set_xlabel("memorized fraction of the samples", color=_MUTED, fontsize=10)
    axes.set_ylabel("realism: precision over that of held-out images", color=_MUTED, fontsize=10)
    axes.axhline(1, color=_RULE, lw=1, zorder=1)
    axes.tick_params(colors=_MUTED, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(_RULE)
    for x, y, word, side in (
        (0.5, -0.05, "nonsense", "center"),
        (0.5, max(1.2, _top(rows)) - 0.06, "creations", "center"),
        (1.05, 0.5, "copies", "right"),
    ):
        axes.text(x, y, word, color=_RULE, fontsize=20, weight="bold", ha=side, zorder=0)


def _number_points(axes: Any, rows: list[dict[str, Any]]) -> None:
    for number, (row, at) in enumerate(zip(rows, places(rows), strict=True), 1):
        axes.text(*at, str(number), color=COLORS[_word(row)], fontsize=9, weight="bold", zorder=4)


def places(rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Where the numbers beside the points stand: pushed apart where they would lie on others."""
    placed: list[tuple[float, float]] = []
    for row in rows:
        x, y = row["memorized_fraction"]["mean"] + 0.025, row["realism"]["mean"] + 0.02
        while any(abs(p - x) < 0.034 and abs(q - y) < 0.045 for p, q in placed):
            x += 0.036
        placed.append((x, y))
    return placed


def _key(figure: Any, rows: list[dict[str, Any]]) -> None:
    """The architectures by their numbers, coloured by verdict, and what the sizes mean."""
    y = 0.89
    for number, row in enumerate(rows, 1):
        rate = (row["sample_images_per_s"] or {}).get("mean", 0)
        said = ", ".join(row["verdicts"]) if len(row["verdicts"]) > 1 else _word(row)
        figure.text(0.70, y, f"{number}", color=COLORS[_word(row)], fontsize=8.5, weight="bold")
        figure.text(0.722, y, row["architecture"], color=_INK, fontsize=8.5)
        figure.text(
            0.722,
            y - 0.024,
            f"{said}; {rate:,.0f} samples/s",
            color=COLORS[_word(row)],
            fontsize=7.5,
        )
        y -= 0.058
    figure.text(
        0.70, 0.03,
        "Area: samples a second, logarithmic.\nBars: range over training seeds.",
        color=_MUTED, fontsize=7.5,
    )  # fmt: skip


def _area(row: dict[str, Any]) -> float:
    rate = (row["sample_images_per_s"] or {}).get("mean") or 1
    return 40 + 90 * max(0.0, math.log10(rate))


def _ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (-row["realism"]["mean"], row["architecture"]))


def _word(row: dict[str, Any]) -> str:
    """The most frequent verdict."""
    return max(row["verdicts"], key=lambda word: row["verdicts"][word])


def _top(rows: list[dict[str, Any]]) -> float:
    return max(row["realism"]["high"] for row in rows) + 0.15
