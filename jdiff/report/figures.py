"""Figures of a report, as matplotlib figures without pyplot and without global state.

Every function takes all rows, so that colours, columns and axes are the same in each figure, and
draws one panel an architecture, of its first seed that did not fail; `only=i` draws the panel of
row i alone, without its name, which is how the page lays panels out to fit its reader's window.
Images are drawn pixel for pixel, never smoothed.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jdiff import _pixels
from jdiff.report import canvas, formats, groups
from jdiff.report.canvas import COPY, INK, MUTED, PAPER, RULE
from jdiff.report.rows import Pictures, Row, titles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Tol's "vibrant" scheme, told apart under every common colour vision defect. From the seventh
# architecture on colours come again, with another marker; and every panel carries its name.
COLORS = ("#0077bb", "#ee7733", "#009988", "#ee3377", "#33bbee", "#cc3311")
MARKERS = "osD^vP"
NUM_COLUMNS = 16  # samples shown a row
NUM_PAIRS = 8
MAX_POINTS = 300  # a curve with more is drawn by the means of blocks


def colors(rows: Sequence[Row]) -> list[str]:
    """One colour an architecture, in the order they appear; rows of one label share it."""
    labels = list(dict.fromkeys(row.label for row in rows))
    return [COLORS[labels.index(row.label) % len(COLORS)] for row in rows]


def threshold(row: Row) -> float:
    """The c below which d1/d2 counts as a copy: the measure's own constant, else 1/3."""
    return (row.measure("memorized_fraction").get("constants") or {}).get("c") or 1 / 3


def with_pictures(rows: Sequence[Row]) -> list[int]:
    """Numbers of the rows that have pictures."""
    return [i for i, row in enumerate(rows) if row.pictures is not None]


def trained(rows: Sequence[Row]) -> list[int]:
    """The first row of each architecture that has a learning curve."""
    curves = [_with_curve(rows, one.numbers) for one in groups.group(rows)]
    return [numbers[0] for numbers in curves if numbers]


def _with_curve(rows: Sequence[Row], numbers: Sequence[int]) -> list[int]:
    """Those of the rows that have a learning curve."""
    with_history = [i for i in numbers if rows[i].pictures and _pictures(rows[i]).history]
    return [i for i in with_history if np.isfinite(_losses(rows[i])).any()]


def is_toy(rows: Sequence[Row]) -> bool:
    """Whether the samples are points, H = W = 1, and not images."""
    return any(_pictures(rows[i]).samples.shape[1:3] == (1, 1) for i in with_pictures(rows))


def _styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Any:
        with canvas.style():
            return draw(*args, **kwargs)

    return styled


@_styled
def samples(
    rows: Sequence[Row], data: Mapping[str, Any] | None = None, *, only: int | None = None
) -> "Figure":
    """Samples of every row from one noise, one strip a row: a column shows the same noise.

    Toy data: a histogram (one coordinate) or a scatter plot (two) beside the training points.

    Args:
      rows: all rows of the report; those without pictures have no panel.
      data: the page's `data`; toy data takes the training points from its "images".
      only: the number of the one row to draw.
    """
    if is_toy(rows):
        return _toy(rows, data, only)
    columns = _num_columns([_pictures(rows[i]).samples for i in with_pictures(rows)])
    if only is not None:
        return canvas.strips([_pictures(rows[only]).samples[:columns]], [""], columns)
    names, leaders = titles(rows), groups.leaders(rows)
    shown = [_pictures(rows[i]).samples[:columns] for i in leaders]
    return canvas.strips(shown, [names[i] for i in leaders], columns)


@_styled
def real(data: Mapping[str, Any], *, only: str | None = None) -> "Figure":
    """Real images to compare the samples with: a strip of training, a strip of held-out images.

    Args:
      data: the page's `data`, with "images" and "held_out", [k, H, W, C] each.
      only: "images" or "held_out", to draw one of the two.
    """
    columns = _num_columns([data["images"], data["held_out"]])
    if only is not None:
        return canvas.strips([np.asarray(data[only])[:columns]], [""], columns)
    shown = [np.asarray(data[name])[:columns] for name in ("images", "held_out")]
    return canvas.strips(shown, ["training", "held out"], columns)


@_styled
def nearest(
    rows: Sequence[Row], data: Mapping[str, Any] | None = None, *, only: int | None = None
) -> "Figure":
    """Each of the first samples above its nearest training image, their rms distance below.

    Pairs that count as copies (d1/d2 < c) are framed.

    Args:
      rows: all rows of the report; those without pictures have no panel.
      data: not used; every figure of a row takes the same arguments.
      only: the number of the one row to draw.
    """
    shown = groups.leaders(rows) if only is None else [only]
    height, width = _pictures(rows[shown[0]]).samples.shape[1:3]
    pitch = 62
    tall = round(2.3 * pitch * height / (width + canvas.gap(width))) + 22
    figure, panels = canvas.panels(
        _names(rows, shown, only), (NUM_PAIRS * pitch, tall), columns=2, box=(2, 2, 2, 10)
    )
    for i, axes in zip(shown, panels, strict=True):
        _draw_pairs(axes, _pictures(rows[i]), threshold(rows[i]))
    return figure


