"""Checkpoints: what is kept, what is damaged, what fails in the background."""

import re
import shutil
import threading
import warnings

import numpy as np
import orbax.checkpoint as ocp
import pytest
from tiny_training import assert_trees_equal

from jdiff.training.checkpoints import Checkpoints

# Where an array cannot be read, the library's other reads come back to an event loop that is
# closed by then; it says so on stderr, and pytest makes a warning of it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def tree(step):
    """An array large enough to lie raw in a file of its own, and a scalar."""
    w = np.random.default_rng(step).standard_normal((64, 64)).astype(np.float32)
    return {"inner": {"w": w}, "step": np.asarray(step, np.int32)}


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Four saves."""
    path = tmp_path_factory.mktemp("checkpoints") / "four"
    checkpoints = Checkpoints(path)
    assert checkpoints.steps() == []
    for step in (1, 2, 3, 10):
        checkpoints.save(step, tree(step))
    checkpoints.close()
    return path


@pytest.fixture
def copied(four, tmp_path):
    return shutil.copytree(four, tmp_path / "copy")


def restored(path):
    checkpoints = Checkpoints(path)
    try:
        return checkpoints.restore(tree(0)), checkpoints.steps()
    finally:
        checkpoints.close()


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.core
def test_the_newest_three_are_kept_and_the_newest_is_read(four):
    found, steps = restored(four)
    assert steps == [2, 3, 10]
    assert sorted(p.name for p in four.iterdir()) == ["10", "2", "3"]
    assert found is not None
    assert found[0] == 10
    assert_trees_equal(found[1], tree(10))
    assert isinstance(found[1]["inner"]["w"], np.ndarray)


def test_nothing_saved_is_nothing_restored(tmp_path):
    assert restored(tmp_path / "new") == (None, [])


@pytest.mark.core
def test_a_flipped_bit_is_named_and_the_one_before_it_used(copied):
    flip_a_bit(largest_file(copied / "10"))
    # What the checksums are for: the library reads it without a word.
    manager = ocp.CheckpointManager(copied)
    read = manager.restore(10, args=ocp.args.Composite(state=ocp.args.StandardRestore(tree(0))))
    manager.close()
    assert not np.array_equal(read["state"]["inner"]["w"], tree(10)["inner"]["w"])

    message = f"checkpoint {copied}/10 is damaged (checksum of ['inner']['w'] does not match); "
    with pytest.warns(UserWarning, match=re.escape(message + "using the one before it.")):
        found, steps = restored(copied)
    assert found is not None
    assert found[0] == 3
    assert_trees_equal(found[1], tree(3))
    assert steps == [2, 3]  # the damaged one is gone, so that its step can be saved again


@pytest.mark.parametrize("damage", ["array", "sums"])
def test_a_missing_file_is_damage_too(copied, damage):
    lost = largest_file(copied / "10") if damage == "array" else copied / "10/checksums/metadata"
    lost.unlink()
    with pytest.warns(UserWarning, match=f"checkpoint {copied}/10 is damaged"):
        found, _ = restored(copied)
    assert found is not None
    assert_trees_equal(found[1], tree(3))


def test_all_damaged_is_none(copied):
    for step in (2, 3, 10):
        flip_a_bit(largest_file(copied / str(step)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert restored(copied) == (None, [])
    named = [str(w.message).split(" is damaged")[0] for w in caught]
    assert named == [f"checkpoint {copied}/{step}" for step in (10, 3, 2)]


@pytest.mark.parametrize("noticed", ["next save", "close"])
def test_a_save_that_failed_in_the_background_is_an_error(tmp_path, monkeypatch, noticed):
    threads = []

    def fail(manager, step):
        threads.append(threading.current_thread())
        raise OSError("No space left on device")

    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr(ocp.CheckpointManager, "_finalize_checkpoint", fail)
    checkpoints.save(1, tree(1))  # returns at once
    notice = {"next save": lambda: checkpoints.save(2, tree(2)), "close": checkpoints.close}
    with pytest.raises(OSError, match="No space left on device"):
        notice[noticed]()
    assert threads[0] is not threading.main_thread()
    monkeypatch.undo()
    checkpoints.close()
