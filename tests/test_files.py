"""Files appear whole or not at all, and what comes back is what went in."""

import json
import math
import os

import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import _files

pytestmark = pytest.mark.core


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.bin"
    _files.write(path, lambda file: file.write(b"old"))

    def fails(file):
        file.write(b"half of the new")
        file.flush()
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        _files.write(path, fails)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_while_writing_leaves_nothing(tmp_path, stop):
    def stopped(file):
        raise stop

    with pytest.raises(stop):
        _files.write(tmp_path / "new.bin", stopped)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "result.txt"
    _files.write_text(path, "old")
    seen = []

    def fill(file):
        for word in (b"all ", b"new"):
            file.write(word)
            file.flush()
            seen.append(path.read_text())

    _files.write(path, fill)
    assert seen == ["old", "old"]
    assert path.read_text() == "all new"


def test_folders_are_made_and_others_may_read_the_file(tmp_path):
    path = tmp_path / "runs" / "demo" / "report.html"
    _files.write_text(path, "Fréchet ≤ 1")
    assert path.read_bytes().decode("utf-8") == "Fréchet ≤ 1"
    assert os.stat(path).st_mode & 0o777 == 0o644


def test_json_has_null_for_what_is_not_finite(tmp_path):
    path = tmp_path / "a.json"
    value = {
        "nan": math.nan,
        "inf": [np.inf, -np.inf],
        "numpy": np.float32(np.nan),
        "array": np.array([[1.0, np.nan], [np.inf, 2.5]]),
        "finite": 0.1,
    }
    _files.write_json(path, value)
    refuse = lambda name: pytest.fail(f"{name} is no JSON")
    assert json.loads(path.read_text(), parse_constant=refuse) == {
        "nan": None,
        "inf": [None, None],
        "numpy": None,
        "array": [[1.0, None], [None, 2.5]],
        "finite": 0.1,
    }


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.float32(0.5), 0.5),
        ((1, (2, None)), [1, [2, None]]),
        (np.arange(4, dtype=np.uint8).reshape(2, 2), [[0, 1], [2, 3]]),
        ({1: {"a": (np.float64(2.0),)}}, {"1": {"a": [2.0]}}),
        ("digits", "digits"),
    ],
    ids=repr,
)
def test_numpy_and_tuples_become_plain(value, plain):
    found = _files.plain(value)
    assert found == plain
    assert json.loads(json.dumps(found)) == plain


def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "a.json"
    _files.write_json(path, {"good": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        _files.write_json(path, {"bad": object()})
    assert json.loads(path.read_text()) == {"good": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_arrays_come_back_with_values_shapes_and_dtypes(tmp_path):
    path = tmp_path / "a.npz"
    arrays = {
        "images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1),
        "d1": np.array([0.1, np.nan, np.inf]),
        "device": jnp.arange(3, dtype=jnp.float32),
        "empty": np.zeros((0, 4), np.int32),
    }
    _files.write_arrays(path, **arrays, labels=None, seed=7, solver="heun")
    found = _files.read_arrays(path)
    assert sorted(found) == sorted([*arrays, "seed", "solver"])  # None is left out
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], np.asarray(array))
    assert (int(found["seed"]), str(found["solver"])) == (7, "heun")


def test_objects_are_neither_written_nor_read(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(ValueError, match="[Oo]bject arrays cannot be saved"):
        _files.write_arrays(path, bad=np.array([{}, None], object))
    assert list(tmp_path.iterdir()) == []
    np.savez(path, bad=np.array([{}, None], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        _files.read_arrays(path)


def test_an_object_comes_back_with_the_entries_that_it_must_have(tmp_path):
    path = tmp_path / "a.json"
    _files.write_json(path, {"rows": [1], "study": {"name": "é"}, "schema": 1})
    found = _files.read_object(path, rows=list, study=dict, schema=int)
    assert found == {"rows": [1], "study": {"name": "é"}, "schema": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"rows": [', "Expecting value"),
        (b"", "Expecting value"),
        (b"\xff\xfe\x00", "can't decode"),
        (b"null", "it must hold an object; got null"),
        (b"[" + b"1, " * 50 + b"1]", r"it must hold an object; got \[1, 1, .*\.\.\.\.$"),
        (b"{}", "it lacks 'rows'"),
        (b'{"rows": {}}', "'rows' must be a list; got {}"),
    ],
    ids=["cut off", "empty", "bytes", "null", "list", "lacking", "kind"],
)
def test_what_is_no_such_object_is_named(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json is damaged: .*{message}"):
        _files.read_object(tmp_path / "a.json", rows=list)


def test_a_directory_is_no_file_nor_below_one(tmp_path):
    _files.refuse_file("out", tmp_path)
    _files.refuse_file("out", tmp_path / "new" / "newer")
    (tmp_path / "notes").write_text("mine")
    for path in (tmp_path / "notes", tmp_path / "notes" / "new"):
        with pytest.raises(ValueError, match=r"out .* must be a directory; .*notes is a file"):
            _files.refuse_file("out", path)
