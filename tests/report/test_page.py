"""The page: self-contained, its numbers are the rows' numbers, written whole or not at all."""

import re
import xml.etree.ElementTree
import xml.sax.saxutils

import numpy as np
import pytest
from page_reader import PageReader

from jdiff.report import Row, entries, glossary, render, write


class Page(PageReader):
    VOID = ("meta", "br", "link", "img", "wbr")

    def keep(self, given):
        values = [float(value) for value in (given["value"] or "").split()]
        self.cells[self.row, self.column, given["class"]] = values


@pytest.mark.core
def test_nothing_is_loaded_from_anywhere(results, rows, data):
    html = render(results, rows, data=data)
    read = Page(html)
    outside = [ref for ref in read.references if not ref.startswith(("data:", "#"))]
    assert outside == [glossary.PAPER]
    assert re.findall(r"https?://[^\s\"<]*", html) == [glossary.PAPER]
    assert not re.search(r"<(script|link|iframe)|@import|url\((?!#)", html)
    # Every reference inside the page leads somewhere, and every id is there once.
    assert len(set(read.ids)) == len(read.ids)
    inside = [ref[1:] for ref in read.references if ref.startswith("#")]
    inside += re.findall(r"url\(#([^)]*)\)", html)
    assert inside
    assert set(inside) <= set(read.ids)


@pytest.mark.core
def test_every_number_of_the_table_is_the_rows_number(results, rows, data):
    cells = Page(render(results, rows, data=data)).cells
    for row in rows[:2]:
        for name in glossary.SHOWN:
            entry = row.measure(name)
            assert cells.pop((row.label, name, "value")) == [entry["value"]]
            assert cells.pop((row.label, name, "interval")) == entry["interval"]
            if entry["control"] is not None:
                control = f"{name}.control"
                assert cells.pop((row.label, control, "value")) == [entry["control"]]
                assert cells.pop((row.label, control, "interval")) == entry["control_interval"]
        for cost in entries.shown(entries.COSTS, rows):
            value, column = row.entry(*cost.path), cost.name
            assert cells.pop((row.label, column, "value"), [None]) == [value]
    assert cells == {}  # and no other number


def test_numbers_are_printed_as_read(results, rows, data):
    words = Page(render(results, rows, data=data)).words
    for text in ("0.312", "0.302–0.323", "0.129", "353 k", "14.2 M", "5,120", "402", "8.31"):
        assert text in words


def test_verdicts_come_with_their_reasons_and_in_plain_words(results, rows, data):
    words = Page(render(results, rows, data=data)).words
    assert (
        "On digits, optimal memorizes , unet creates , resnet failed to run "
        "and mlp has no verdict ." in words
    )
    for row in rows[:2]:
        assert row.verdict["reason"] in words


def test_holes_are_dashes_and_failures_show_their_error(results, rows, data):
    html = render(results, rows, data=data)
    read = Page(html)
    assert "loss is NaN at step <420>" in read.words
    (hole,) = re.findall(r'data-row="mlp">.*?</tbody>', html, flags=re.S)
    cells = re.findall(r"<td.*?</td>", hole)
    assert len(cells) == 15
    assert all(">–<" in cell for cell in cells)
    assert "nan" not in hole.lower()
    assert "None" not in read.words


def test_markup_in_a_label_is_only_text(results, make, rng, data):
    evil = "<script>alert('x')</script>&amp;$x^2$"
    record = make.record(evil)
    record["verdict"]["reason"] = "<i>why</i>"
    html = render(results, [Row(record, make.pictures(rng))], data=data)
    assert f">{xml.sax.saxutils.escape(evil)}</text>" in html  # nor is it a formula in a figure
    read = Page(html)
    assert evil in read.words
    assert "<i>why</i>" in read.words


def test_how_it_was_made(results, rows, data):
    words = Page(render(results, rows, data=data)).words
    for text in (
        "study demo",
        "jdiff study demo",
        "a CPU",
        "jdiff = 0.1.0; jax = 0.10.2",
        "solver heun",
        "sigmas 80, 1, 0",
        "seed 7",
        "Held-out digits were drawn at random.",
        "1,437 training images, 360 held out, 8 × 8 pixels, grey.",
        "arXiv:2605.16415",
        "n = 20, on pixels, k = 5",
        "width = 32",
    ):
        assert text in words
    for name in glossary.SHOWN:
        assert glossary.measure(name).definition in words


