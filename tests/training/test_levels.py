"""One network for every level: what each learns, on one compiled program, resumed and loaded."""

import dataclasses
import json
import re
from typing import Any

import jax
import numpy as np
import pytest
from tiny_training import CONFIG, TRACED, Affine, Small, assert_trees_equal, pictures

import jdiff
from jdiff.training import train, train_levels
from jdiff.training.levels import level_dir
from jdiff.training.restore import restore_levels
from jdiff.training.step import _programs

LEVELS = np.array([4.0, 0.5, 0.05], np.float32)


def refused(error, *words):
    """pytest.raises(error) whose message holds all words, in order."""
    return pytest.raises(error, match=".*".join(re.escape(word) for word in words))


def run(run_dir=None, network=None, sigmas: Any = LEVELS, config=CONFIG, key=None):
    key = jax.random.key(0) if key is None else key
    network = Small() if network is None else network
    return train_levels(
        network, pictures(), config, sigmas, key=key, run_dir=run_dir, progress=False
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of three levels, its directory, and how often the network was traced for them."""
    path = tmp_path_factory.mktemp("levels") / "run"
    _programs.cache_clear()
    before = len(TRACED)
    first = train(
        Small(),
        pictures(),
        dataclasses.replace(CONFIG, noise=7.0),
        key=jax.random.key(3),
        progress=False,
    )
    once = len(TRACED) - before
    result = run(path)
    return result, path, once, len(TRACED) - before - once, first


def test_every_level_is_a_run_at_that_level(whole):
    result = whole[0]
    key = jax.random.fold_in(jax.random.key(0), 4)
    alone = train(
        Small(),
        pictures(),
        dataclasses.replace(CONFIG, noise=0.5),
        key=jax.random.fold_in(key, 1),
        progress=False,
    )
    stacked = result.denoiser.networks.variables
    assert_trees_equal(jax.tree.map(lambda leaf: leaf[1], stacked), alone.denoiser.variables)
    np.testing.assert_array_equal(result.history["level_loss"][1], alone.history["loss"])
    np.testing.assert_array_equal(result.denoiser.sigmas, LEVELS)
    np.testing.assert_allclose(
        result.history["loss"], result.history["level_loss"].mean(0), rtol=1e-12
    )
    # Levels start from networks of their own.
    apart = jax.tree.map(lambda leaf: np.abs(leaf[0] - leaf[1]).max(), stacked)
    assert max(jax.tree.leaves(apart)) > 0.1


def test_no_level_compiles_again(whole):
    once, later = whole[2:4]
    assert once > 0
    assert later == 0


def test_a_closing_zero_is_left_off(whole):
    again = run(sigmas=np.append(LEVELS, np.float32(0)))
    assert_trees_equal(again.denoiser.networks.variables, whole[0].denoiser.networks.variables)


def test_an_interrupted_run_goes_on(whole, tmp_path):
    # As if stopped after the first level.
    config = json.loads((whole[1] / "config.json").read_text())
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 4), 0)
    train(
        Small(),
        pictures(),
        dataclasses.replace(CONFIG, noise=4.0),
        key=key,
        run_dir=level_dir(path, 0),
        progress=False,
    )
    found = run(path)
    assert_trees_equal(found.denoiser.networks.variables, whole[0].denoiser.networks.variables)
    assert (path / "metrics.jsonl").read_text() == (whole[1] / "metrics.jsonl").read_text()


def test_it_is_restored_and_loaded(whole):
    result, path = whole[:2]
    assert_trees_equal(restore_levels(path, Small()), result.denoiser)
    assert_trees_equal(jdiff.load(path, network=Small()), result.denoiser)
    with refused(ValueError, "network is not the one", "Affine"):
        jdiff.load(path, network=Affine())


def test_a_run_of_other_levels_is_refused(whole):
    with refused(ValueError, "belongs to another configuration", "sigmas is"):
        run(whole[1], sigmas=[4.0, 0.5])
    with refused(ValueError, "belongs to another configuration", "kind is 'levels' there"):
        train(Small(), pictures(), CONFIG, key=jax.random.key(0), run_dir=whole[1], progress=False)


@pytest.mark.core
def test_bad_input_is_refused(tmp_path):
    with refused(ValueError, "sigmas"):
        run(tmp_path / "run", sigmas=[0.5, 4.0])
    with refused(ValueError, "config.noise must be left at its default", "got 0.5"):
        run(tmp_path / "run", config=dataclasses.replace(CONFIG, noise=0.5))
    with refused(TypeError, "network must be a flax.linen module"):
        run(tmp_path / "run", network=3)
    assert not (tmp_path / "run").exists()
