"""Figures of the study `laws`: predictions drawn over samples, one small figure a row.

One ink means one thing on the whole page: blue are samples, the dark line is what the law predicts,
rings are training points, and copies of them are red.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jdiff.report import canvas
from jdiff.report.canvas import COPY, INK, MUTED, PAPER, RULE
from jdiff.report.figures import COLORS, MAX_POINTS, NUM_COLUMNS
from jdiff.report.law_rows import LawRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

SAMPLES, OTHER = COLORS[0], COLORS[1]
MAX_DOTS = 800  # samples shown in a plane
_LEFT = 50  # room for the y axis of a small panel
_DASHES = (0, (4, 2))
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Frame(NamedTuple):
    """The axes that panels of one coordinate share.

    Attributes:
      x: from and to.
      share: top of the axis of shares.
      density: top of the axis of densities.
    """

    x: tuple[float, float]
    share: float
    density: float


def frame(rows: Sequence[LawRow]) -> Frame:
    """One frame for rows that shall be compared, with all of their training points in it."""
    farthest = max(float(np.abs(row.array("points")).max()) for row in rows)
    narrowest = min(float(np.abs(row.array("edges")).max()) for row in rows)
    reach = max(1.2 * farthest, narrowest)
    densities = [row.array("density") for row in rows]
    densities += [_heights(row)[0] for row in rows]
    return Frame(
        (-reach, reach),
        1.2 * max(float(row.array("weights").max()) for row in rows),
        1.1 * max(float(heights.max()) for heights in densities) or 1.0,
    )


@canvas.style()
def line(row: LawRow, shared: Frame, beside: LawRow | None = None) -> "Figure":
    """One coordinate: training points and their copies above, samples and their law below.

    Args:
      row: a row of "star" or "moments".
      shared: the axes, see `frame`.
      beside: a row whose predicted density is drawn dashed, to compare with.
    """
    fig = canvas.figure(272, 316)
    above = canvas.axes(fig, (_LEFT, 232, 16, 8))
    below = canvas.axes(fig, (_LEFT, 40, 106, 8))
    _draw_points(above, row, shared)
    above.set_xlabel("")
    above.set_xticks([])
    _draw_density(below, row, shared)
    fig.align_ylabels([above, below])
    if beside is not None:
        _draw_dashed(below, beside, "density")
    return fig


@canvas.style()
def density(row: LawRow, shared: Frame) -> "Figure":
    """One coordinate: samples and their law on a logarithmic axis, the training points as ticks.

    The axis ends at half a sample a bin.

    Args:
      row: a row of "two_points".
      shared: the axes, see `frame`.
    """
    fig = canvas.figure(216, 190)
    panel = canvas.axes(fig, (_LEFT, 40, 16, 8))
    _draw_density(panel, row, shared)
    bins = np.diff(row.array("edges"))
    low = 0.5 / len(row.array("samples")) / float(bins.max())
    panel.set(yscale="log", ylim=(low, 2 * shared.density))
    _log_ticks(panel.yaxis, low, 2 * shared.density)
    points = row.array("points")
    panel.plot(
        points, np.zeros(len(points)), "|", color=INK, ms=14, mew=1.6, clip_on=False,
        transform=panel.get_xaxis_transform(),
    )  # fmt: skip
    return fig


@canvas.style()
def copies(row: LawRow, shared: Frame) -> "Figure":
    """One coordinate: the samples of the optimal denoiser and the training points."""
    fig = canvas.figure(216, 190)
    _draw_points(canvas.axes(fig, (_LEFT, 40, 16, 8)), row, shared)
    return fig


@canvas.style()
def strip(row: LawRow, name: str) -> "Figure":
    """A strip of images: "samples", "law_samples" or "atoms".

    Args:
      row: a row whose arrays hold images of that name.
      name: which.
    """
    images = row.array(name)[:NUM_COLUMNS]
    columns = min(NUM_COLUMNS, max(NUM_COLUMNS // 2, len(images)))
    return canvas.strips([images], [""], columns)


@canvas.style()
def diagonal(row: LawRow) -> "Figure":
    """Variances along the predicted axes, measured against predicted, and their ratio below.

    The grey band is where a right law's measured variance lies, 95 of 100 times.
    """
    fig = canvas.figure(272, 300)
    above = canvas.axes(fig, (56, 124, 10, 10))
    below = canvas.axes(fig, (56, 40, 194, 10))
    predicted, measured = row.array("predicted"), row.array("measured")
    shown = np.unique(np.linspace(0, len(predicted) - 1, MAX_POINTS).astype(int))
    shown = shown[np.argsort(predicted[shown], kind="stable")]
    x, y = predicted[shown], measured[shown]
    wide = np.concatenate([[x[0] / 1.5], x, [x[-1] * 1.5]])
    low, high = row.optional("low"), row.optional("high")
    if low is not None and high is not None:
        low, high = (np.pad(end[shown] / x, 1, mode="edge") for end in (low, high))
        above.fill_between(wide, low * wide, high * wide, color=RULE, lw=0, zorder=0)
        below.fill_between(wide, low, high, color=RULE, lw=0, zorder=0)
    above.plot(wide, wide, color=INK, lw=1.2, zorder=1)
    below.axhline(1, color=INK, lw=1.2, zorder=1)
    for panel, values in ((above, y), (below, y / x)):
        panel.plot(x, values, "o", ms=4, color=SAMPLES, alpha=0.9, mew=0, zorder=2)
        panel.set(xscale="log", xlim=(wide[0], wide[-1]))
    above.set(yscale="log", ylim=(wide[0], wide[-1]))
    for axis in (above.xaxis, above.yaxis, below.xaxis):
        _log_ticks(axis, wide[0], wide[-1])
    canvas.tidy(above, "", "measured")
    canvas.tidy(below, "predicted variance", "ratio")
    above.tick_params(labelbottom=False)
    below.locator_params(axis="y", nbins=3)
    fig.align_ylabels([above, below])
    return fig


@canvas.style()
def plane(row: LawRow, limits: tuple[float, float, float, float]) -> "Figure":
    """Two coordinates: training points, samples, the code's line and the predicted curve.

    Args:
      row: a row of "plane".
      limits: x from and to, y from and to, the same for every row: see `plane_limits`.
    """
    x0, x1, y0, y1 = limits
    fig = canvas.figure(272, round(222 * (y1 - y0) / (x1 - x0)) + 60)
    panel = canvas.axes(fig, (40, 42, 18, 10))
    training, samples = row.array("training"), row.array("samples")
    axis, mean, curve = row.optional("axis"), row.optional("mean"), row.optional("curve")
    if axis is not None and mean is not None:
        far = (x1 - x0 + y1 - y0) * np.asarray(axis) / np.linalg.norm(axis)
        panel.plot(*np.stack([mean - far, mean + far]).T, color=MUTED, lw=1, ls=_DASHES, zorder=1)
    inside = _within(samples, limits)
    drawn = samples[:MAX_DOTS][inside[:MAX_DOTS]]
    thinned = training[np.unique(np.linspace(0, len(training) - 1, MAX_DOTS).astype(int))]
    panel.plot(*thinned.T, "o", ms=5, color="none", mec=INK, mew=0.8, alpha=0.7, zorder=2)
    panel.plot(*drawn.T, "o", ms=3.4, color=SAMPLES, alpha=0.5, mew=0, zorder=3)
    if curve is not None:
        chosen = np.unique(np.linspace(0, len(curve) - 1, MAX_POINTS).astype(int))
        panel.plot(*curve[chosen].T, "o", ms=6, color=OTHER, alpha=0.5, mew=0, zorder=1)
    canvas.tidy(panel, "x₁", "x₂")
    panel.set(xlim=(x0, x1), ylim=(y0, y1))
    panel.locator_params(nbins=5)
    _say_outside(panel, int(np.sum(~inside)), len(samples))
    return fig


def plane_limits(rows: Sequence[LawRow]) -> tuple[float, float, float, float]:
    """The window of `plane`: the training points of all rows with a margin, finite."""
    points = np.concatenate([row.array("training") for row in rows])
    low, high = points.min(0), points.max(0)
    margin = 0.25 * float(np.max(high - low)) + 0.1
    x0, y0, x1, y1 = map(float, (*(low - margin), *(high + margin)))
    return x0, x1, y0, y1


@canvas.style()
def spectrum(row: LawRow) -> "Figure":
    """Singular values of the denoiser's Jacobian at the last level, a dashed line at its code."""
    fig = canvas.figure(272, 170)
    panel = canvas.axes(fig, (52, 40, 14, 10))
    values = row.array("singular_values")
    places = np.unique(np.linspace(0, len(values) - 1, MAX_POINTS).astype(int))
    panel.plot(places + 1, values[places], "o-", ms=4, color=SAMPLES, lw=1.2, mew=0)
    if np.all(values > 0):
        panel.set_yscale("log")
        _log_ticks(panel.yaxis, float(values.min()), float(values.max()))
    code = row.number("knob")
    if code is not None:
        panel.axvline(code + 0.5, color=MUTED, lw=1, ls=_DASHES)
        panel.text(
            code + 0.5, 1.02, f" code: {code}", ha="left", va="bottom", color=MUTED, fontsize=10,
            transform=panel.get_xaxis_transform(),
        )  # fmt: skip
    canvas.tidy(panel, "number", "singular value")
    return fig


