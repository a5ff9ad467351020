"""A study's report from its files alone, and what it says where they are missing or damaged."""

import json

import jax
import numpy as np
import pytest

import jdiff
from jdiff.study import files, rebuild_report


@pytest.mark.core
def test_the_report_made_again_is_the_one_that_was_written(copied, finished):
    (copied / "report.html").unlink()
    found = rebuild_report(copied)
    assert found == copied / "report.html"
    assert found.read_text() == (finished / "report.html").read_text()


@pytest.mark.core
def test_the_report_is_made_from_the_files_and_nothing_else(copied):
    results = json.loads((copied / "results.json").read_text())
    results["rows"][0]["label"] = "renamed-row"
    (copied / "results.json").write_text(json.dumps(results))
    assert "renamed-row" in rebuild_report(copied).read_text()


def test_pictures_come_from_the_rows_files(finished, records):
    record = records(finished)["mlp:width=16,depth=2 n24 s2"]
    pictures = files.load_pictures(finished, record)
    assert pictures.samples.shape == pictures.nearest.shape == (24, 8, 8, 1)
    assert len(pictures.held_out_d1) == 40
    assert np.all(pictures.d1 <= pictures.d2)
    # By hand: distances on [0, 1].
    difference = (pictures.samples + 1) / 2 - pictures.nearest / 255.0
    d1 = np.sqrt(np.square(difference.astype(np.float64)).sum((1, 2, 3)))
    np.testing.assert_allclose(pictures.d1, d1, rtol=1e-6)
    assert pictures.curve("step").tolist() == list(range(10))
    assert pictures.curve("held_out_step")[0] == 0


@pytest.mark.core
@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, FileNotFoundError, "has no results.json: no study finished there"),
        ("{", ValueError, "results.json is damaged"),
        ('{"schema": 99, "rows": []}', ValueError, "is 99; this version of jdiff reads schema 1"),
    ],
    ids=["missing", "damaged", "schema"],
)
def test_results_that_cannot_be_read(copied, content, error, message):
    report = (copied / "report.html").read_text()
    if content is None:
        (copied / "results.json").unlink()
    else:
        (copied / "results.json").write_text(content)
    with pytest.raises(error, match=message):
        rebuild_report(copied)
    assert (copied / "report.html").read_text() == report


@pytest.mark.core
@pytest.mark.parametrize("file", ["data.npz", "runs/linear-n24-s0/samples.npz"])
def test_damaged_arrays_are_named(copied, file):
    content = (copied / file).read_bytes()
    (copied / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{file} is damaged"):
        rebuild_report(copied)
    (copied / file).unlink()
    with pytest.raises(FileNotFoundError, match=file):
        rebuild_report(copied)


def test_device_and_versions_are_named():
    assert f"{jax.device_count()} x " in files.device()
    versions = files.versions()
    assert versions["jdiff"] == jdiff.__version__
    assert {"jax", "jaxlib", "flax", "optax", "numpy", "python"} <= set(versions)
