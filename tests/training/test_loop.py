"""Whole runs: resumed to the bit, refused, stopped by NaN, compiled once, learning something."""

import dataclasses
import io
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tqdm.std
from tiny_training import (
    CONFIG,
    SHAPE,
    TRACED,
    Affine,
    Small,
    assert_trees_equal,
    pictures,
)

from jdiff import data
from jdiff.training import TrainConfig, TrainResult, loop, train
from jdiff.training.restore import restore
from jdiff.training.step import _programs

# Where a checkpoint's arrays cannot be read, the library's other reads come back to an event loop
# that is closed by then; it says so on stderr, and pytest makes a warning of it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def refused(error, *words):
    """pytest.raises(error) whose message holds all words, in order."""
    return pytest.raises(error, match=".*".join(re.escape(word) for word in words))


def run(run_dir: Any = None, seed: Any = 0, **changes: Any) -> TrainResult:
    arguments = {"network": Small(), "data": pictures(), "config": CONFIG, "progress": False}
    return train(**{**arguments, "key": jax.random.key(seed), "run_dir": run_dir, **changes})


def watch(monkeypatch, stop_after=None):
    """Counts the steps of each compiled call; raises KeyboardInterrupt after some of them."""
    programs, counts = loop.programs, []

    def watched(*arguments):
        compiled = programs(*arguments)

        def call(state, shared):
            if stop_after is not None and sum(counts) >= stop_after:
                raise KeyboardInterrupt
            counts.append(int(shared[1]))
            return compiled.call(state, shared)

        return compiled._replace(call=call)

    monkeypatch.setattr(loop, "programs", watched)
    return counts


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_same_run(found, wanted):
    """Bit for bit: every weight, every loss."""
    assert_trees_equal(found.denoiser, wanted.denoiser)
    for name in wanted.history:
        np.testing.assert_array_equal(found.history[name], wanted.history[name])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run never stopped: what it gave, and its directory."""
    run_dir = tmp_path_factory.mktemp("run") / "whole"
    return run(run_dir), run_dir


def checkpoint_steps(run_dir):
    names = [p.name for p in (run_dir / "checkpoints").iterdir()]
    return sorted(int(name) for name in names if not name.startswith("damaged-"))


# History and files


@pytest.mark.core
def test_history_has_every_loss_and_the_held_out_ones(whole):
    history = whole[0].history
    np.testing.assert_array_equal(history["step"], np.arange(11))
    np.testing.assert_array_equal(history["held_out_step"], [0, 4, 8, 11])
    assert np.all(np.isfinite(history["loss"]))
    assert len(set(history["held_out_loss"])) == 4


def test_a_run_leaves_its_config_its_metrics_and_three_checkpoints(whole):
    result, run_dir = whole
    assert sorted(p.name for p in run_dir.iterdir()) == [
        "checkpoints",
        "config.json",
        "metrics.jsonl",
    ]
    assert checkpoint_steps(run_dir) == [8, 10, 11]
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 11 + 4


def test_a_run_directory_changes_nothing(whole):
    assert_same_run(run(), whole[0])


def test_seconds_and_images_a_second_are_counted(whole):
    result = whole[0]
    assert result.seconds["compile"] > 0
    assert result.seconds["train"] > 0
    assert result.images_per_s > 0


# Resume


@pytest.mark.core
@pytest.mark.parametrize("stop", [1, 3, 7, 10])
def test_resumed_after_a_stop_it_is_the_same_run(whole, tmp_path, monkeypatch, stop):
    counts = watch(monkeypatch, stop_after=stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    done = sum(counts)
    assert stop <= done < 11
    monkeypatch.undo()
    # Checkpoints after 2, 4, .. steps: what came after the last is lost and run again.
    kept = done // 2 * 2
    assert (checkpoint_steps(tmp_path) or [0])[-1] == kept
    counts = watch(monkeypatch)
    assert_same_run(run(tmp_path), whole[0])
    assert sum(counts) == 11 - kept
    assert (tmp_path / "metrics.jsonl").read_text() == (whole[1] / "metrics.jsonl").read_text()


def test_resumed_after_a_kill_it_is_the_same_run(whole, tmp_path, monkeypatch):
    """SIGKILL in another process: nothing is closed, a save may be half done."""
    program = Path(__file__).with_name("killed_program.py")
    # Compiled there as here, or it is another program.
    hasty = str(int(os.environ.get("JDIFF_TESTS") != "optimized"))
    killed = subprocess.run(
        [sys.executable, program, tmp_path / "run", "7"],
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": hasty},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-4000:]
    assert (tmp_path / "run/metrics.jsonl").exists()
    counts = watch(monkeypatch)
    assert_same_run(run(tmp_path / "run"), whole[0])
    # After 4 steps there was a checkpoint, if not after 6, whose save may have been cut off.
    assert sum(counts) in (5, 7)


def test_a_finished_run_runs_nothing(whole, monkeypatch):
    before = contents(whole[1])
    counts = watch(monkeypatch)
    again = run(whole[1])
    assert_same_run(again, whole[0])
    assert counts == []
    assert again.images_per_s is None
    assert contents(whole[1]) == before


def damage(run_dir, step, how):
    """Breaks the file of a checkpoint that holds its small arrays."""
    (path,) = (run_dir / f"checkpoints/{step}/state/d").iterdir()
    if how == "delete":
        path.unlink()
        return
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)


@pytest.mark.parametrize(
    ("damaged", "how", "missing"),
    [((11,), "flip", 1), ((11,), "delete", 1), ((11, 10), "flip", 3), ((11, 10, 8), "flip", 11)],
    ids=["flip", "delete", "two", "all"],
)
def test_a_damaged_checkpoint_is_named_and_the_run_still_the_same(
    whole, tmp_path, monkeypatch, damaged, how, missing
):
    run_dir = shutil.copytree(whole[1], tmp_path / "run")
    for step in damaged:
        damage(run_dir, step, how)
    counts = watch(monkeypatch)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run(run_dir)
    named = [str(w.message).split(" is damaged")[0] for w in caught]
    assert named == [f"checkpoint {run_dir}/checkpoints/{step}" for step in damaged]
    assert sum(counts) == missing
    assert_same_run(result, whole[0])
    assert checkpoint_steps(run_dir)[-1] == 11
    # Moved aside, not deleted.
    assert {p.name for p in (run_dir / "checkpoints").glob("damaged-*")} == {
        f"damaged-{step}" for step in damaged
    }


def test_a_checkpoint_of_another_structure_is_refused_and_kept(whole, tmp_path, monkeypatch):
    # The class changed, its name and options did not: config.json cannot tell.
    run_dir = shutil.copytree(whole[1], tmp_path / "run")
    monkeypatch.setattr(Small, "last_name", "renamed")
    before = contents(run_dir)
    for attempt in (lambda: run(run_dir), lambda: restore(run_dir, Small())):
        _programs.cache_clear()
        with refused(ValueError, "checkpoint", "is of another network or optimizer", "renamed"):
            attempt()
        assert contents(run_dir) == before
    _programs.cache_clear()


def test_restore_changes_nothing(whole, tmp_path):
    run_dir = shutil.copytree(whole[1], tmp_path / "run")
    damage(run_dir, 11, "flip")
    before = contents(run_dir)
    with pytest.warns(UserWarning, match="11 is damaged"):
        restore(run_dir, Small())
    assert contents(run_dir) == before


@pytest.mark.core
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "key is [0, 0] there and [0, 1] here"),
        (
            {"config": dataclasses.replace(CONFIG, learning_rate=0.5)},
            "train.learning_rate is 0.01 there and 0.5 here",
        ),
        ({"network": Small(width=9)}, "architecture.options.width is 8 there and 9 here"),
        ({"data": pictures(seed=1)}, "data.fingerprint is"),
    ],
    ids=["key", "config", "network", "data"],
)
def test_a_directory_of_another_configuration_is_refused(whole, changes, words):
    before = contents(whole[1])
    message = "belongs to another configuration: "
    with refused(ValueError, f"run_dir {whole[1]}", message, words, "nothing was changed."):
        run(whole[1], **changes)
    assert contents(whole[1]) == before


def test_a_save_that_fails_in_the_background_ends_the_run(tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    def fail(manager, step):
        raise OSError("No space left on device")

    monkeypatch.setattr(ocp.CheckpointManager, "_finalize_checkpoint", fail)
    with refused(OSError, "No space left on device"):
        run(tmp_path)


# Restore


def test_restore_gives_the_denoiser_back(whole):
    assert_trees_equal(restore(whole[1], Small()), whole[0].denoiser)


def test_restore_refuses_what_is_not_there(whole, tmp_path):
    with refused(FileNotFoundError, f"run_dir {tmp_path} is not a run: it has no config.json."):
        restore(tmp_path, Small())
    with refused(
        ValueError, "network is not the one", str(whole[1]), "options.width is 8 there and 9"
    ):
        restore(whole[1], Small(width=9))
    shutil.copy(whole[1] / "config.json", tmp_path)
    with refused(FileNotFoundError, f"run_dir {tmp_path} has no checkpoint yet."):
        restore(tmp_path, Small())


# Seeds and compilations


@pytest.mark.core
def test_a_second_seed_compiles_nothing(whole, caplog):
    TRACED.clear()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        other = run(seed=5)
    assert TRACED == []
    assert not any("Compiling" in record.getMessage() for record in caplog.records)
    assert not np.array_equal(other.history["loss"], whole[0].history["loss"])
    # The check can fail: another batch size is another program, and it is logged.
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        jax.jit(lambda x: x + 1)(jnp.zeros(3))
    assert any("Compiling" in record.getMessage() for record in caplog.records)


def test_held_out_losses_of_two_seeds_are_of_the_same_draws(whole):
    # The last layer starts at zero, so before training all seeds are one denoiser.
    other = run(seed=5).history["held_out_loss"]
    assert other[0] == whole[0].history["held_out_loss"][0]
    assert other[1] != whole[0].history["held_out_loss"][1]


# Losses that are not finite


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    # Gradient steps far too long: weights grow until their square is beyond float32, at which
    # they themselves are still finite.
    config = TrainConfig(
        steps=60,
        batch_size=8,
        optimizer="sgd",
        learning_rate=100.0,
        warmup=0,
        eval_every=60,
        eval_examples=8,
        checkpoint_every=1,
    )
    arguments = {"network": Affine(), "data": pictures(labels=False), "config": config}
    with pytest.raises(FloatingPointError) as caught:
        run(tmp_path, **arguments)
    found = re.match(
        r"the training loss is not finite at step (\d+); a lower learning_rate or a longer warmup "
        r"may help. The checkpoint after (\d+) steps is kept.$",
        str(caught.value),
    )
    assert found, caught.value
    bad, kept = map(int, found.groups())
    assert 0 < kept <= bad
    assert checkpoint_steps(tmp_path)[-1] == kept
    lines = (tmp_path / "metrics.jsonl").read_text()
    assert "null" not in lines
    assert f'"step": {bad - 1}, "loss"' in lines
    assert f'"step": {bad}, "loss"' not in lines
    denoiser = restore(tmp_path, Affine())
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(denoiser))
    # Without a directory it stops all the same, at the same step.
    with refused(FloatingPointError, f"the training loss is not finite at step {bad};"):
        run(**arguments)


# Learning


class Convolutions(nn.Module):
    """Two 3x3 convolutions with batch statistics between them."""

    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        h = nn.Conv(16, (3, 3))(x)
        h = nn.silu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(h))
        return nn.Conv(x.shape[-1], (3, 3))(h)


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        h = nn.silu(nn.Dense(64)(x.reshape(len(x), -1)))
        return nn.Dense(x[0].size)(h).reshape(x.shape)


@pytest.fixture(scope="module")
def overfitted():
    """Four images of 4x4 at one level; the held-out images are the same four.

    Convolutions that see 5x5 pixels and know no places cannot tell them apart as well.
    """
    four = pictures(4, (4, 4, 1), labels=False).images
    same = data.from_arrays(four, held_out=four)
    config = TrainConfig(
        steps=800, batch_size=16, learning_rate=1e-2, warmup=10, ema_decay=0.9, noise=0.5
    )
    config = dataclasses.replace(config, eval_every=800, checkpoint_every=800)
    return {n: run(network=n(), data=same, config=config) for n in (Dense, Convolutions)}


@pytest.mark.parametrize(("network", "factor"), [(Dense, 8), (Convolutions, 2)])
def test_four_images_are_learnt(overfitted, network, factor):
    history = overfitted[network].history
    start, end = history["loss"][:5].mean(), history["loss"][-20:].mean()
    assert end < start / factor
    # The averaged weights in evaluation mode do as well, on the same images.
    assert history["held_out_loss"][-1] < history["held_out_loss"][0] / factor


def test_one_level_of_noise_is_the_denoiser_s_only_level(overfitted):
    sigmas = overfitted[Dense].denoiser.sigmas
    assert sigmas is not None
    assert sigmas.tolist() == [0.5]


def test_many_levels_are_any_level(whole):
    assert whole[0].denoiser.sigmas is None


def test_batch_statistics_are_kept_and_averaged(overfitted):
    stats = overfitted[Convolutions].denoiser.variables["batch_stats"]["BatchNorm_0"]
    assert np.all(np.isfinite(stats["mean"]))
    assert np.abs(stats["mean"]).max() > 1e-3  # it starts at 0
    assert np.abs(stats["var"] - 1).max() > 1e-2  # and at 1


@pytest.mark.skipif(jax.device_count() != 1, reason="the batch is that of one device")
def test_statistics_of_one_image_are_refused(tmp_path):
    config = dataclasses.replace(CONFIG, batch_size=1)
    data = pictures(4, (4, 4, 1), labels=False)
    with refused(ValueError, "batch_size must be at least 2 a device", "got 1 on 1 device(s)"):
        run(tmp_path / "run", network=Convolutions(), data=data, config=config)
    assert not (tmp_path / "run").exists()


# Progress


def test_the_bar_says_how_fast_and_how_well(monkeypatch):
    shown = io.StringIO()

    class Bar(tqdm.std.tqdm):
        def __init__(self, *arguments, **options):
            super().__init__(
                *arguments, **{**options, "file": shown, "mininterval": 0, "miniters": 1}
            )

    monkeypatch.setattr(loop, "tqdm", Bar)
    run(progress=True)
    last = shown.getvalue().split("\r")[-1]
    assert "train Small: 100%" in last
    assert "11/11" in last
    assert re.search(r"loss [\d.e+-]+, [\d,]+ images/s", last)


def test_without_progress_nothing_is_printed(capsys):
    run(progress=False)
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""


# Bad input


class Listed(nn.Module):
    widths: Any

    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        for width in self.widths:
            x = nn.Dense(width)(x)
        return nn.Dense(1)(x)


class Uncalled(nn.Module):
    @nn.compact
    def __call__(self, x, c_noise):
        return nn.Dense(1)(x)


class Empty(nn.Module):
    pass


class Scalar(nn.Module):
    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        return nn.Dense(1)(x.mean((1, 2), keepdims=True))  # which would be broadcast


@pytest.mark.core
@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"network": None}, TypeError, ["network must be a flax.linen module; got None"]),
        ({"network": Small}, TypeError, ["network must be a flax.linen module; got <class"]),
        ({"data": np.zeros((2, *SHAPE))}, TypeError, ["data must be an ImageData", "got ndarray"]),
        ({"config": {"steps": 2}}, TypeError, ["config must be a TrainConfig; got dict"]),
        ({"key": 0}, TypeError, ["key must be one typed key", "got 0"]),
        ({"key": "rbg"}, TypeError, ["key must be a threefry2x32 key", "rbg"]),
        (
            {"data": pictures(labels=False)},
            ValueError,
            ["data has no labels, but the network has num_classes=2: give it labels or"],
        ),
        (
            {"network": Small(num_classes=1)},
            ValueError,
            ["data has 2 classes, but the network has num_classes=1."],
        ),
        ({"network": Listed([4, 4])}, TypeError, ["field widths must be hashable", "a tuple for"]),
        ({"network": Uncalled()}, TypeError, ["network Uncalled must be called as (x, c_noise, "]),
        ({"network": Empty()}, TypeError, ["network Empty must be called as", "no __call__"]),
        ({"network": Scalar()}, ValueError, ["F like x; got (2, 1, 1, 1) for x (2, 2, 2, 1)"]),
        (
            {"data": data.from_arrays(np.ones((2, 1, 1, 1)), held_out=np.ones((1, 1, 1, 1))),
             "network": Affine()},
            ValueError,
            ["data has no variance: every value of every training image"],
        ),
    ],
    ids=["none", "class", "array", "dict", "int", "rbg", "no-labels", "classes",
         "list", "call", "no-call", "shape", "constant"],
)  # fmt: skip
def test_train_refuses_and_leaves_nothing(changes, error, words, tmp_path):
    if changes.get("key") == "rbg":
        changes = {"key": jax.random.key(0, impl="rbg")}
    with refused(error, *words):
        run(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()
