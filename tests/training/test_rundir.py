"""The files of a run: whose it is, what is kept of its history, what is refused."""

import json
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff.training.rundir import (
    RunDirectory,
    as_arrays,
    describe_key,
    describe_module,
    differences,
)

CONFIG = {"train": {"steps": 3, "noise": "edm_lognormal"}, "image_shape": (2, 2, 1)}


def refused(error, *words):
    """pytest.raises(error) whose message holds all words, in order."""
    return pytest.raises(error, match=".*".join(re.escape(word) for word in words))


def contents(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.core
def test_a_directory_belongs_to_the_first_configuration(tmp_path):
    run = RunDirectory(tmp_path / "new" / "run")
    run.claim(CONFIG)
    assert run.config() == {"schema": 1, "train": CONFIG["train"], "image_shape": [2, 2, 1]}
    before = contents(tmp_path)
    run.claim(CONFIG)  # the same again, tuples as lists
    other = {**CONFIG, "train": {"steps": 4, "noise": 0.5}, "extra": None}
    with refused(
        ValueError,
        f"run_dir {run.path} belongs to another configuration: ",
        "train.noise is 'edm_lognormal' there and 0.5 here; train.steps is 3 there and 4 here.",
        "Choose another directory; nothing was changed.",
    ):
        run.claim(other)
    assert contents(tmp_path) == before


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with refused(ValueError, f"run_dir {tmp_path} holds files but no config.json", "empty or new"):
        RunDirectory(tmp_path).claim(CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_config_that_is_missing_damaged_or_of_another_schema(tmp_path):
    run = RunDirectory(tmp_path)
    with refused(FileNotFoundError, f"run_dir {tmp_path} is not a run: it has no config.json."):
        run.config()
    (tmp_path / "config.json").write_text('{"schema": 1, ')
    with refused(ValueError, "config.json is damaged"):
        run.config()
    (tmp_path / "config.json").write_text('{"schema": 2}')
    with refused(ValueError, "config.json has schema 2; this version reads 1."):
        run.config()


LINES = [
    {"step": 0, "held_out_loss": 0.9},
    {"step": 0, "loss": 1.0},
    {"step": 1, "loss": 0.1 + 0.2},
    {"step": 2, "held_out_loss": float("nan")},
    {"step": 2, "loss": 0.5},
]


@pytest.mark.core
def test_lines_come_back_digit_for_digit(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.lines() == []
    run.append(LINES[:2])
    run.append(LINES[2:])
    found = run.lines()
    assert found[:3] == LINES[:3]
    assert found[3] == {"step": 2, "held_out_loss": None}  # JSON has no NaN


@pytest.mark.parametrize(("step", "kept"), [(0, 1), (1, 2), (2, 4), (3, 5)])
def test_cut_back_keeps_what_the_checkpoint_has_seen(tmp_path, step, kept):
    run = RunDirectory(tmp_path)
    run.append(LINES)
    whole = run.lines()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "lo')  # a kill in the middle of a line
    assert run.lines() == whole
    run.cut_back(step)
    assert run.lines() == whole[:kept]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == kept


def test_history_as_arrays():
    history = as_arrays([*LINES[:3], {"step": 2, "held_out_loss": None}, LINES[4]])
    np.testing.assert_array_equal(history["step"], [0, 1, 2])
    np.testing.assert_array_equal(history["loss"], [1.0, 0.1 + 0.2, 0.5])
    np.testing.assert_array_equal(history["held_out_step"], [0, 2])
    np.testing.assert_array_equal(history["held_out_loss"], [0.9, np.nan])
    assert history["step"].dtype == np.int64
    assert history["loss"].dtype == np.float64
    assert as_arrays([])["loss"].shape == (0,)


class Net(nn.Module):
    width: int = 3
    sizes: tuple = (1, 2)
    activation: Callable = nn.silu
    dtype: Any = jnp.float32


def test_a_module_is_described_by_class_and_options():
    described = describe_module(Net(width=5, name="ignored"))
    assert described["class"].endswith("test_rundir.Net")
    assert described["options"]["width"] == 5
    assert described["options"]["sizes"] == (1, 2)
    assert sorted(described["options"]) == ["activation", "dtype", "sizes", "width"]
    json.dumps(described)


def test_the_description_holds_nothing_of_this_process():
    """An address would make every resume in another process one of another configuration."""
    assert "0x" not in json.dumps(describe_module(Net()))
    assert "silu" in describe_module(Net())["options"]["activation"]
    assert describe_module(Net()) != describe_module(Net(activation=nn.relu))


def test_keys_are_described_by_their_data():
    assert describe_key(jax.random.key(3)) == [0, 3]
    json.dumps(describe_key(jax.random.key(3)))


def test_differences_name_the_path():
    old = {"a": {"b": 1, "c": 2}, "d": [1], "gone": 0}
    new = {"a": {"b": 1, "c": 3}, "d": [1, 2], "more": 0}
    assert differences(old, new) == [
        "a.c is 2 there and 3 here",
        "d is [1] there and [1, 2] here",
        "gone is 0 there and None here",
        "more is None there and 0 here",
    ]
    assert differences(old, old) == []
