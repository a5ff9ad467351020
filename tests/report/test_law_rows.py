"""Rows of the study `laws` refuse what does not fit together, naming it."""

import numpy as np
import pytest

from jdiff.report.law_rows import (
    ARRAYS,
    SECTIONS,
    LawRow,
    all_twins,
    checked,
    failed_tests,
    obeying,
)


def record(section="gaussian", **more):
    return {"label": "linear", "section": section, "status": "ok", **more}


def line(n=9, bins=4):
    return {
        "samples": np.zeros(n),
        "points": np.array([-1.0, 1.0]),
        "weights": np.array([0.5, 0.5]),
        "edges": np.linspace(-2, 2, bins + 1),
        "density": np.ones(bins),
    }


def shapes(section):
    """The smallest arrays of a section with every letter another length."""
    sizes = {"n": 5, "N": 7, "K": 3, "b": 4, "m": 6, "k": 2, "g": 8, "H": 9, "W": 10, "C": 1}
    size = lambda letter: (
        int(letter) if letter.isdigit() else sizes[letter[0]] + int(letter[2:] or 0)
    )
    return {
        name.rstrip("?"): np.ones(tuple(size(letter) for letter in form.split()))
        for name, form in ARRAYS[section].items()
    }


@pytest.mark.core
@pytest.mark.parametrize("section", SECTIONS)
def test_arrays_that_fit_are_taken_with_and_without_the_optional_ones(section):
    arrays = shapes(section)
    row = LawRow(record(section), arrays)
    assert all(row.array(name) is arrays[name] for name in arrays)
    needed = {name for name in ARRAYS[section] if not name.endswith("?")}
    assert LawRow(record(section), {name: arrays[name] for name in needed}).section == section


@pytest.mark.parametrize("section", [name for name in SECTIONS if name != "sweep"])
def test_every_needed_array_is_missed_by_name(section):
    for name in ARRAYS[section]:
        if not name.endswith("?"):
            arrays = shapes(section)
            del arrays[name]
            if arrays:
                with pytest.raises(ValueError, match=f"arrays of row 'linear' lack '{name}'"):
                    LawRow(record(section), arrays)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("density", np.ones(5), r"\['density'\] of row 'linear' .* \[b\].*, b = 4; got \[5\]"),
        ("weights", np.ones(3), r"\['weights'\] .* \[K\].*, K = 2; got \[3\]"),
        ("optimal_samples", np.ones(8), r"\['optimal_samples'\] .*, n = 9; got \[8\]"),
        ("samples", np.ones((9, 1)), r"\['samples'\] .* \[n\], none of them 0.*; got \[9, 1\]"),
        ("samples", np.ones(0), r"none of them 0.*; got \[0\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        LawRow(record("star"), line() | {name: value})


def test_pairs_of_images_have_one_shape():
    images = np.zeros((2, 8, 8, 1))
    with pytest.raises(ValueError, match=r"\['atoms'\] .*H = 8.*; got \[2, 8, 9, 1\]"):
        LawRow(record("atoms"), {"samples": images, "atoms": np.zeros((2, 8, 9, 1))})
    with pytest.raises(ValueError, match=r"\['training'\] .* \[N, 2\].*; got \[4, 3\]"):
        LawRow(record("plane"), {"training": np.zeros((4, 3)), "samples": np.zeros((5, 2))})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": ""}, r"record\['label'\] must be a name that is not empty; got ''"),
        ({"section": "stars"}, r"record\['section'\] is 'stars'.*Did you mean 'star'\?"),
        ({"status": "done"}, r"record\['status'\] is 'done'.*Accepted: failed, ok"),
        ({"law": "normal"}, r"record\['law'\] is 'normal'.*Accepted: .*gaussian"),
    ],
)
def test_a_bad_record_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LawRow(record() | change)


def test_a_failed_row_has_no_arrays():
    failed = record("star") | {"status": "failed"}
    assert LawRow(failed).failed
    assert LawRow(failed, {}).failed
    with pytest.raises(ValueError, match="arrays of the failed row 'linear' must be None"):
        LawRow(failed, line())


def test_an_array_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="row 'linear' has no array 'curve' to draw"):
        LawRow(record("plane")).array("curve")


def test_rows_are_counted_by_their_checks():
    test = lambda name, passed: {"name": name, "passed": passed}
    good = {"passed": True, "rows": [test("mean", True)]}
    bad = {"passed": False, "rows": [test("mean", True), test("radius", False)]}
    rows = [
        LawRow(record(check=good, twins=[{"about": "a", "check": bad}])),
        LawRow(record(check=bad)),
        LawRow(record(check=None, measures={"escaped": None})),
    ]
    assert checked(rows) == rows[:2]
    assert obeying(rows) == rows[:1]
    assert [twin["about"] for _, twin in all_twins(rows)] == ["a"]
    assert failed_tests(bad) == ["radius"]
    assert rows[2].measure("escaped") == rows[2].measure("law_distance") == {}
    assert rows[2].number("seconds", "fit") is None
