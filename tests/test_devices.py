"""One device, eight devices and two processes give the same samples and the same training.

So they do where a training set is split over them, and where samples are measured.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jdiff import metrics

PROGRAM = Path(__file__).with_name("device_program.py")
SHARD_PROGRAM = Path(__file__).with_name("shard_program.py")
pytestmark = pytest.mark.devices


def _start(program: Path, out: Path, devices: int, processes: int) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, program, *map(str, (out, devices, number, processes, port))],
            # In the everyday run as in conftest.py: compiling is most of the time.
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_DISABLE_MOST_OPTIMIZATIONS": str(int(program == PROGRAM)),
            },
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


def _run_all(program: Path, folder: Path, kinds: dict[str, tuple[int, int]]) -> dict:
    """What the program found, by the name of (devices a process, processes)."""
    outs = {name: folder / f"{name}.npz" for name in kinds}
    # Compilation takes one core most of the time, so they share what cores there are.
    started = {name: _start(program, outs[name], *kind) for name, kind in kinds.items()}
    return {name: _finish(outs[name], processes) for name, processes in started.items()}


KINDS = {"one": (1, 1), "eight": (8, 1), "two processes": (2, 2)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    return _run_all(PROGRAM, tmp_path_factory.mktemp("devices"), KINDS)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    return _run_all(SHARD_PROGRAM, tmp_path_factory.mktemp("shards"), KINDS)


# What differs from one device.
OTHERS = ["eight", "two processes"]


def test_device_counts(runs: dict) -> None:
    counts = {name: int(run["devices"]) for name, run in runs.items()}
    assert counts == {"one": 1, "eight": 8, "two processes": 4}
    # What is replicated lies once on every local device.
    parts = {name: int(run["parts"]) for name, run in runs.items()}
    assert parts == {"one": 1, "eight": 8, "two processes": 2}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", ["noise", "step_noise"])
def test_noise_is_equal_bit_for_bit(runs: dict, other: str, name: str) -> None:
    np.testing.assert_array_equal(runs["one"][name], runs[other][name])
    assert runs["one"][name].std() > 0.1


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
@pytest.mark.parametrize(
    ("other", "batch"), [("eight", 8), ("eight", 16), ("eight", 64), ("two processes", 16)]
)
def test_samples_do_not_depend_on_devices_or_batches(
    runs: dict, other: str, solver: str, batch: int
) -> None:
    expected, found = runs["one"][f"optimal_{solver}_16"], runs[other][f"optimal_{solver}_{batch}"]
    # Images in [-1, 1]; GEMMs of other shapes round differently, and 18 steps carry it on.
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert expected.std() > 0.1


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", ["linear", "local", "code", "decoder"])
def test_samples_of_closed_forms_do_not_depend_on_devices(
    runs: dict, other: str, name: str
) -> None:
    found = runs["one"][f"closed_{name}"]
    assert found.std() > 0.1
    np.testing.assert_allclose(runs[other][f"closed_{name}"], found, atol=2e-5)


@pytest.mark.parametrize("other", OTHERS)
def test_recorded_trajectories_agree(runs: dict, other: str) -> None:
    assert runs["one"]["way"].shape == (4, 5, 8, 8, 1)
    np.testing.assert_allclose(runs["one"]["way"], runs[other]["way"], atol=2e-5)


@pytest.mark.parametrize("other", OTHERS)
def test_training_sees_the_same_batches(runs: dict, other: str) -> None:
    a, b = runs["one"], runs[other]
    # A batch of 20 drawn alike and padded: losses agree to summation order, 20 steps long.
    for name in ("sgd_loss", "sgd_held_out_loss", "adamw_loss", "adamw_held_out_loss"):
        np.testing.assert_allclose(a[name], b[name], rtol=2e-4, err_msg=name)
    np.testing.assert_allclose(a["sgd_params"], b["sgd_params"], atol=2e-5)
    # AdamW divides by the gradient's size, so parameters whose true gradient is 0 move by rounding.
    np.testing.assert_allclose(a["adamw_x_hat"], b["adamw_x_hat"], atol=2e-3)
    assert a["sgd_loss"][-5:].mean() < a["sgd_loss"][:5].mean()


def test_batch_statistics_are_of_all_devices(runs: dict) -> None:
    one = runs["one"]
    for other in OTHERS:
        # The mean of the devices' means is the batch's, to summation order; a device's own is not:
        # means of 2 or 4 images of 64 pixels differ by a tenth of their deviation.
        np.testing.assert_allclose(runs[other]["running_mean"], one["running_mean"], rtol=1e-4)
        # Variances are those within a device, and so a little smaller.
        share = runs[other]["running_var"] / one["running_var"]
        assert np.all((share > 0.5) & (share < 0.9999))
        devices = int(runs[other]["devices"])
        assert f"must divide over the {devices} devices" in str(runs[other]["refusal of 15 images"])
    assert "refusal of 15 images" not in one


@pytest.mark.parametrize("name", KINDS)
def test_a_shared_run_directory(runs: dict, name: str) -> None:
    # The directory changes nothing, and the run that is read again trains no step.
    np.testing.assert_array_equal(runs[name]["kept_params"], runs[name]["sgd_params"])
    np.testing.assert_array_equal(runs[name]["read_again_params"], runs[name]["sgd_params"])
    assert runs[name]["steps_read_again"] == 0


# Measures, whose rows are divided over the devices of a process: 101 samples, 203 training images.

MEASURES = [name for name in metrics.__all__ if not isinstance(getattr(metrics, name), type)]
# What comes from float32 programs, which round differently in other shapes. The rest is float64 on
# the host, of neighbours, balls and windows that are found exactly.
ROUNDED = ("psnr_gap", "equivariance_error", "explained_by", "locality_profile", "jacobian_eigen")
ROUNDED += ("radial_spectrum", "spectrum_distance")


@pytest.mark.parametrize("name", MEASURES)
def test_measures_do_not_depend_on_devices(runs: dict, name: str) -> None:
    numbers = lambda run: {
        key: run[key] for key in run if key == f"measure {name}" or f"measure {name}." in key
    }
    one, eight = numbers(runs["one"]), numbers(runs["eight"])
    assert one
    assert set(one) == set(eight)
    for key, expected in one.items():
        if expected.dtype.kind != "f":
            np.testing.assert_array_equal(eight[key], expected, err_msg=key)
            continue
        assert np.all(np.isfinite(expected)), key
        # A float32 mean of squares is right to 1e-6, which is 4e-6 dB. In float64 a library may
        # cut a product in other pieces where it has other threads.
        rtol, atol = (1e-5, 2e-5) if name in ROUNDED else (1e-12, 0)
        np.testing.assert_allclose(eight[key], expected, rtol=rtol, atol=atol, err_msg=key)


@pytest.mark.parametrize(
    ("kernel", "calls", "rows"),
    [
        ("balls", 8, {13}),
        ("patches", 4, {13, 168}),  # 21 images of 64 windows
        ("spectrum", 4, {13, 26}),
        ("denoising", 32, {13, 2, 1}),
    ],
)
def test_measures_divide_their_rows(runs: dict, kernel: str, calls: int, rows: set) -> None:
    one, eight = (
        [runs[name][f"{what} {kernel}"] for what in ("rows", "first rows")]
        for name in ("one", "eight")
    )
    assert one[0].shape[1] == 1
    assert eight[0].shape[1] == 8
    apart = eight[1][:, 1] > 0
    assert apart.sum() == calls
    assert {tuple(row) for row in eight[0][apart]} == {(each,) * 8 for each in rows}
    np.testing.assert_array_equal(eight[1][apart], eight[0][apart] * np.arange(8))
    # A denoiser that is split itself answers for all 11 images everywhere: two sets, two levels.
    whole = eight[0][~apart]
    assert whole.tolist() == ([[11] * 8] * 4 if kernel == "denoising" else [])


def test_a_measured_denoiser_lies_on_every_device(runs: dict) -> None:
    assert runs["one"]["denoisers' devices"].tolist() == [[203], [0]]
    assert runs["eight"]["denoisers' devices"].tolist() == [[203] * 8, [0] * 8]


def test_a_split_training_set_is_not_saved(runs: dict) -> None:
    assert "Save the denoiser that was given to shard" in str(runs["eight"]["refusal to save"])


# Training sets of 1,003 images, and of 5, split over the devices.

SETS = ["weights", "classes", "five", "decoder", "code"]


@pytest.mark.slow  # one, eight and two by two devices: minutes
def test_each_device_holds_its_part_of_the_training_set(shards: dict) -> None:
    assert {name: int(run["devices"]) for name, run in shards.items()} == {
        "one": 1,
        "eight": 8,
        "two processes": 4,
    }
    for name, per_device, five in (("eight", 126, 1), ("two processes", 252, 2)):
        run = shards[name]
        local = int(run["local"])
        for kind in SETS:
            fields = ["images", "log_weights", *(["values"] if kind == "decoder" else [])]
            for field in fields:
                parts = run[f"parts {kind} {field}"]
                rows = five if kind == "five" else per_device
                # "code" is one block a device, without rows that only fill a block.
                rows = 251 if (kind, name) == ("code", "two processes") else rows
                assert parts.tolist() == [rows] * local
                assert run[f"devices {kind} {field}"] == local
                # In order, so that an image keeps its number.
                np.testing.assert_array_equal(run[f"first {kind} {field}"], rows * np.arange(local))


@pytest.mark.slow  # one, eight and two by two devices: minutes
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kind", SETS)
def test_a_split_training_set_denoises_as_a_whole_one(shards: dict, kind: str, name: str) -> None:
    # Noise levels 50 to 0.005; sums in another order, of images in [-1, 1].
    expected, found = shards["one"][f"{kind} call"], shards[name][f"{kind} call"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert expected.std() > 0.1


@pytest.mark.slow  # one, eight and two by two devices: minutes
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kind", SETS)
def test_a_split_training_set_is_sampled_as_a_whole_one(shards: dict, kind: str, name: str) -> None:
    one, run = shards["one"], shards[name]
    assert one[f"{kind} way"].shape == (8, 9, 8, 8, 1)
    for what in ("end", "way", "samples"):
        if f"{kind} {what}" in one:
            # The way from sigma 20 carries rounding of 20 x 2^-24 a step on.
            np.testing.assert_allclose(run[f"{kind} {what}"], one[f"{kind} {what}"], atol=2e-5)
    assert one["classes samples"].shape == (21, 8, 8, 1)


@pytest.mark.slow  # one, eight and two by two devices: minutes
@pytest.mark.parametrize("name", OTHERS)
def test_a_split_training_set_inside_another_denoiser(shards: dict, name: str) -> None:
    expected, found = shards["one"]["weights halved way"], shards[name]["weights halved way"]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(expected).max() <= 0.5 + 1e-6


@pytest.mark.slow  # one, eight and two by two devices: minutes
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kind", ["weights", "five"])
def test_a_split_training_set_names_the_same_images(shards: dict, kind: str, name: str) -> None:
    one, run = shards["one"], shards[name]
    k = one[f"{kind} named indices"].shape[1]
    assert k == {"weights": 32, "five": 5}[kind]
    np.testing.assert_allclose(run[f"{kind} named mean"], one[f"{kind} named mean"], atol=1e-5)
    weights, expected = run[f"{kind} named weights"], one[f"{kind} named weights"]
    np.testing.assert_allclose(weights[:, :k], expected, atol=1e-5)
    np.testing.assert_array_equal(weights[:, k:], 0)
    # Of five images on eight devices the places that none fills name a number that none has.
    assert np.all(run[f"{kind} named indices"][:, k:] >= 5)
    heavy = expected > 1e-3  # of the others the order may turn with the last bit
    numbers, others = (r[f"{kind} named indices"][:, :k] for r in (run, one))
    np.testing.assert_array_equal(numbers[heavy], others[heavy])
    if kind == "weights":
        assert np.all(weights[:, 0] > 0)
        # Twins on the first device and the last blend at the smallest levels.
        blends = (weights[28:].max(1) > 0.1) & (weights[28:].max(1) < 0.9)
        pairs = np.sort(numbers[28:][blends][:, :2], axis=1)
        assert len(pairs)
        assert np.all(pairs[:, 1] - pairs[:, 0] == 990)


@pytest.mark.slow  # one, eight and two by two devices: minutes
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("way", ["vjp", "jvp"])
def test_a_split_training_set_has_the_same_derivative(shards: dict, way: str, name: str) -> None:
    expected = shards["one"][f"weights {way}"]
    # Covariances of the posterior over sigma^2 = 1/4, times directions of about 3 sigma.
    np.testing.assert_allclose(shards[name][f"weights {way}"], expected, atol=2e-5)
    assert np.abs(expected).max() > 0.5


@pytest.mark.slow  # one, eight and two by two devices: minutes
def test_a_split_training_set_is_not_gathered(shards: dict) -> None:
    run = shards["eight"]
    assert [int(run[f"gathers {n}"]) for n in (4096, 8 * 4096)] == [0, 0]
    assert run["gathers twin"] == 1
    # A device is given its eighth: an image is 64 bytes, with 8 bytes of norm and weight.
    small, large = (int(run[f"argument bytes {n}"]) for n in (4096, 8 * 4096))
    assert large - small == 7 * 4096 // 8 * (64 + 8)
    assert run["temporary"][0] == run["temporary"][1]


@pytest.mark.slow  # one, eight and two by two devices: minutes
def test_a_split_training_set_inside_a_plain_function_is_refused(shards: dict) -> None:
    assert "hold it in a field of a flax.struct.PyTreeNode" in str(shards["eight"]["refusal"])


OF_DENOISERS = ["psnr", "equivariance", "locality", "explained"]
OF_SAMPLES = ["balls", "mosaic", "spectra"]


@pytest.mark.slow  # one, eight and two by two devices: minutes
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("measure", [*OF_DENOISERS, *OF_SAMPLES])
def test_measures_over_devices_and_processes(shards: dict, measure: str, name: str) -> None:
    keys = [key for key in shards["one"] if key.startswith(f"measured {measure}")]
    assert keys
    for key in keys:
        expected = shards["one"][key]
        assert np.any(expected != 0)
        # float32 means of 64 squares, in dB; the rest are shares, ratios and whole numbers.
        np.testing.assert_allclose(shards[name][key], expected, rtol=1e-5, atol=2e-5, err_msg=key)


NEIGHBOURS = ["images", "blocks", "among", "self", "repeats", "three", "cosine"]


@pytest.mark.slow  # one, eight and two by two devices: minutes
def test_references_are_divided_over_the_devices(shards: dict) -> None:
    for name, rows in (("one", [1003]), ("eight", [126] * 8), ("two processes", [502] * 2)):
        run = shards[name]
        assert run["rows"].tolist() == rows
        assert run["rows' devices"] == len(rows)
        assert str(run["rows' dtype"]) == "uint8"
        # The device was asked, and among repeats for longer lists than one device's part.
        assert set(run["mesh sizes"].tolist()) == {len(rows)}
        assert run["widths"].max() == 280


@pytest.mark.slow  # one, eight and two by two devices: minutes
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("case", NEIGHBOURS)
def test_neighbours_do_not_depend_on_devices(shards: dict, case: str, name: str) -> None:
    one, run = shards["one"], shards[name]
    np.testing.assert_array_equal(run[f"numbers {case}"], one[f"numbers {case}"])
    np.testing.assert_array_equal(run[f"near {case}"], one[f"near {case}"])
    assert one[f"near {case}"].std() > 0


@pytest.mark.slow  # one, eight and two by two devices: minutes
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("case", ["balls", "balls of fifty"])
def test_balls_do_not_depend_on_devices(shards: dict, case: str, name: str) -> None:
    expected = shards["one"][f"near {case}"]
    assert 0 < expected.sum() < len(expected)
    np.testing.assert_array_equal(shards[name][f"near {case}"], expected)
