"""Rows refuse what does not fit together, naming it."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from jdiff.report import SCHEMA, Row, check
from jdiff.report.rows import titles


@pytest.mark.core
def test_another_schema_is_refused_naming_both():
    check({"schema": SCHEMA})
    with pytest.raises(ValueError, match=r"results\['schema'\] is 99; .* reads schema 1"):
        check({"schema": 99})
    with pytest.raises(ValueError, match="is None"):
        check({})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"status": "ok"}, r"record\['label'\] must be a name .* got None"),
        ({"label": "", "status": "ok"}, r"record\['label'\] must be a name .* got ''"),
        ({"label": "mlp"}, r"record\['status'\] is None.* Accepted: failed, ok"),
        ({"label": "mlp", "status": "fail"}, r"Did you mean 'failed'\? Accepted: failed, ok"),
    ],
)
def test_a_bad_record_is_refused(record, message):
    with pytest.raises(ValueError, match=message):
        Row(record)


def test_a_failed_row_has_no_pictures(rng, make):
    with pytest.raises(ValueError, match="pictures of the failed row 'mlp' must be None"):
        Row({"label": "mlp", "status": "failed"}, make.pictures(rng))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("samples", np.zeros((8, 8, 1)), r"samples must have shape .* got \(8, 8, 1\)"),
        ("samples", np.zeros((0, 8, 8, 1)), r"n >= 1; got \(0, 8, 8, 1\)"),
        ("nearest", np.zeros((19, 8, 8, 1)), r"nearest must have shape \(20, 8, 8, 1\); got \(19"),
        ("d1", np.zeros(19), r"d1 must have shape \(20,\); got \(19,\)"),
        ("d2", np.zeros((20, 1)), r"d2 must have shape \(20,\); got \(20, 1\)"),
        ("held_out_d2", np.zeros(3), r"held_out_d2 must have shape \(12,\); got \(3,\)"),
        ("history", {"step": [1, 2], "loss": [1.0]}, r"history\['step'\] and history\['loss'\]"),
        ("history", {"held_out_loss": [1.0]}, r"got shapes \(0,\) and \(1,\)"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(rng, make, name, value, message):
    pictures = make.pictures(rng)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(pictures, **{name: value})


def test_held_out_distances_are_one_dimensional(rng, make):
    flat = np.zeros((3, 1))
    with pytest.raises(ValueError, match=r"held_out_d1 must have shape \[m\]; got \(3, 1\)"):
        dataclasses.replace(make.pictures(rng), held_out_d1=flat, held_out_d2=flat)


def test_titles_tell_rows_apart_only_where_labels_repeat():
    def row(label, num_train, seed):
        return Row({"label": label, "status": "ok", "num_train": num_train, "seed": seed})

    rows = [row("unet", 100, 0), row("unet", 1000, 0), row("mlp", 100, 3)]
    assert titles(rows) == ["unet, N = 100", "unet, N = 1,000", "mlp"]
    rows = [row("unet", 100, 0), row("unet", 100, 1), row("mlp", 100, None)]
    assert titles(rows) == ["unet, seed 0", "unet, seed 1", "mlp"]


def test_importing_the_room_loads_no_plotting_library():
    code = (
        "import sys, jdiff.report; "
        "print([m for m in ('matplotlib', 'jinja2', 'IPython') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