def _heights(row: LawRow) -> tuple[np.ndarray, int]:
    """The samples' histogram on the law's bins, and how many lie in it."""
    samples, edges = row.array("samples"), row.array("edges")
    counts = np.histogram(samples[np.isfinite(samples)], edges)[0]
    # Divided by all samples: those outside are missing here as they are from the prediction.
    return counts / len(samples) / np.diff(edges), int(counts.sum())


def _draw_density(panel: "Axes", row: LawRow, shared: Frame) -> None:
    """Histogram of the samples, the predicted density, and the reference if there is one."""
    samples, edges = row.array("samples"), row.array("edges")
    panel.stairs(_heights(row)[0], edges, fill=True, color=SAMPLES, alpha=0.5, lw=0)
    panel.stairs(row.array("density"), edges, color=INK, lw=1.4, baseline=None)
    _draw_dashed(panel, row, "reference")
    canvas.tidy(panel, "x", "density")
    panel.set(xlim=shared.x, ylim=(0, shared.density))
    panel.locator_params(nbins=4)
    low, high = max(edges[0], shared.x[0]), min(edges[-1], shared.x[1])
    outside = int(np.sum(~((samples >= low) & (samples <= high))))
    _say_outside(panel, outside, len(samples))


def _draw_dashed(panel: "Axes", row: LawRow, name: str) -> None:
    """A density to compare with, if the row has it."""
    heights, edges = row.optional(name), row.array("edges")
    if heights is not None:
        middles = (edges[:-1] + edges[1:]) / 2
        panel.plot(middles, heights, color=OTHER, lw=1.8, ls=_DASHES)