def test_little_is_enough(data):
    """One failed row, results with a schema only: no figures, no error."""
    row = Row({"label": "mlp", "status": "failed"})
    words = Page(render({"schema": 1}, [row], data=data)).words
    assert "On digits, mlp failed to run ." in words
    assert "stopped without a message" in words
    assert "Learning curves" not in words


def test_unknown_measures_have_columns_of_their_own(results, make, data):
    record = make.record("unet")
    record["measures"]["copying_z"] = {"value": -3.25, "interval": [-4.5, -2.0], "control": None}
    record["measures"]["recall (PCA 64)"] = {"value": 0.25, "interval": None}
    record["measures"]["psnr_gap"] = {"value": [0.1, 0.2, 0.3], "constants": {"sigmas": [1, 2, 3]}}
    read = Page(render(results, [Row(record)], data=data))
    assert read.cells["unet", "copying_z", "value"] == [-3.25]
    assert read.cells["unet", "copying_z", "interval"] == [-4.5, -2.0]
    assert "copying z" in read.words
    assert "−4.50 to −2.00" in read.words
    assert "recall (PCA 64)" in read.words
    # What has one value a noise level is a figure, not a column.
    assert ("unet", "psnr_gap", "value") not in read.cells
    assert "Does it know its own images?" in read.words


def test_a_frechet_distance_is_named_by_its_features(make):
    rows = [Row(make.record("a"))]
    assert glossary.title("frechet_distance", rows) == "pixel Fréchet distance"
    record = make.record("b")
    record["measures"]["frechet_distance"]["features"] = "PCA 64"
    rows.append(Row(record))
    assert glossary.title("frechet_distance", rows) == "Fréchet distance (PCA 64, pixels)"


@pytest.mark.parametrize("channels", [1, 2])
def test_toy_data_has_no_image_strips(channels, results, make, rng, data):
    points = rng.uniform(-2, 2, (50, 1, 1, channels)).astype(np.float32)
    data |= {"image_shape": (1, 1, channels), "images": points, "held_out": points}
    rows = [Row(make.record("mlp"), make.pictures(rng, 30, (1, 1, channels)))]
    html = render(results, rows, data=data)
    assert "image/png" not in html
    assert "beside its nearest training image" not in Page(html).words
    assert ("1 coordinate each" if channels == 1 else "2 coordinates each") in Page(html).words


def test_equal_rows_give_equal_pages(results, rows, data):
    assert render(results, rows, data=data) == render(results, rows, data=data)


def test_figures_take_the_pages_colours_and_its_fonts(results, rows, data):
    html = render(results, rows, data=data)
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.S)
    assert len(drawings) == 2 + 2 + 2 + 2 + 1 + 1  # strips, real, nearest, ratios, curve, overview
    for drawing in drawings:
        assert xml.etree.ElementTree.fromstring(drawing).get("aria-label")
        assert "#000000" not in drawing
        assert "<style" not in drawing
    assert "var(--muted)" in html
    assert ">training step</text>" in html  # text, not outlines


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, "data lacks 'name'; it must have name, num_train"),
        ({"image_shape": (8, 8)}, r"data\['image_shape'\] must be \(height, width, channels\)"),
        ({"images": np.zeros((2, 4, 4, 1))}, r"data\['images'\] must be images of shape \(8, 8"),
        ({"held_out": np.zeros((0, 8, 8, 1))}, r"data\['held_out'\] must hold at least one image"),
    ],
)
def test_incomplete_data_is_refused(change, message, results, rows, data):
    data = {key: value for key, value in (data | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        render(results, rows, data=data)


def test_other_refusals(results, rows, make, rng, data):
    with pytest.raises(ValueError, match="rows must hold at least one row; got none"):
        render(results, [], data=data)
    with pytest.raises(ValueError, match="is 2; this version of jdiff reads schema 1"):
        render(results | {"schema": 2}, rows, data=data)
    other = Row(make.record("unet"), make.pictures(rng, 4, (4, 4, 1)))
    with pytest.raises(
        ValueError, match=r"samples of row 'unet' must be images of shape \(8, 8, 1"
    ):
        render(results, [other], data=data)


def test_written_whole_or_not_at_all(tmp_path, monkeypatch, results, rows, data):
    path = tmp_path / "report.html"
    write(path, results, rows[3:], data=data)
    first = path.read_text(encoding="utf-8")
    assert first == render(results, rows[3:], data=data)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]

    with pytest.raises(ValueError, match="reads schema 1"):
        write(path, {"schema": 9}, rows, data=data)

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write(path, results, rows[2:], data=data)
    assert path.read_text(encoding="utf-8") == first
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
