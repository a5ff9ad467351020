"""One device, eight devices and two processes give the same samples and the same training."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).with_name("device_program.py")
pytestmark = pytest.mark.devices


def _start(out: Path, devices: int, processes: int = 1) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, PROGRAM, *map(str, (out, devices, number, processes, port))],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(processes)
    ]


def _finish(out: Path, started: list[subprocess.Popen]) -> dict[str, np.ndarray]:
    for process in started:
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == 0, printed[-4000:]
    with np.load(out) as found:
        return {name: found[name] for name in found.files}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("devices")
    kinds = {"one": (1, 1), "eight": (8, 1), "four": (4, 1), "two processes": (2, 2)}
    outs = {name: folder / f"{name}.npz" for name in kinds}
    # Compilation takes one core most of the time, so they share what cores there are.
    started = {name: _start(outs[name], *kind) for name, kind in kinds.items()}
    return {name: _finish(outs[name], processes) for name, processes in started.items()}


PAIRS = [("one", "eight"), ("four", "two processes")]


def test_device_counts(runs: dict) -> None:
    counts = {name: int(run["devices"]) for name, run in runs.items()}
    assert counts == {"one": 1, "eight": 8, "four": 4, "two processes": 4}
    # What is replicated lies once on every local device.
    assert {name: int(run["parts"]) for name, run in runs.items()} == {
        "one": 1,
        "eight": 8,
        "four": 4,
        "two processes": 2,
    }


@pytest.mark.parametrize(("a", "b"), PAIRS)
@pytest.mark.parametrize("name", ["noise", "step_noise"])
def test_noise_is_equal_bit_for_bit(runs: dict, a: str, b: str, name: str) -> None:
    np.testing.assert_array_equal(runs[a][name], runs[b][name])
    assert runs[a][name].std() > 0.1


@pytest.mark.parametrize(("a", "b"), PAIRS)
@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
@pytest.mark.parametrize("batch", [8, 16, 64])
def test_samples_do_not_depend_on_devices_or_batches(
    runs: dict, a: str, b: str, solver: str, batch: int
) -> None:
    reference = runs[a][f"optimal_{solver}_16"]
    other = runs[b].get(f"optimal_{solver}_{batch}")
    if other is None:
        assert b == "two processes", "only the two processes run fewer batch sizes"
        other = runs[a][f"optimal_{solver}_{batch}"]
    # Images in [-1, 1]; GEMMs of other shapes round differently, and 18 steps carry it on.
    np.testing.assert_allclose(other, reference, atol=2e-5)


@pytest.mark.parametrize(("a", "b"), PAIRS)
@pytest.mark.parametrize("name", ["linear", "local", "code", "decoder"])
def test_samples_of_closed_forms_do_not_depend_on_devices(
    runs: dict, a: str, b: str, name: str
) -> None:
    found = runs[a][f"closed_{name}"]
    assert found.std() > 0.1
    np.testing.assert_allclose(runs[b][f"closed_{name}"], found, atol=2e-5)


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_recorded_trajectories_agree(runs: dict, a: str, b: str) -> None:
    assert runs[a]["way"].shape == (4, 5, 8, 8, 1)
    np.testing.assert_allclose(runs[a]["way"], runs[b]["way"], atol=2e-5)


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_training_sees_the_same_batches(runs: dict, a: str, b: str) -> None:
    # A batch of 20 drawn alike and padded: losses agree to summation order, 20 steps long.
    for name in ("sgd_loss", "sgd_held_out_loss", "adamw_loss", "adamw_held_out_loss"):
        np.testing.assert_allclose(runs[a][name], runs[b][name], rtol=2e-4, err_msg=name)
    np.testing.assert_allclose(runs[a]["sgd_params"], runs[b]["sgd_params"], atol=2e-5)
    # AdamW divides by the gradient's size, so parameters whose true gradient is 0 move by rounding.
    np.testing.assert_allclose(runs[a]["adamw_x_hat"], runs[b]["adamw_x_hat"], atol=2e-3)
    assert runs[a]["sgd_loss"][-5:].mean() < runs[a]["sgd_loss"][:5].mean()


@pytest.mark.parametrize("name", ["one", "eight", "four", "two processes"])
def test_a_shared_run_directory(runs: dict, name: str) -> None:
    # The directory changes nothing, and the run that is read again trains no step.
    np.testing.assert_array_equal(runs[name]["kept_params"], runs[name]["sgd_params"])
    np.testing.assert_array_equal(runs[name]["read_again_params"], runs[name]["sgd_params"])
    assert runs[name]["steps_read_again"] == 0
