"""Figures: a panel a row, the row's own numbers in it, images pixel for pixel."""

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from jdiff.report import Row, canvas, figures, plane

PANELS = [figures.samples, figures.nearest, figures.ratios, figures.curves]


def draw(figure):
    """Draws the figure, so that an error that comes only then is seen; returns the pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.core
@pytest.mark.parametrize("figure", PANELS)
def test_one_panel_a_row_with_pictures(figure, rows):
    panels = len(figures.trained(rows)) if figure is figures.curves else 2
    made = figure(rows)
    assert len(made.axes) == panels
    assert draw(made)


@pytest.mark.parametrize("figure", PANELS)
@pytest.mark.parametrize("num_rows", [1, 20])
def test_any_number_of_rows(figure, num_rows, rng, make):
    pictures = make.pictures(rng)
    rows = [Row(make.record(f"unet:width={i}"), pictures) for i in range(num_rows)]
    assert len(figure(rows).axes) == num_rows
    assert len(figure(rows, only=num_rows - 1).axes) == 1


@pytest.mark.parametrize("n", [1, 2, 40])
@pytest.mark.parametrize("shape", [(8, 8, 1), (64, 48, 3), (8, 8, 2), (1, 1, 1), (1, 1, 2)])
def test_any_shape_and_number_of_samples(n, shape, rng, make):
    rows = [Row(make.record("unet"), make.pictures(rng, n, shape))]
    assert draw(figures.samples(rows))
    assert draw(figures.nearest(rows))


def test_a_users_style_changes_no_figure_and_is_not_changed(rows):
    import matplotlib

    plain = draw(figures.ratios(rows))
    style: Any = {"axes.facecolor": "black", "lines.linewidth": 9.0, "svg.fonttype": "path"}
    with matplotlib.rc_context(style):
        styled = draw(figures.ratios(rows))
        assert {key: matplotlib.rcParams[key] for key in style} == style
    assert styled == plain


def test_pyplot_is_never_imported():
    code = (
        "import sys, numpy as np; from jdiff.report import Pictures, Row, figures; "
        "one = np.ones(1); images = np.zeros((1, 8, 8, 1), np.float32); "
        "row = Row({'label': 'a', 'status': 'ok'}, Pictures(images, images, one, one, one, one)); "
        "figures.ratios([row]).savefig(sys.stderr.buffer, format='png'); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert run.stdout.strip() == b"False"
    assert run.stderr.startswith(b"\x89PNG")


def test_mosaic_is_the_images_pixel_for_pixel(rng):
    images = rng.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    canvas_ = canvas.mosaic(images, columns=4)
    assert canvas_.shape == (16, 4 * 16 + 3 * 2, 4)  # gaps of 16 // 8 pixels
    for k in range(3):
        tile = canvas_[:, 18 * k : 18 * k + 16]
        np.testing.assert_array_equal(tile[..., :3], images[k])
        assert (tile[..., 3] == 255).all()
        assert (canvas_[:, 18 * k + 16 : 18 * k + 18, 3] == 0).all()
    assert (canvas_[:, 54:, 3] == 0).all()  # no fourth image


def test_mosaic_of_floats_clips_and_leaves_holes():
    image = np.array([-9.0, -1.0, 0.0, 1.0, 9.0, np.nan], np.float32).reshape(1, 1, 6, 1)
    tile = canvas.mosaic(image, columns=1)
    np.testing.assert_array_equal(tile[0, :, 0], [0, 0, 128, 255, 255, 128])
    np.testing.assert_array_equal(tile[0, :, 3], [255, 255, 255, 255, 255, 0])


def test_mosaic_of_other_channels_is_their_mean():
    image = np.array([-1.0, 1.0], np.float32).reshape(1, 1, 1, 2)
    np.testing.assert_array_equal(canvas.mosaic(image, 1)[0, 0, :3], [128, 128, 128])


def test_columns_are_the_same_noise_in_every_row(rows):
    """Column i of each strip holds sample i of its row."""
    made = figures.samples(rows)
    for axes, row in zip(made.axes, rows[:2], strict=True):
        drawn = axes.images[0].get_array()
        wanted = canvas.mosaic(row.pictures.samples[:16], 16)
        np.testing.assert_array_equal(drawn, wanted)


def test_pairs_show_the_rms_distance_and_frame_the_copies(rows):
    pictures = rows[1].pictures
    (axes,) = figures.nearest(rows, only=1).axes
    # By hand: Euclidean distance over the root of the number of values, two digits.
    wanted = [f"{d:.{2 if d >= 0.1 else 3}f}" for d in pictures.d1[:8] / 8]
    assert texts(axes) == wanted
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(frames) == np.sum(pictures.d1[:8] / pictures.d2[:8] < 1 / 3) > 0


def test_ratio_curve_is_the_empirical_distribution(rng, make):
    pictures = make.pictures(rng, n=50)
    row = Row(make.record("unet"), pictures)
    (axes,) = figures.ratios([row]).axes
    x, y = axes.lines[1].get_data()
    ratio = pictures.d1 / pictures.d2
    for at in (0.2, 1 / 3, 0.7):
        share = y[np.searchsorted(x, at, side="right") - 1]
        assert share == pytest.approx(np.mean(ratio <= at))
    dot = axes.lines[2]
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (1 / 3, 0.3125)  # the row's own number


def test_the_threshold_is_the_measures_own(rng, make):
    record = make.record("unet")
    record["measures"]["memorized_fraction"]["constants"]["c"] = 0.5
    (axes,) = figures.ratios([Row(record, make.pictures(rng))]).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.5", "1"]


def test_ratios_without_a_second_neighbour_are_left_out(rng, make):
    pictures = make.pictures(rng, n=4)
    pictures.d2[:] = [np.inf, np.nan, 2.0, 0.0]
    pictures.d1[:] = [1.0, 1.0, 1.0, 0.0]
    (axes,) = figures.ratios([Row(make.record("unet"), pictures)]).axes
    x, y = axes.lines[1].get_data()
    np.testing.assert_allclose(x, [0, 0.5, 0.5, 1, 1, 1])
    np.testing.assert_allclose(y, [0, 0, 0.5, 0.5, 1, 1])


def test_curves_skip_what_is_not_finite_and_thin_by_means(rng, make):
    pictures = make.pictures(rng)
    pictures.history.update(step=np.arange(3000.0), loss=np.full(3000, 0.5))
    pictures.history["held_out_loss"][1] = np.nan
    (axes,) = figures.curves([Row(make.record("unet"), pictures)]).axes
    training, held_out = axes.lines
    assert len(training.get_xdata()) == figures.MAX_POINTS
    assert training.get_xdata()[0] == 4.5  # the mean of steps 0 to 9
    np.testing.assert_allclose(training.get_ydata(), 0.5)
    assert len(held_out.get_xdata()) == 3
    assert axes.get_yscale() == "log"


def test_a_loss_that_reaches_zero_is_drawn_on_a_linear_axis(rng, make):
    pictures = make.pictures(rng)
    pictures.history["loss"][3] = 0.0
    (axes,) = figures.curves([Row(make.record("unet"), pictures)]).axes
    assert axes.get_yscale() == "linear"


def test_one_colour_an_architecture(make):
    labels = ["unet", "mlp", "unet", "linear"]
    a, b, c, d = figures.colors([Row(make.record(label)) for label in labels])
    assert a == c
    assert len({a, b, d}) == 3


@pytest.mark.parametrize("apart", [True, False])
def test_names_in_the_overview_do_not_collide(apart, rng, make):
    """Twenty rows, apart or all at one point: no two names overlap, none leaves the frame."""
    rows = []
    for i in range(20):
        record = make.record(f"architecture_{i}")
        if apart:
            record["measures"]["memorized_fraction"]["value"] = float(rng.uniform())
            record["measures"]["precision"]["value"] = float(rng.uniform())
        rows.append(Row(record))
    figure: Any = plane.overview(rows)
    (axes,) = figure.axes
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    named = [text for text in axes.texts if text.get_text()]
    assert len(named) == 21  # and the real images
    boxes = [text.get_window_extent(renderer) for text in named]
    frame = axes.get_window_extent(renderer)
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1


def test_overview_takes_frechet_where_precision_is_missing(rows, make):
    assert plane.overview(rows).axes[0].get_ylabel().startswith("precision")
    records = [make.record("unet"), make.record("mlp")]
    for record in records:
        del record["measures"]["precision"]
    (axes,) = plane.overview([Row(record) for record in records]).axes
    assert axes.get_ylabel().startswith("pixel Fréchet distance")


def test_overview_leaves_out_rows_without_the_numbers(rows):
    assert plane.comparable(rows) == [0, 1]
    names = texts(plane.overview(rows).axes[0])
    assert {"optimal", "unet"} <= set(names)
    assert "mlp" not in names


@pytest.mark.parametrize("channels", [1, 2])
def test_toy_samples_outside_the_picture_are_counted(channels, rng, make):
    pictures = make.pictures(rng, 30, (1, 1, channels))
    pictures.samples[:3] = 50.0
    pictures.samples[3] = np.nan
    (axes,) = figures.samples([Row(make.record("mlp"), pictures)]).axes
    assert texts(axes) == ["4 of 30 lie outside"]


def test_toy_data_is_a_histogram_or_a_scatter_plot(rng, make):
    training = {"images": rng.uniform(-1, 1, (7, 1, 1, 2)).astype(np.float32)}
    row = Row(make.record("mlp"), make.pictures(rng, 30, (1, 1, 2)))
    (axes,) = figures.samples([row], training).axes
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), training["images"][:, 0, 0])
    row = Row(make.record("mlp"), make.pictures(rng, 30, (1, 1, 1)))
    training = {"images": training["images"][..., :1]}
    (axes,) = figures.samples([row], training).axes
    assert sum(bar.get_height() for bar in axes.patches) == 30
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), training["images"][:, 0, 0, 0])


def test_a_row_without_pictures_cannot_be_drawn(rows):
    with pytest.raises(ValueError, match="row 'mlp' has no pictures to draw"):
        figures.ratios(rows, only=2)


def test_seeds_share_a_panel_of_learning_curves(rng, make):
    rows = make.seeds(rng)
    figure = figures.curves(rows)
    assert len(figure.axes) == 2
    for axes, first in zip(figure.axes, (0, 3), strict=True):
        assert len(axes.lines) == 2 * 3  # training and held out, three seeds
        wanted = rows[first + 2].pictures.curve("held_out_loss")
        np.testing.assert_allclose(np.asarray(axes.lines[5].get_ydata()), wanted)
    assert draw(figure)


def test_figures_take_the_first_seed_that_did_not_fail(rng, make):
    rows = make.seeds(rng)
    failed = Row({**rows[0].record, "status": "failed", "measures": None})
    rows[0] = failed
    panels = figures.nearest(rows).axes
    assert len(panels) == 2
    drawn = figures.samples(rows).axes[0].images[0].get_array()
    np.testing.assert_array_equal(drawn, canvas.mosaic(rows[1].pictures.samples[:16], 16))
    assert figures.trained(rows) == [1, 3]


def test_seeds_in_the_overview_are_joined_to_their_mean_and_named_once(rng, make):
    rows = make.seeds(rng, ["unet", "unet:skips=false", "mlp"])
    (axes,) = plane.overview(rows).axes
    assert sorted(filter(None, texts(axes))) == ["mlp", "real images", "skips=false", "unet"]
    own = [[row.measure(n)["value"] for n in ("memorized_fraction", "precision")] for row in rows]
    points = [np.asarray(a.get_xydata()) for a in axes.lines if a.get_linestyle() == "None"]
    drawn = np.unique(np.concatenate(points), axis=0)
    means = np.mean(np.reshape(own, (3, 3, 2)), axis=1)  # the middle seed lies at its mean
    np.testing.assert_allclose(drawn, np.unique(np.concatenate([own, means]), axis=0), rtol=1e-12)
    np.testing.assert_allclose(points[1], [means[0]])


@pytest.mark.parametrize(("most", "end"), [(0.9, 1.0), (0.1, 0.15), (0.0, 0.05)])
def test_the_overview_ends_where_seeds_crowd(most, end, rng, make):
    rows = make.seeds(rng)
    for row in rows:
        row.record["measures"]["memorized_fraction"] |= {"value": most, "control": 0.0}
    (axes,) = plane.overview(rows).axes
    assert axes.get_xlim()[1] == pytest.approx(1.04 * end)
    assert ("the axis ends" in axes.get_xlabel()) == (end < 1)


def test_names_of_twelve_architectures_with_seeds_do_not_collide(rng, make):
    rows = make.seeds(rng, [f"unet:width={8 * i}" for i in range(1, 13)])
    for row in rows:
        row.record["measures"]["memorized_fraction"]["value"] = float(rng.uniform(0, 0.1))
        row.record["measures"]["precision"]["value"] = float(rng.uniform(0.7, 1))
    figure: Any = plane.overview(rows)
    figure.draw_without_rendering()
    named = [text for text in figure.axes[0].texts if text.get_text()]
    assert len(named) == 13
    boxes = [text.get_window_extent(figure.canvas.get_renderer()) for text in named]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
