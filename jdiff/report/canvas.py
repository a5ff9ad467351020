"""How the figures are laid out: sizes, axes, panels, strips of images and names beside points.

Sizes are in points of 1/72 inch, which the page shows as CSS pixels. The colours of `TOKENS` stand
for the page's own: it replaces them, so that figures follow its light and dark forms.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jdiff import _pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER, COPY = "#1d2126", "#69707a", "#dcd9d1", "#fffffe", "#a63a0b"
TOKENS = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper", COPY: "--copy"}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """matplotlib's own defaults while a figure is made or saved, whatever the user has set."""
    import matplotlib
    import matplotlib.style

    with matplotlib.rc_context():
        matplotlib.style.use("default")
        # Text stays text (the page's fonts, searchable); equal figures give equal bytes.
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "jdiff"})
        yield


def figure(width: float, height: float) -> "Figure":
    """An empty figure that can draw itself as pixels or as SVG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width / 72, height / 72), dpi=144)
    FigureCanvasAgg(made)
    return made


def axes(fig: "Figure", box: tuple, at: tuple = (0, 0), size: tuple | None = None) -> "Axes":
    """Axes inside the margins `box` (left, bottom, top, right) of the cell of `size` at `at`."""
    full_width, full_height = fig.get_size_inches() * 72
    width, height = size or (full_width, full_height)
    left, bottom, top, right = box
    return fig.add_axes(
        (
            (at[0] + left) / full_width,
            (at[1] + bottom) / full_height,
            (width - left - right) / full_width,
            (height - bottom - top) / full_height,
        )
    )


def panels(
    names: Sequence[tuple[str, str]],
    size: tuple[int, int],
    *,
    columns: int,
    box: tuple = (0, 0, 0, 0),
) -> tuple["Figure", list["Axes"]]:
    """A figure of panels of one size, filled line by line.

    Args:
      names: (name, colour) of each panel; where the name is empty none is drawn.
      size: width and height of a panel.
      columns: panels a line.
      box: a panel's margins: left, bottom, top, right.
    """
    width, height = size
    left, bottom, top, right = box
    room = 26 if any(name for name, _ in names) else 0
    height, top = height + room, top + room
    columns = min(columns, max(1, len(names)))
    lines = max(1, -(-len(names) // columns))
    fig = figure(columns * width, lines * height)
    made = []
    for place, (name, color) in enumerate(names):
        at = (place % columns * width, (lines - 1 - place // columns) * height)
        panel = axes(fig, (left, bottom, top, right), at, (width, height))
        if name:
            x, y = (at[0] + 4) / (columns * width), (at[1] + height - 6) / (lines * height)
            fig.text(
                x, y, name, color=color, fontsize=12, weight="bold", va="top", parse_math=False
            )
        made.append(panel)
    return fig, made


def tidy(panel: "Axes", x: str, y: str) -> None:
    """Names the axes and takes away whatever is not needed to read them."""
    panel.set_facecolor("none")
    panel.set_xlabel(x, color=MUTED, fontsize=11)
    panel.set_ylabel(y, color=MUTED, fontsize=11)
    panel.tick_params(which="both", color=RULE, labelcolor=MUTED, labelsize=10.5, length=4, width=1)
    panel.tick_params(which="minor", length=2)
    panel.spines[["top", "right"]].set_visible(False)
    for spine in panel.spines.values():
        spine.set(color=RULE, linewidth=1)


def plain_log_ticks(panel: "Axes", which: str = "y") -> None:
    """Numbers such as 0.02 on a logarithmic axis, where matplotlib writes powers of ten.

    Args:
      panel: the axes, their limits final.
      which: "x" or "y".
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = panel.get_ylim() if which == "y" else panel.get_xlim()
    axis = panel.yaxis if which == "y" else panel.xaxis
    marks = (1.0,) if high / low > 100 else (1.0, 2.0, 5.0) if high / low > 4 else range(1, 10)
    axis.set_major_locator(LogLocator(subs=marks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axis.set_minor_formatter(NullFormatter())


def gap(width: int) -> int:
    """Pixels left free between two images of this width."""
    return max(1, width // 8)


def mosaic(images: np.ndarray, columns: int) -> np.ndarray:
    """Images [n, H, W, C] side by side in `columns` places, uint8 RGBA, gaps transparent.

    One channel is grey, three are RGB, another number is drawn as its mean in grey. Values
    that are not finite leave a hole.
    """
    images = np.asarray(images)
    n, height, width, channels = images.shape
    finite = np.isfinite(images).all(-1, keepdims=True)
    if channels not in (1, 3):
        images = _pixels.to_model(images).mean(-1, keepdims=True)
    pixels = _pixels.to_uint8(np.where(finite, images, images.dtype.type(0)))
    pixels = np.broadcast_to(pixels, (n, height, width, 3))
    pixels = np.concatenate([pixels, np.where(finite, 255, 0).astype(np.uint8)], -1)
    pitch = width + gap(width)
    canvas = np.zeros((height, columns * pitch - gap(width), 4), np.uint8)
    for k in range(n):
        canvas[:, k * pitch : k * pitch + width] = pixels[k]
    return canvas


def strips(images: Sequence[np.ndarray], names: Sequence[str], columns: int) -> "Figure":
    """Strips of images below each other, [n, H, W, C] each, with their names to the left if any."""
    height, width = images[0].shape[1:3]
    margin = 150 if any(names) else 0
    tall = 1000 / columns * height / (width + gap(width))
    fig = figure(margin + 1000, len(images) * (tall + 8) - 8)
    total = fig.get_size_inches()[1] * 72
    for place, (strip, name) in enumerate(zip(images, names, strict=True)):
        at = (0, total - place * (tall + 8) - tall)
        panel = axes(fig, (margin, 0, 0, 0), at, (margin + 1000, tall))
        panel.imshow(mosaic(strip, columns), interpolation="none", aspect="auto")
        panel.set_axis_off()
        panel.text(
            -0.012, 0.5, name, ha="right", va="center", color=INK, fontsize=13,
            transform=panel.transAxes, parse_math=False,
        )  # fmt: skip
    return fig


def place_names(
    panel: "Axes",
    points: Sequence[tuple[float, float, str, str]],
    lines: Sequence[tuple[float, float, float, float]] = (),
) -> None:
    """Writes each point's name at the nearest place that no point, line or other name takes.

    Args:
      panel: the axes, their limits final.
      points: (x, y, name, colour); a name far from its point is joined to it by a thin line. One
        without a name is only kept clear of.
      lines: horizontal and vertical lines (x0, y0, x1, y1) to keep clear of.
    """
    from matplotlib.transforms import Bbox

    fig: Any = panel.figure
    fig.draw_without_rendering()
    renderer = fig.canvas.get_renderer()
    frame, scale = panel.get_window_extent(renderer), fig.dpi / 72
    centers = [panel.transData.transform(point[:2]) for point in points]
    taken = [Bbox.from_extents(*(xy - 7 * scale), *(xy + 7 * scale)) for xy in centers]
    for x0, y0, x1, y1 in lines:
        ends = panel.transData.transform([(x0, y0), (x1, y1)])
        taken.append(Bbox.from_extents(*(ends[0] - scale), *(ends[1] + scale)))
    for (x, y, name, color), xy in zip(points, centers, strict=True):
        if not name:
            continue
        text = panel.annotate(
            name, (x, y), (9, -6), textcoords="offset points", fontsize=12, va="bottom",
            color=MUTED if color == MUTED else INK, parse_math=False,
        )  # fmt: skip
        for radius, dx, dy in _PLACES:
            # The side of the name that faces the point lies at the given distance from it.
            width, height = text.get_window_extent(renderer).size
            left = xy[0] + radius * scale * dx - width * (1 - np.sign(dx)) / 2
            bottom = xy[1] + radius * scale * dy - height * (1 - np.sign(dy)) / 2
            box = Bbox.from_bounds(left, bottom, width, height)
            inside = box.x0 >= frame.x0 and box.x1 <= frame.x1
            inside = inside and box.y0 >= frame.y0 and box.y1 <= frame.y1
            if not inside or any(box.overlaps(other) for other in taken):
                continue
            taken.append(box)
            text.set_position(((box.x0 - xy[0]) / scale, (box.y0 - xy[1]) / scale))
            if radius > 20:
                end = np.clip(xy, box.min, box.max)
                panel.annotate(
                    "", (x, y), tuple((end - xy) / scale), textcoords="offset points",
                    arrowprops={"arrowstyle": "-", "color": color, "lw": 0.8, "shrinkB": 5},
                )  # fmt: skip
            break


# Offsets from a point, nearest first, in eight directions: (radius, cosine, sine).
_PLACES = [
    (radius, round(math.cos(angle), 6), round(math.sin(angle), 6))
    for radius in range(10, 400, 8)
    for angle in (math.pi * eighth / 4 for eighth in (0, 4, 1, 7, 3, 5, 2, 6))
]
