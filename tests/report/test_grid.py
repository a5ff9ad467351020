"""The PNG grid: every image in its place, crisp, clipped, on white."""

import numpy as np
import pytest
from PIL import Image

from jdiff import report


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.core
@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_row_by_row_each_pixel_a_square(tmp_path, rng, channels):
    images = rng.integers(0, 255, (7, 8, 8, channels), dtype=np.uint8)  # 255 is the background
    report.write_grid(tmp_path / "grid.png", images)
    sheet = read(tmp_path / "grid.png")
    # Seven images: three columns, three lines; 8 pixels are drawn as 32, with gaps of 2.
    assert sheet.shape == (3 * 34 + 2, 3 * 34 + 2) + ((3,) if channels == 3 else ())
    sheet = sheet.reshape(*sheet.shape[:2], channels)
    inside = np.zeros(sheet.shape[:2], bool)
    for i, image in enumerate(images):
        top, left = 2 + i // 3 * 34, 2 + i % 3 * 34
        tile = sheet[top : top + 32, left : left + 32]
        np.testing.assert_array_equal(tile, np.kron(image, np.ones((4, 4, 1), np.uint8)))
        inside[top : top + 32, left : left + 32] = True
    assert np.all(sheet[~inside] == 255)


@pytest.mark.parametrize(
    ("shape", "enlarged"),
    [((8, 8), 4), ((28, 28), 2), ((32, 32), 1), ((33, 33), 1), ((16, 40), 1), ((5, 11), 3)],
    ids=str,
)
def test_small_images_are_enlarged_by_a_whole_factor(tmp_path, shape, enlarged):
    report.write_grid(tmp_path / "grid.png", np.zeros((1, *shape, 1), np.uint8))
    assert read(tmp_path / "grid.png").shape == tuple(enlarged * side + 4 for side in shape)


@pytest.mark.parametrize(("n", "columns", "lines"), [(1, 1, 1), (2, 2, 1), (4, 2, 2), (64, 8, 8)])
def test_the_grid_is_about_as_wide_as_high(tmp_path, n, columns, lines):
    report.write_grid(tmp_path / "grid.png", np.zeros((n, 32, 32, 1), np.uint8))
    assert read(tmp_path / "grid.png").shape == (lines * 34 + 2, columns * 34 + 2)


def test_model_units_are_rounded_and_clipped(tmp_path):
    images = np.array([-3.0, -1.0, 0.0, 1.0, 7.0], np.float32).reshape(5, 1, 1, 1)
    report.write_grid(tmp_path / "grid.png", np.broadcast_to(images, (5, 32, 32, 1)))
    sheet = read(tmp_path / "grid.png")
    centres = [sheet[18 + i // 3 * 34, 18 + i % 3 * 34] for i in range(5)]
    assert centres == [0, 0, 128, 255, 255]  # 127.5 is rounded to the even number


@pytest.mark.parametrize(
    "shape", [(4, 8, 8), (4, 8, 8, 2), (0, 8, 8, 1), (4, 8, 0, 1), (8, 8)], ids=str
)
def test_other_shapes_are_refused_and_nothing_is_written(tmp_path, shape):
    with pytest.raises(ValueError, match=r"images must have shape \[N, H, W, 1 or 3\]; got \("):
        report.write_grid(tmp_path / "grid.png", np.zeros(shape, np.uint8))
    assert list(tmp_path.iterdir()) == []