def _draw_points(panel: "Axes", row: LawRow, shared: Frame) -> None:
    """Training points, as high as their weights, and the samples of the optimal denoiser."""
    edges, points, weights = (row.array(name) for name in ("edges", "points", "weights"))
    samples = row.optional("optimal_samples")
    if samples is None:
        panel.vlines(points, 0, weights, color=MUTED, lw=1)
    else:
        # Every point has a bin of its own: on an edge its copies would fall into two.
        width = (shared.x[1] - shared.x[0]) / 50
        around = np.concatenate([points - width / 2, points + width / 2])
        apart = np.abs(edges[:, None] - points[None, :]).min(1) > width / 2
        bins = np.unique(np.concatenate([edges[apart], around]))
        shares = np.histogram(samples[np.isfinite(samples)], bins)[0] / len(samples)
        panel.stairs(shares, bins, fill=True, color=COPY, alpha=0.85, lw=0)
    panel.plot(points, weights, "o", ms=7, color=PAPER, mec=INK, mew=1.3, clip_on=False, zorder=4)
    canvas.tidy(panel, "x", "share")
    panel.set_yticks([0, 0.25, 0.5] if shared.share < 0.8 else [0, 0.5, 1])
    panel.set(xlim=shared.x, ylim=(0, shared.share))


def _log_ticks(axis: "Axis", low: float, high: float) -> None:
    """Few ticks on a logarithmic axis: powers of ten, or plain numbers within two of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    wide = high > 100 * low
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 3.0), numticks=6))
    power = lambda value, _: "10" + f"{np.log10(value):.0f}".translate(_SUPERSCRIPT)
    axis.set_major_formatter(FuncFormatter(power if wide else lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _say_outside(panel: "Axes", number: int, total: int) -> None:
    """States how many samples lie outside the picture, if any do."""
    if number:
        panel.text(
            1, 1.01, f"{number:,} of {total:,} lie outside", ha="right", va="bottom",
            color=MUTED, fontsize=10, transform=panel.transAxes,
        )  # fmt: skip


def _within(points: np.ndarray, limits: tuple[float, float, float, float]) -> np.ndarray:
    x0, x1, y0, y1 = limits
    x, y = points.T
    return (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