@_styled
def ratios(
    rows: Sequence[Row], data: Mapping[str, Any] | None = None, *, only: int | None = None
) -> "Figure":
    """How close to copies: the share of samples whose d1/d2 lies below each value.

    The dashed grey curve is of held-out real images. Where a row's curve crosses the threshold c
    stands its memorized fraction, marked by a dot.

    Args:
      rows: all rows of the report; those without pictures have no panel.
      data: not used; every figure of a row takes the same arguments.
      only: the number of the one row to draw.
    """
    shown = groups.leaders(rows) if only is None else [only]
    figure, panels = canvas.panels(
        _names(rows, shown, only), (264, 205), columns=4, box=(46, 42, 22, 10)
    )
    for i, axes in zip(shown, panels, strict=True):
        pictures, color, c = _pictures(rows[i]), colors(rows)[i], threshold(rows[i])
        axes.axvspan(0, c, color=RULE, alpha=0.45, lw=0)
        axes.text(c / 2, 1.03, "copies", ha="center", va="bottom", color=MUTED, fontsize=10)
        held_out = _shares(pictures.held_out_d1, pictures.held_out_d2)
        axes.plot(*held_out, color=MUTED, lw=1.3, ls=(0, (4, 2)))
        axes.plot(*_shares(pictures.d1, pictures.d2), color=color, lw=2.2)
        value = rows[i].measure("memorized_fraction").get("value")
        if value is not None and not formats.missing(value):
            axes.plot(
                c, value, "o", ms=7.5, color=color, mec=PAPER, mew=1.4, clip_on=False, zorder=5
            )
        canvas.tidy(axes, "d₁ / d₂", "share below")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_xticks([0, c, 1], ["0", "⅓" if abs(c - 1 / 3) < 1e-3 else f"{c:.2g}", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "½", "1"])
    return figure


@_styled
def curves(
    rows: Sequence[Row], data: Mapping[str, Any] | None = None, *, only: int | None = None
) -> "Figure":
    """Learning curves: training loss (pale) and held-out loss (dots) against the step.

    All seeds of an architecture share its panel, the first drawn strongest. The losses of two
    preconditionings are weighted differently, so each panel has its own scale.

    Args:
      rows: all rows of the report; only those with a history have a panel.
      data: not used; every figure of a row takes the same arguments.
      only: the number of a row of the one architecture to draw.
    """
    shown = trained(rows) if only is None else [only]
    figure, panels = canvas.panels(
        _names(rows, shown, only), (340, 225), columns=3, box=(54, 44, 12, 14)
    )
    for i, axes in zip(shown, panels, strict=True):
        (one,) = (one for one in groups.group(rows) if i in one.numbers)
        seeds, color = _with_curve(rows, one.numbers), colors(rows)[i]
        for place, seed in enumerate(seeds):
            pictures, shade = _pictures(rows[seed]), 1 if place == 0 else 0.45
            axes.plot(*_thinned(pictures, "step", "loss"), color=color, lw=1.3, alpha=0.5 * shade)
            held_out = _thinned(pictures, "held_out_step", "held_out_loss")
            size = 5 if place == 0 else 3.5
            axes.plot(
                *held_out, "o-", color=color, lw=2 * shade, ms=size, mec=PAPER, mew=0.8, alpha=shade
            )
        if min(np.nanmin(_losses(rows[seed])) for seed in seeds) > 0:
            axes.set_yscale("log")
            canvas.plain_log_ticks(axes)
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        canvas.tidy(axes, "training step", "loss")
    return figure


def _pictures(row: Row) -> Pictures:
    if row.pictures is None:
        raise ValueError(f"row {row.label!r} has no pictures to draw.")
    return row.pictures


def _names(rows: Sequence[Row], shown: Sequence[int], only: int | None) -> list[tuple[str, str]]:
    """Each panel's name and colour; a panel that stands alone is named by who asked for it."""
    names, shades = titles(rows), colors(rows)
    return [(names[i] if only is None else "", shades[i]) for i in shown]


