"""Figures of one evaluation: what was made, where it lies, what it is made of.

One ink means one thing on the whole page: blue are samples, or what was measured of them; grey and
dashed is the control, held-out images in their place; the dark line is the training set; red is
what counts as a copy. Pictures are PNG pixels, never smoothed; the rest are matplotlib figures.
"""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jdiff.report import canvas
from jdiff.report.canvas import COPY, INK, MUTED, PAPER, RULE
from jdiff.report.evaluation_record import Finding, Findings
from jdiff.report.figures import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SAMPLES = COLORS[0]
NUM_BINS = 30  # of d1/d2 in [0, 1]: both 1/3 and 1/2 are edges
DASHES = (0, (4, 2))
SHADES = ("#6bb8e6", "#2a8fd0", "#1a5fa8")  # of one quantity at three shares, small to large
_PLANE = (272, 262)
_CURVE = (340, 232)
# Colours of sources, the most frequent first; further ones come again. Tol's "bright" and "light"
# schemes, without the greys.
SOURCES = (
    *("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"),
    *("#ee8866", "#bbcc33", "#99ddff", "#ffaabb", "#44bb99", "#aaaa00"),
    *("#eedd88", "#77aadd", "#885511", "#cc99dd"),
)


def picture(image: np.ndarray) -> str:
    """An image [H, W, C], uint8 or model units, as the address of a PNG that a page carries."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(canvas.mosaic(np.asarray(image)[None], 1)).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@canvas.style()
def ratios(found: Findings) -> "Figure":
    """Histogram of d1/d2: samples filled, held-out images as an outline, the threshold c.

    Heights are shares of each set, so that both can be compared; left of c lie copies.
    """
    fig = canvas.figure(520, 270)
    panel = canvas.axes(fig, (56, 46, 30, 14))
    edges = np.linspace(0, 1, NUM_BINS + 1)
    share = lambda name: np.histogram(found.array(name), edges)[0] / max(1, found.array(name).size)
    c = threshold(found)
    if c is not None:
        panel.axvspan(0, c, color=RULE, alpha=0.45, lw=0, zorder=0)
        panel.axvline(c, color=COPY, lw=1.2, zorder=3)
        words = {"⅓": 1 / 3, "½": 1 / 2}
        said = next((word for word, value in words.items() if abs(c - value) < 1e-3), f"{c:.3g}")
        panel.text(
            c, 1.02, f"copies: d₁/d₂ < c = {said}", ha="right" if c > 0.3 else "left",
            va="bottom", color=COPY, fontsize=11, transform=panel.get_xaxis_transform(),
        )  # fmt: skip
    panel.stairs(share("ratio"), edges, fill=True, color=SAMPLES, alpha=0.75, lw=0, zorder=1)
    panel.stairs(share("held_out_ratio"), edges, color=MUTED, lw=1.8, baseline=None, zorder=2)
    canvas.tidy(panel, "d₁ / d₂", "share of images")
    panel.set(xlim=(0, 1), ylim=(0, None))
    panel.yaxis.set_major_formatter("{x:.0%}")
    panel.locator_params(axis="y", nbins=5)
    return fig


def threshold(found: Findings) -> float | None:
    """The c of memorized_fraction as it was measured; None if it was not."""
    return found.measure("memorized_fraction").constants.get("c")


@canvas.style()
def plane(x: Finding, y: Finding) -> "Figure":
    """Two measures of one set of samples as a point, its control as a ring, crosses the intervals.

    Args:
      x: what lies to the right, one number such as precision.
      y: what lies upwards, such as recall.
    """
    fig = canvas.figure(*_PLANE)
    panel = canvas.axes(fig, (52, 44, 12, 14))
    for field, color in (("control", MUTED), ("value", SAMPLES)):
        ends = f"{field}_interval" if field == "control" else "interval"
        at = float(x.numbers(field)), float(y.numbers(field))
        if not np.isfinite(at).all():
            continue
        panel.plot(x.numbers(ends), [at[1]] * 2, color=color, lw=2, alpha=0.6, zorder=2)
        panel.plot([at[0]] * 2, y.numbers(ends), color=color, lw=2, alpha=0.6, zorder=2)
        fill, edge = (PAPER, color) if field == "control" else (color, PAPER)
        panel.plot(*at, "o", ms=6.5, color=fill, mec=edge, mew=1.4, clip_on=False, zorder=3)
    canvas.tidy(panel, x.title.split(",")[0], y.title.split(",")[0])
    panel.grid(color=RULE, lw=0.8, zorder=0)
    panel.set_axisbelow(True)
    # Shares end at 1; only density may exceed it.
    panel.set(xlim=(0, _top(x)), ylim=(0, _top(y)))
    panel.locator_params(nbins=5)
    return fig


def _top(measure: Finding) -> float:
    everything = [measure.numbers(field).ravel() for field in ("value", "interval", "control")]
    everything.append(measure.numbers("control_interval"))
    return max(1.0, float(np.nanmax(np.concatenate(everything)))) * 1.03


@canvas.style()
def spectra(found: Findings) -> "Figure":
    """Radial power spectra on logarithmic axes: samples, training and held-out images."""
    fig = canvas.figure(520, 310)
    panel = canvas.axes(fig, (64, 46, 12, 14))
    frequency = found.array("frequency")
    lines = (
        ("spectrum_train", INK, "-", 1.4),
        ("spectrum_held_out", MUTED, DASHES, 1.6),
        ("spectrum_generated", SAMPLES, "-", 2.4),
    )
    for name, color, dashes, width in lines:
        power = found.array(name)
        drawn = (frequency > 0) & (power > 0)
        panel.plot(
            frequency[drawn], power[drawn], color=color, ls=dashes, lw=width, marker="o",
            ms=2.6 if name == "spectrum_generated" else 0,
        )  # fmt: skip
    panel.set(xscale="log", yscale="log")
    canvas.tidy(panel, "frequency (cycles per pixel)", "power")
    canvas.plain_log_ticks(panel)
    _plain_ticks(panel)
    return fig


def off_the_axes(found: Findings) -> int:
    """How many values have no place in `spectra` beside those at frequency 0: no power at all."""
    names = ("spectrum_train", "spectrum_held_out", "spectrum_generated")
    above = found.array("frequency") > 0
    return sum(int(np.sum(found.array(name)[above] <= 0)) for name in names)


@canvas.style()
def curves(
    measures: Sequence[Finding], colors: Sequence[str], y: str, *, zero: bool = False
) -> "Figure":
    """Measures of a denoiser against the noise level: value with its band, control dashed.

    Args:
      measures: with one value a noise level each.
      colors: a colour for each.
      y: what the y axis is called.
      zero: whether the axis shall reach 0, with a line there.
    """
    fig = canvas.figure(*_CURVE)
    panel = canvas.axes(fig, (58, 46, 12, 12))
    for measure, color in zip(measures, colors, strict=True):
        order = np.argsort(measure.sigmas, kind="stable")
        sigmas = measure.sigmas[order]
        ends = measure.numbers("interval")[:, order]
        panel.fill_between(sigmas, *ends, color=color, alpha=0.18, lw=0, zorder=1)
        panel.plot(sigmas, measure.numbers("control")[order], color=color, lw=1.3, ls=DASHES)
        panel.plot(sigmas, measure.numbers("value")[order], "o-", color=color, lw=2, ms=4, mew=0)
    if zero:
        panel.axhline(0, color=RULE, lw=1, zorder=0)
        low, high = panel.get_ylim()
        panel.set_ylim(min(0, low), max(0, high))
    _sigma_axis(panel, y)
    return fig


@canvas.style()
def psnr(measure: Finding) -> "Figure":
    """PSNR of denoised training images and of held-out ones (dashed) against the noise level."""
    fig = canvas.figure(*_CURVE)
    panel = canvas.axes(fig, (58, 46, 12, 12))
    order = np.argsort(measure.sigmas, kind="stable")
    for name, color, dashes in (
        ("psnr_train", INK, "-"),
        ("psnr_held_out", MUTED, DASHES),
    ):
        values = np.asarray(measure.constants[name], np.float64)[order]
        panel.plot(measure.sigmas[order], values, color=color, ls=dashes, lw=1.6)
    _sigma_axis(panel, "PSNR (dB)")
    return fig


def _sigma_axis(panel: "Axes", y: str) -> None:
    panel.set_xscale("log")
    canvas.tidy(panel, "noise level σ", y)
    panel.locator_params(axis="y", nbins=5)
    _plain_ticks(panel)


def _plain_ticks(panel: "Axes") -> None:
    """Numbers such as 0.02 on a logarithmic x axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = panel.get_xlim()
    marks = (1.0,) if high / low > 1000 else (1.0, 3.0) if high / low > 10 else (1.0, 2.0, 5.0)
    panel.xaxis.set_major_locator(LogLocator(subs=marks))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())


def tiles(sources: np.ndarray, side: int, shape: tuple[int, int]) -> list[dict]:
    """Where each tile of one image lies, and the colour that stands for its source.

    Args:
      sources: int [R, S], the training index of each tile, -1 for one without a source.
      side: of a tile in pixels. A last tile that does not fit ends at the image's edge.
      shape: (H, W).

    Returns:
      One entry a tile: "x", "y" (pixels), "source" and "color", None where there is no source. The
      most frequent source has the first of `SOURCES`; of equally frequent ones the first met.
    """
    flat = sources.ravel().tolist()
    met = dict.fromkeys(source for source in flat if source >= 0)
    ranked = sorted(met, key=lambda source: -flat.count(source))
    colors = {source: SOURCES[i % len(SOURCES)] for i, source in enumerate(ranked)}
    height, width = shape
    return [
        {
            "x": min(s * side, width - side),
            "y": min(r * side, height - side),
            "source": source,
            "color": colors.get(source),
        }
        for (r, s), source in np.ndenumerate(sources)
    ]
