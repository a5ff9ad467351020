"""Figures of one evaluation: what they draw are the arrays' and the record's own numbers."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from evaluation_example import SIGMAS, make_arrays, make_record, measure
from PIL import Image

from jdiff.report import evaluation_figures as figures
from jdiff.report.evaluation_record import Finding, Findings


def draw(figure):
    """Draws the figure, so that an error that comes only then is seen."""
    figure.savefig(io.BytesIO(), format="png")


def decoded(address):
    head, _, body = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


@pytest.mark.core
def test_pictures_are_the_images_pixel_for_pixel(rng):
    grey = rng.integers(0, 256, (5, 7, 1), dtype=np.uint8)
    np.testing.assert_array_equal(decoded(figures.picture(grey))[..., 0], grey[..., 0])
    np.testing.assert_array_equal(decoded(figures.picture(grey))[..., 2], grey[..., 0])
    colour = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decoded(figures.picture(colour))[..., :3], colour)
    # Model units: -1 is black, 1 white, what lies beyond is clipped here only.
    floats = np.array([-1.5, -1.0, 1.0, 1.5], np.float32).reshape(1, 4, 1)
    assert decoded(figures.picture(floats))[0, :, 0].tolist() == [0, 0, 255, 255]


@pytest.mark.core
def test_the_histogram_shows_shares_of_each_set_and_the_threshold():
    ratio = np.array([0.0, 0.01, 0.34, 1.0])
    held_out = np.array([0.5, 0.99, 0.999, 1.0, 0.98])
    arrays = {"ratio": ratio, "held_out_ratio": held_out}
    figure: Any = figures.ratios(Findings(make_record(), arrays))
    (panel,) = figure.axes
    bars, outline = (patch.get_data() for patch in panel.patches if hasattr(patch, "get_data"))
    # By hand, bins of 1/30: two of four in the first, 0.34 in the eleventh, 1 in the last.
    assert bars.values[0] == 0.5
    assert bars.values[10] == bars.values[-1] == 0.25
    assert outline.values[15] == pytest.approx(0.2)
    assert outline.values[-1] == pytest.approx(0.8)
    assert bars.values.sum() == outline.values.sum() == pytest.approx(1)
    (line,) = (line for line in panel.lines if line.get_color() == figures.COPY)
    assert line.get_xdata()[0] == 0.5  # the c of the record
    assert [text.get_text() for text in panel.texts] == ["copies: d₁/d₂ < c = ½"]
    draw(figure)
    without: Any = figures.ratios(Findings(make_record(measures={}), arrays))
    assert not without.axes[0].lines
    assert not without.axes[0].texts


def test_a_point_stands_where_its_numbers_say_and_the_control_beside_it():
    x = Finding("density", measure("density", 0.7, 1.4, 0.05))
    y = Finding("coverage", measure("coverage", 0.6, 0.9, 0.02))
    figure: Any = figures.plane(x, y)
    (panel,) = figure.axes
    points = [line for line in panel.lines if len(line.get_xdata()) == 1]
    assert [(*p.get_xdata(), *p.get_ydata()) for p in points] == [(1.4, 0.9), (0.7, 0.6)]
    spans = [line for line in panel.lines if len(line.get_xdata()) == 2]
    np.testing.assert_allclose(spans[2].get_xdata(), [0.65, 0.8])
    np.testing.assert_allclose(spans[3].get_ydata(), [0.58, 0.64])
    assert panel.get_xlim() == pytest.approx((0, 1.5 * 1.03))  # density may exceed 1
    assert panel.get_ylim() == pytest.approx((0, 1.03))
    draw(figure)
    alone: Any = figures.plane(x, Finding("coverage", {"value": 0.6}))
    assert sum(len(line.get_xdata()) == 1 for line in alone.axes[0].lines) == 1


def test_spectra_leave_out_frequency_0_and_count_what_has_no_power():
    arrays = make_arrays()
    found = Findings(make_record(), arrays)
    (panel,) = figures.spectra(found).axes
    assert panel.get_xscale() == panel.get_yscale() == "log"
    names = ("spectrum_train", "spectrum_held_out", "spectrum_generated")
    for line, name in zip(panel.lines, names, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), arrays["frequency"][1:])
        np.testing.assert_array_equal(line.get_ydata(), arrays[name][1:])
    assert figures.off_the_axes(found) == 0
    dark = arrays | {"spectrum_generated": np.array([0.0, 1, 1, 0, 0, 1])}
    found = Findings(make_record(), dark)
    assert figures.off_the_axes(found) == 2
    generated: Any = figures.spectra(found).axes[0].lines[2]
    assert len(generated.get_xdata()) == 3
    draw(figures.spectra(found))


def test_curves_go_from_low_noise_to_high_with_their_control_dashed():
    entry = measure("psnr_gap", [0.3, 0.2, 0.1], [0.5, 0.4, 0.35])
    figure: Any = figures.curves([Finding("psnr_gap", entry)], ["#0077bb"], "dB", zero=True)
    (panel,) = figure.axes
    control, value = panel.lines[:2]
    np.testing.assert_array_equal(value.get_xdata(), SIGMAS[::-1])
    np.testing.assert_array_equal(value.get_ydata(), [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(control.get_ydata(), [0.35, 0.4, 0.5])
    assert control.is_dashed()
    assert not value.is_dashed()
    assert panel.get_xscale() == "log"
    assert panel.get_ylim()[0] <= 0
    (band,) = panel.collections
    inside = band.get_paths()[0].vertices
    assert inside[:, 1].min() == pytest.approx(0.1 - 0.0101)
    assert inside[:, 1].max() == pytest.approx(0.3 + 0.0202)
    draw(figure)


@pytest.mark.parametrize("entry", [{"value": [0.3, None, 0.1]}, {"interval": None}])
def test_curves_with_holes_are_drawn(entry):
    hole = Finding("psnr_gap", measure("psnr_gap", [0.3, 0.2, 0.1]) | entry)
    draw(figures.curves([hole], ["#0077bb"], "dB"))
    one = measure("psnr_gap", [0.3, 0.2, 0.1]) | {"value": [0.3], "interval": [[0.2], [0.4]]}
    draw(figures.curves([Finding("gap", one | {"constants": {"sigmas": [1.0]}})], ["#0077bb"], ""))


def test_psnr_of_both_is_the_records():
    found = Findings(make_record(), {})
    (panel,) = figures.psnr(found.measure("psnr_gap")).axes
    np.testing.assert_array_equal(panel.lines[0].get_ydata(), [34, 25, 20])
    np.testing.assert_array_equal(panel.lines[1].get_ydata(), [33.9, 22.5, 19.9])


def test_one_colour_is_one_source_the_most_frequent_first():
    sources = np.array([[5, 9, 9], [7, -1, 9]])
    tiles = figures.tiles(sources, 4, (8, 10))
    assert [tile["source"] for tile in tiles] == [5, 9, 9, 7, -1, 9]
    first, second, third = figures.SOURCES[:3]
    assert [tile["color"] for tile in tiles] == [second, first, first, third, None, first]
    # The last column of 10 = 4 + 4 + 2 ends at the edge, as tile_starts has it.
    assert [(tile["y"], tile["x"]) for tile in tiles] == [
        *((0, 0), (0, 4), (0, 6)),
        *((4, 0), (4, 4), (4, 6)),
    ]


def test_more_sources_than_colours_begin_anew():
    number = len(figures.SOURCES) + 1
    tiles = figures.tiles(np.arange(number)[None], 1, (1, number))
    assert len({tile["color"] for tile in tiles}) == len(figures.SOURCES)
    assert tiles[-1]["color"] == tiles[0]["color"]


def test_sources_colours_are_all_different():
    assert len(set(figures.SOURCES)) == len(figures.SOURCES)
