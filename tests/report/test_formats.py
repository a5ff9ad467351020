"""Numbers as they are read; the expected texts were written by hand."""

import math

import numpy as np
import pytest

from jdiff.report import formats


@pytest.mark.core
@pytest.mark.parametrize("form", [formats.significant, formats.proportion, formats.count])
@pytest.mark.parametrize("value", [None, math.nan, math.inf, np.float32("nan"), np.float64("nan")])
def test_what_is_missing_is_a_dash(form, value):
    assert form(value) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00199, "0.00199"),
        (0.12345, "0.123"),
        (9.87654, "9.88"),
        (402.25, "402"),
        (61_234.5, "61,234"),
        (-0.5, "−0.500"),
        (1.5e-7, "1.50e−7"),
        (2.5e9, "2.50e9"),
    ],
)
def test_significant(value, text):
    assert formats.significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (18, "18"),
        (2.5, "2.50"),
        (8192, "8.19 k"),
        (353_409, "353 k"),
        (2.18e13, "21.8 T"),
    ],
)
def test_count(value, text):
    assert formats.count(value) == text


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ([0.0926, 0.113], "0.093–0.113"),  # both ends with the decimals of the larger
        ([0, 0.0105], "0.0000–0.0105"),
        ([-0.02, 0.31], "−0.020 to 0.310"),
        ([0.0, 0.0], "0–0"),
        ([None, 0.31], "–"),
        ([math.nan, 0.31], "–"),
        (None, "–"),
    ],
)
def test_interval(ends, text):
    assert formats.interval(ends) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        ({}, "–"),
        ("ddim", "ddim"),
        (True, "True"),
        (1437, "1,437"),
        (0.25, "0.25"),
        ([80.0, 1.0, 0.0], "80, 1, 0"),
        (list(range(20)), "0, 1, … 18, 19 (20 values)"),
        (["a", "b", "c", "d", "e", "f"], "a, b, c, d, e, f"),
        ({"width": 32, "skips": False}, "width = 32; skips = False"),
        ({"unit": "steps", "levels": [1, 2]}, "unit = steps; levels = 1, 2"),
    ],
)
def test_plain(value, text):
    assert formats.plain(value) == text
