import dataclasses
import json

import numpy as np
import pytest

from jdiff.metrics import Measure

FULL = Measure(
    "frechet_distance",
    0.25,
    (0.125, 0.375),
    0.5,
    (0.25, 0.75),
    360,
    "pixels",
    {"part_size": 36, "fewer_points_than_features": True, "other_flag": False},
    np.arange(3.0),
)
BARE = Measure("pearson_r", 0.5, None, None, None, 9, "features")


@pytest.mark.core
def test_to_dict_is_the_layout_of_results_json():
    assert json.loads(json.dumps(FULL.to_dict())) == {
        "value": 0.25,
        "interval": [0.125, 0.375],
        "control": 0.5,
        "control_interval": [0.25, 0.75],
        "n": 360,
        "features": "pixels",
        "constants": {
            "part_size": 36,
            "fewer_points_than_features": True,
            "other_flag": False,
        },
    }
    assert BARE.to_dict()["interval"] is None
    assert BARE.to_dict()["control_interval"] is None


def test_prints_one_readable_line():
    assert str(FULL) == (
        "pixel Fréchet distance = 0.25 [0.125, 0.375]; control 0.5 [0.25, 0.75]; n = 360; "
        "part_size = 36, fewer points than features"
    )
    assert str(BARE) == "pearson_r (features) = 0.5; n = 9"


@pytest.mark.parametrize(
    ("name", "features", "title"),
    [
        ("precision", "pixels", "precision (pixels)"),
        ("frechet_distance", "pixels", "pixel Fréchet distance"),
        ("frechet_distance", "PCA 64", "Fréchet distance (PCA 64)"),
    ],
)
def test_title_carries_the_feature_space(name, features, title):
    assert dataclasses.replace(BARE, name=name, features=features).title == title


def test_per_sample_is_neither_compared_nor_shown():
    assert dataclasses.replace(FULL, per_sample=None) == FULL
    assert dataclasses.replace(FULL, value=0.3) != FULL
    assert "per_sample" not in repr(FULL)


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BARE.value = 1.0  # type: ignore[misc]


def by_level() -> Measure:
    value = np.array([0.2, 0.01, 0.125])
    ends = (value - 0.25, value + 0.5)
    constants = {"sigmas": [2.0, 0.5, 0.02], "parts": [1, 2], "none": []}
    return Measure("psnr_gap", value, ends, value + 1, None, 9, "pixels", constants, np.eye(3))


def test_values_by_level_are_stored_as_lists():
    assert json.loads(json.dumps(by_level().to_dict())) == {
        "value": [0.2, 0.01, 0.125],
        "interval": [[0.2 - 0.25, 0.01 - 0.25, 0.125 - 0.25], [0.7, 0.51, 0.625]],
        "control": [1.2, 1.01, 1.125],
        "control_interval": None,
        "n": 9,
        "features": "pixels",
        "constants": {"sigmas": [2.0, 0.5, 0.02], "parts": [1, 2], "none": []},
    }


def test_values_by_level_print_on_one_line_with_their_ends():
    assert str(by_level()) == (
        "psnr_gap (pixels) = 0.01 .. 0.2 [-0.24, 0.7] over 3 sigmas; control 1.01 .. 1.2; n = 9; "
        "sigmas = 0.02 .. 2, parts = [1, 2], none = []"
    )
    alone = dataclasses.replace(BARE, value=np.array([0.5]))
    assert str(alone) == "pearson_r (features) = 0.5 over 1 sigma; n = 9"


def test_values_by_level_are_compared():
    assert by_level() == by_level()
    assert by_level() == dataclasses.replace(by_level(), per_sample=None)
    assert by_level() != dataclasses.replace(by_level(), name="mse")
    for field in ("value", "control"):
        assert by_level() != dataclasses.replace(by_level(), **{field: np.array([0.2, 0.01, 0.5])})
    assert by_level() != BARE
    assert BARE != "pearson_r"