def _num_columns(images: Sequence[Any]) -> int:
    return min(NUM_COLUMNS, max(NUM_COLUMNS // 2, *map(len, images), 1))


def _losses(row: Row) -> np.ndarray:
    return np.concatenate([_pictures(row).curve("loss"), _pictures(row).curve("held_out_loss")])


def _draw_pairs(axes: "Axes", pictures: Pictures, c: float) -> None:
    from matplotlib.patches import Rectangle

    n, height, width, channels = pictures.samples.shape
    n, gap = min(n, NUM_PAIRS), canvas.gap(width)
    above = canvas.mosaic(pictures.samples[:n], NUM_PAIRS)
    below = canvas.mosaic(np.asarray(pictures.nearest)[:n], NUM_PAIRS)
    between = np.zeros((gap, *above.shape[1:]), np.uint8)
    axes.imshow(np.concatenate([above, between, below]), interpolation="none", aspect="equal")
    axes.set_anchor("NW")
    axes.set_axis_off()
    for k in range(n):
        copied = pictures.d1[k] < c * pictures.d2[k]
        rms = float(pictures.d1[k]) / np.sqrt(height * width * channels)
        left, bottom = k * (width + gap) - 0.5, 2 * height + gap - 0.5
        axes.annotate(
            formats.significant(rms, 2), (left + width / 2, bottom), (0, -5),
            textcoords="offset points", ha="center", va="top", fontsize=11,
            color=COPY if copied else MUTED,
        )  # fmt: skip
        if copied:
            edge = gap / 4
            axes.add_patch(
                Rectangle(
                    (left - edge, -0.5 - edge),
                    width + 2 * edge,
                    bottom + 0.5 + 2 * edge,
                    fill=False,
                    ec=COPY,
                    lw=1.8,
                    clip_on=False,
                )  # fmt: skip
            )


def _toy(rows: Sequence[Row], data: Mapping[str, Any] | None, only: int | None) -> "Figure":
    shown = groups.leaders(rows)
    given = data["images"] if data else np.concatenate([_pictures(rows[i]).nearest for i in shown])
    points = _pixels.to_model(np.asarray(given))[:, 0, 0]
    margin = 0.4 * np.ptp(points) + 0.1
    low, high = points.min() - margin, points.max() + margin
    shown = shown if only is None else [only]
    figure, panels = canvas.panels(
        _names(rows, shown, only), (310, 300), columns=3, box=(48, 44, 18, 14)
    )
    for i, axes in zip(shown, panels, strict=True):
        drawn, color = _pictures(rows[i]).samples[:, 0, 0], colors(rows)[i]
        inside = np.all((drawn >= low) & (drawn <= high), axis=-1)
        if points.shape[1] == 1:
            axes.hist(
                drawn[inside, 0], np.linspace(low, high, 41).tolist(), color=color, alpha=0.85
            )
            axes.plot(points[:, 0], np.zeros(len(points)), "|", color=INK, ms=12, clip_on=False)
            canvas.tidy(axes, "x", "samples")
        else:
            axes.plot(*points[:, :2].T, "o", ms=3.5, color=MUTED, alpha=0.5, mew=0)
            axes.plot(*drawn[inside, :2].T, "o", ms=4.5, color=color, alpha=0.75, mew=0)
            axes.set(ylim=(low, high), aspect="equal")
            canvas.tidy(axes, "x₁", "x₂")
        axes.set_xlim(low, high)
        if not inside.all():
            axes.text(
                1, 1.01, f"{np.sum(~inside)} of {len(drawn)} lie outside", ha="right", va="bottom",
                color=MUTED, fontsize=10, transform=axes.transAxes,
            )  # fmt: skip
    return figure


def _shares(d1: np.ndarray, d2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the empirical distribution function of d1/d2 on [0, 1].

    Images without a second neighbour are left out; two neighbours at distance 0 have ratio 1.
    """
    d1, d2 = np.asarray(d1, np.float64), np.asarray(d2, np.float64)
    ratio = np.divide(d1, d2, out=np.ones_like(d1), where=d2 > 0)
    values = np.sort(ratio[np.isfinite(d1) & np.isfinite(d2)])
    if not len(values):
        return np.array([]), np.array([])
    kept = np.unique(np.linspace(0, len(values) - 1, MAX_POINTS).astype(int))
    x, y = np.repeat(values[kept], 2), np.repeat((kept + 1) / len(values), 2)
    return np.concatenate([[0], x, [1]]), np.concatenate([[0, 0], y])


def _thinned(pictures: Pictures, step: str, loss: str) -> tuple[np.ndarray, np.ndarray]:
    """A curve without its gaps, in means of equal blocks where it is longer than MAX_POINTS."""
    x, y = pictures.curve(step), pictures.curve(loss)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if len(x) <= MAX_POINTS:
        return x, y
    blocks = np.array_split(np.arange(len(x)), MAX_POINTS)
    return np.array([x[b].mean() for b in blocks]), np.array([y[b].mean() for b in blocks])
