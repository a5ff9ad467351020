"""An evaluation refuses what does not fit together, naming it."""

import numpy as np
import pytest
from evaluation_example import SIGMAS, make_arrays, make_record, measure

from jdiff.report.evaluation_record import ARRAYS, Finding, Findings


@pytest.mark.core
def test_every_group_may_be_absent_and_none_may_be_half():
    record, arrays = make_record(), make_arrays()
    assert {name for forms in ARRAYS.values() for name in forms} == set(arrays)
    assert not any(Findings(record, {}).has(group) for group in ARRAYS)
    for group, forms in ARRAYS.items():
        others = {name: array for name, array in arrays.items() if name not in forms}
        found = Findings(record, others)
        assert [name for name in ARRAYS if not found.has(name)] == [group]
        for absent in forms:
            half = {name: array for name, array in arrays.items() if name != absent}
            with pytest.raises(ValueError, match=f"but lack '{absent}'"):
                Findings(record, half)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("copied_ratio", np.ones(2), r"\['copied_ratio'\] .* \[k\].*, k = 3; got \[2\]"),
        ("copied", np.ones((3, 8, 8)), r"\['copied'\] .* \[k, H, W, C\].*; got \[3, 8, 8\]"),
        (
            "novel",
            np.ones((4, 4, 4, 1)),
            r"\['novel'\] .*, H = 8, W = 8, C = 1, l = 4; got \[4, 4, 4, 1\]",
        ),
        ("samples", np.ones((0, 8, 8, 1)), r"\['samples'\] .* none of them 0"),
        ("spectrum_train", np.ones(5), r"\['spectrum_train'\] .*, B = 6; got \[5\]"),
        ("mosaic_side", np.ones(1, int), r"\['mosaic_side'\] .*; got \[1\]"),
        ("mosaic_side", np.asarray(3), r"must have 3 x 3 tiles: 8 x 8 pixels .* side 3; got 2 x 2"),
        ("mosaic_side", np.asarray(9), r"\['mosaic_side'\] must be from 1 to 8; got 9"),
        ("mosaic_sources", np.full((3, 2, 2), -2), r"\['mosaic_sources'\] must lie in \[-1, inf\]"),
        ("ratio", np.array([0.5, 1.5]), r"\['ratio'\] must lie in \[0, 1\]; got 0.5 .. 1.5"),
        ("held_out_ratio", np.array([0.5, np.nan]), r"\['held_out_ratio'\] must be finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        Findings(make_record(), make_arrays() | {name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mosaic_sources", np.zeros((3, 2, 2)), r"\['mosaic_sources'\] must be whole numbers"),
        ("ratio", np.array(["a"]), r"\['ratio'\] must be numbers; got dtype <U1"),
    ],
)
def test_arrays_of_another_kind_are_refused(name, value, message):
    with pytest.raises(TypeError, match=message):
        Findings(make_record(), make_arrays() | {name: value})


def test_without_a_shape_in_the_record_groups_must_agree():
    record = make_record(data={"name": "mine"})
    assert not Findings(record, make_arrays()).toy
    other = make_arrays(shape=(6, 6, 1), side=3)
    mixed = make_arrays() | {name: other[name] for name in ARRAYS["novel"]}
    with pytest.raises(ValueError, match=r"\['novel'\] .* H = 8"):
        Findings(record, mixed)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"schema": 2}, "is 2; this version of jdiff reads schema 1"),
        ({"kind": "study"}, r"record\['kind'\] is 'study'.* Accepted: evaluation"),
        ({"title": ""}, r"record\['title'\] must be a name that is not empty; got ''"),
        ({"measures": None}, r"record\['measures'\] must hold measures by name; got NoneType"),
    ],
)
def test_records_that_are_no_evaluation_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        Findings(make_record(**more), {})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"constants": {}}, r"\['gap'\] has a list of 3 values, .* must be as many .*; got None"),
        ({"constants": {"sigmas": [1.0]}}, "as many noise levels; got 1"),
        ({"constants": {"sigmas": [1.0, 0.5, 0.0]}}, "must have positive noise levels"),
        ({"interval": [0.1, 0.2]}, r"\['gap'\]\['interval'\] must be two numbers a level, T = 3"),
        ({"control": [0.1, 0.2]}, r"\['gap'\]\['control'\] must be one number a level, T = 3"),
        ({"value": "high"}, r"\['gap'\]\['value'\] must be one number; got 'high'"),
    ],
)
def test_lists_must_fit_their_noise_levels(entry, message):
    bad = measure("psnr_gap", [0.1, 0.2, 0.3]) | entry
    if entry.get("value"):
        bad |= {"interval": None}
    with pytest.raises(ValueError, match=message):
        Findings(make_record(measures={"gap": bad}), {})


def test_no_mappings_are_refused():
    with pytest.raises(TypeError, match="record must be a mapping by name; got list"):
        Findings([], {})  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="arrays must be a mapping by name; got NoneType"):
        Findings(make_record(), None)  # pyright: ignore[reportArgumentType]


def test_numbers_are_the_entrys_with_nan_for_what_is_missing():
    gap = Finding("psnr_gap", measure("psnr_gap", [0.1, 0.2, 0.3]) | {"value": [0.1, None, 0.3]})
    np.testing.assert_array_equal(gap.numbers("value"), [0.1, np.nan, 0.3])
    np.testing.assert_array_equal(gap.numbers("control"), np.full(3, np.nan))
    np.testing.assert_array_equal(gap.numbers("control_interval"), np.full((2, 3), np.nan))
    np.testing.assert_array_equal(gap.sigmas, SIGMAS)
    assert gap.known
    empty = Finding("recall", {})
    assert not empty.known
    assert empty.numbers("interval").shape == (2,)


def test_measures_of_one_name_are_told_apart_by_their_constants():
    entries = {
        "a": measure("copy_rate", 0.1, tau=0.5, num=7),
        "b": measure("copy_rate", 0.1, tau=0.6, num=7),
        "c": measure("copy_rate", 0.1, tau=0.6, num=9),
        "d": measure("copy_rate", 0.1, tau=0.5, num=7, features="encoder"),
    }
    found = Findings(make_record(measures=entries), {})
    assert [m.differs for m in found.measures] == [
        *("tau = 0.5", "tau = 0.6, num = 7", "tau = 0.6, num = 9"),
        "",  # its space tells it apart
    ]
    titles = {m.key: m.title for m in Findings(make_record(), {}).measures}
    assert titles["frechet_distance"] == "pixel Fréchet distance"
    assert titles["frechet_distance (encoder)"] == "Fréchet distance"
    assert titles["locality_profile 95%"] == "locality, q = 0.95"
    assert titles["explained_by optimal mse"] == "mean squared error, explained by optimal"


@pytest.mark.parametrize(
    ("key", "name", "constants"),
    [
        ("explained_by pearson_r local_linear 5", None, {}),
        ("explained_by local_linear 5 pearson_r", "pearson_r", {}),
        ("x", "explained_by pearson_r local_linear 5", {}),
        ("explained_by pearson_r", "pearson_r", {"reference": "local_linear 5"}),
    ],
)
def test_what_explains_is_read_from_name_key_and_constants(key, name, constants):
    found = Finding(key, {"name": name, "constants": constants})
    assert found.explains == ("pearson_r", "local_linear 5")
    assert found.kind == "explained_by"
    assert Finding("pearson_r", {"name": "pearson_r"}).explains is None
