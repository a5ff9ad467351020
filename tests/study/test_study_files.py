"""A study's report from its files alone, and what it says where they are missing or damaged."""

import json
import re

import jax
import numpy as np
import pytest

import jdiff
from jdiff.data import load
from jdiff.study import files, rebuild_report, run


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


WHOLE = '{"schema": 1, "study": {"data": "digits"}, "rows": %s}'


@pytest.mark.core
@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, FileNotFoundError, "has no results.json: no study finished there"),
        ("{", ValueError, "results.json is damaged: Expecting.*Run the study again"),
        ("[]", ValueError, r"results.json is damaged: it must hold an object; got \[\]"),
        ("null", ValueError, "results.json is damaged: it must hold an object; got null"),
        ('{"schema": 1, "rows": []}', ValueError, "results.json is damaged: it lacks 'study'"),
        (WHOLE % "{}", ValueError, "results.json is damaged: 'rows' must be a list; got {}"),
        (WHOLE % "[]", ValueError, "results.json is damaged: it has no rows. Run the study"),
        (WHOLE % "[{}]", ValueError, r"results.json is damaged: in rows\[0\], record\['label'\]"),
        (WHOLE % "[3]", ValueError, r"in rows\[0\], it must be an object; got 3. Run the study"),
        (
            WHOLE % '[{"label": "a", "status": "ok"}]',
            ValueError,
            "row 'a' names no samples; got None. Run the study again",
        ),
        (
            WHOLE % '[{"label": "a", "status": "ok", "measures": 3}]',
            ValueError,
            r"results.json is damaged: in rows\[0\], 'measures' cannot be 3. Run the study again",
        ),
        (
            '{"schema": 1, "study": {}, "rows": [{"label": "a", "status": "failed"}]}',
            ValueError,
            "results.json is damaged: 'study.data' must be a name; got None. Run the study again",
        ),
        (
            '{"schema": 1, "study": {}, "kind": "laws", "rows": [{"label": "a"}]}',
            ValueError,
            r"results.json is damaged: in rows\[0\], record\['section'\] is None.*Run the study",
        ),
        ('{"schema": 99, "rows": []}', ValueError, "is 99; this version of jdiff reads schema 1"),
    ],
    ids=[
        *("missing", "damaged", "list", "null", "no study", "rows no list", "no rows", "empty row"),
        *("number", "no samples", "measures", "no data", "law row", "schema"),
    ],
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
    with pytest.raises(ValueError, match=f"{file} is damaged.* Run the study again"):
        rebuild_report(copied)
    np.savez(copied / file, sigmas=np.zeros(3))
    with pytest.raises(ValueError, match=f"{file} is damaged: it lacks images"):
        rebuild_report(copied)
    (copied / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"{file} is missing. Run the study again"):
        rebuild_report(copied)


@pytest.mark.core
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "it must hold an object; got []"),
        ("null", "it must hold an object; got null"),
        ("{", "Expecting property name"),
        ("{}", "it lacks 'schema'"),
        ('{"schema": 1, "study": [], "data": {}}', "'study' must be an object; got []"),
        ("GROWN", "'seeds' must be a list"),
    ],
    ids=["list", "null", "cut off", "empty", "study", "seeds"],
)
def test_a_damaged_study_json_is_named_and_costs_nothing_but_with_force(
    copied, make_study, snapshot, content, message
):
    file, study = copied / "study.json", make_study(seeds=(0, 1, 2))
    if content == "GROWN":
        whole = json.loads(file.read_text())
        content = json.dumps({**whole, "study": {**whole["study"], "seeds": 3}})
    file.write_text(content)
    before = snapshot(copied)
    with pytest.raises(
        ValueError, match=rf"study\.json is damaged: {re.escape(message)}"
    ) as raised:
        run(study, copied, progress=False)
    assert "or start anew with --force" in str(raised.value)
    assert snapshot(copied) == before
    found = files.StudyDirectory(copied)
    found.claim(study, load(study.data), force=True)
    assert json.loads(file.read_text())["study"]["seeds"] == [0, 1, 2]


@pytest.mark.core
def test_the_steps_that_a_run_was_begun_with(finished, tmp_path):
    assert files.begun_steps(tmp_path) is None
    assert files.begun_steps(finished / "runs" / "mlp-width-16-depth-2-n24-s0") == 10
    for content in ("null", "{}", '{"train": {}}'):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=r"config\.json is damaged"):
            files.begun_steps(tmp_path)


def test_device_and_versions_are_named():
    assert f"{jax.device_count()} x " in files.device()
    versions = files.versions()
    assert versions["jdiff"] == jdiff.__version__
    assert {"jax", "jaxlib", "flax", "optax", "numpy", "python"} <= set(versions)
