"""Rows of training, sampling and closed forms are complete, and say why where there is none."""

import types
from typing import Any

import jax
import numpy as np
import pytest

import jdiff
from benchmarks import (
    closed_forms,
    linear_denoiser,
    optimal_denoiser,
    peers,
    record,
    sampling,
    suite,
    training,
)
from jdiff.sampling.solvers import SOLVERS
from jdiff.study import Architecture

MLP = "mlp:width=8,depth=1"
PER_LEVEL = "mlp:width=8,per_level=karras:4"


def options(*architectures: str, data: str | None = None) -> Any:
    return types.SimpleNamespace(
        architectures=architectures, data=data, data_dir=None, peer_python=()
    )


def rows_of(cases, tmp_path) -> list[dict[str, Any]]:
    return record.read(suite.run("training", "smoke", cases, {}, tmp_path / "found.json"))["rows"]


@pytest.fixture
def nothing_compiled():
    """A command starts so; what another test compiled would have neither seconds nor memory."""
    jax.clear_caches()


def assert_complete(row: dict[str, Any]) -> None:
    """What every row of a network has, and that its numbers agree."""
    assert row["status"] == "ok", row
    assert row["peak_mb"] > 0
    assert row["compile_seconds"] > 0
    assert row["images_per_s"]["p10"] <= row["images_per_s"]["p50"] <= row["images_per_s"]["p90"]
    assert row["model_flops_per_s"] > 0
    np.testing.assert_allclose(row["mfu"], row["model_flops_per_s"] / row["peak_flops_per_s"])


def test_training_tells_the_rows_of_the_architectures_asked_for(tmp_path, nothing_compiled):
    cases = training.cases("smoke", options(MLP, "optimal", PER_LEVEL))
    names = [case.name for case in cases]
    assert names == [
        *("matmul peak", f"train {MLP}", "train optimal", f"train {PER_LEVEL}"),
        "bare step over loop",
    ]
    peak, mlp, optimal, per_level = rows_of(cases[:-1], tmp_path)
    assert set(peak["flops_per_s"]) == {"float32", "bfloat16"}
    assert_complete(mlp)
    # Three forward passes a step.
    forwards = mlp["model_flops_per_s"] / (mlp["flops_per_image"] * mlp["images_per_s"]["p50"])
    np.testing.assert_allclose(forwards, 3)
    np.testing.assert_allclose(mlp["step_seconds"], mlp["batch"] / mlp["images_per_s"]["p50"])
    assert optimal["status"] == per_level["status"] == "skipped"
    assert optimal["reason"] == "nothing to train: optimal is a closed form"
    assert per_level["reason"].startswith("one network a level")


def test_options_of_an_architecture_are_refused_before_anything_runs():
    for one in (training, sampling):
        with pytest.raises(ValueError, match="widht.*width"):
            one.cases("smoke", options("unet:widht=3"))


def test_what_an_accelerator_compiles_once_is_the_same_program():
    at = training.SIZES["accelerator"]
    match = training.Match(at["peer_shape"], at["peer_batch"], at["channels"], at["peer_steps"], 1)
    first = Architecture.parse(at["architectures"][0])
    assert match.network == first.network(at["shape"])
    assert first.preconditioning is None
    assert (match.batch, match.steps) == (at["batch"], at["steps"])
    # One of another framework, as its experts would set it; none that holds the device as well.
    assert at["peers"] == (("diffusers_unet", "tuned"),)


@pytest.mark.parametrize("case", ["hackable_diffusion_unet default", "dewml_unet default", "diffu"
                                  "sers_unet tuned and jdiff tuned"])  # fmt: skip
def test_no_second_jax_is_started_on_a_tpu(case, monkeypatch):
    def start(*given, **more):
        raise AssertionError("a worker was started")

    monkeypatch.setattr(peers, "Peer", start)
    found = {c.name: c.run for c in training.cases("smoke", options())}[f"{case}, train"]
    with pytest.raises(AssertionError, match="a worker was started"):
        found()
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pytest.raises(suite.Skip, match="this process holds the device"):
        found()


def test_a_torch_of_another_device_is_told_before_jdiff_is_started(monkeypatch):
    started = []

    class Fake:
        def __init__(self, name, *given):
            started.append(name)
            self.about = {"device": "Some GPU"}

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(peers, "Peer", Fake)
    cases: dict[str, Any] = {case.name: case.run for case in training.cases("smoke", options())}
    with pytest.raises(suite.Skip, match="it runs on Some GPU"):
        cases["diffusers_unet tuned and jdiff tuned, train"]()
    assert started == ["diffusers_unet"]


@pytest.mark.parametrize("size", list(sampling.SIZES))
def test_solvers_are_compared_at_nearly_equal_nfe(size):
    nfes = sampling.SIZES[size]["nfe"]
    wanted = nfes[len(nfes) // 2]
    for solver in SOLVERS:
        steps = sampling.steps_for(solver, wanted)
        found = SOLVERS[solver].nfe(steps)
        assert found <= wanted < SOLVERS[solver].nfe(steps + 1)
        assert found >= wanted - 1


def test_heun_takes_half_the_steps():
    assert sampling.steps_for("ddim", 18) == 18
    assert sampling.steps_for("heun", 18) == 9  # 17 evaluations; ten steps cost 19
    assert sampling.steps_for("heun", 1) == 1


def test_sampling_tells_the_share_of_the_peak_of_networks(tmp_path, nothing_compiled):
    cases = sampling.cases("smoke", options(MLP, "linear", PER_LEVEL))
    found = {}
    for row in rows_of([c for c in cases if "loop" not in c.name], tmp_path):
        found.setdefault(row["case"], []).append(row)
    (mlp,), (linear,), (per_level,) = (found[f"sample {s}"] for s in (MLP, "linear", PER_LEVEL))
    assert_complete(mlp)
    per_image = mlp["model_flops_per_s"] / mlp["evaluations_per_s"]
    network = Architecture.parse(MLP).network(sampling.SIZES["smoke"]["shape"])
    assert per_image == pytest.approx(jdiff.networks.flops_per_image(network, (8, 8, 1)))
    assert linear["peak_mb"] > 0
    assert "mfu" not in linear
    assert per_level["status"] == "skipped"
    # Solvers and the sweep are of the network.
    for solver, row in zip(SOLVERS, found[f"solvers, {MLP}"], strict=True):
        assert_complete(row)
        assert row["part"] == row["solver"] == solver
    *rows, fit = found[f"sweep of NFE, {MLP}"]
    assert [row["nfe"] for row in rows] == list(sampling.SIZES["smoke"]["nfe"])
    assert fit["part"] == "seconds against NFE"
    assert np.isfinite(fit["exponent"])


def test_one_device_is_not_held_against_several(monkeypatch):
    cases = sampling.cases("smoke", options(MLP))
    monkeypatch.setattr(sampling.parallel, "num_devices", lambda: 2)
    with pytest.raises(suite.Skip, match="compare on one device"):
        cases[-1].run()


def test_closed_forms_of_few_images_have_sizes_in_proportion():
    """Digits are fewer than the sizes of the sweep."""
    cases: dict[str, Any] = {
        case.name: case.run for case in closed_forms.cases("cpu", options(data="digits"))
    }
    *rows, seconds, memory = cases["optimal, sweep of images"]()
    assert [row["images"] for row in rows] == [179, 359, 718, 1437]
    assert {row["queries"] for row in rows} == {64}
    assert seconds["part"] == "seconds against images"
    # Images are uint8 of 64 pixels, beside temporaries that do not depend on their number.
    assert memory["part"] == "peak MB against images"
    assert 0 < memory["exponent"] < 1
    grown = rows[-1]["peak_mb"] - rows[0]["peak_mb"]
    assert grown >= (1437 - 179) * 64 / 2**20
    *rows, _, memory = cases["optimal, sweep of queries"]()
    assert [row["queries"] for row in rows] == [16, 64, 256]
    assert {row["images"] for row in rows} == {1437}
    assert memory["part"] == "peak MB against queries"


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (np.zeros((79, 8, 8, 1), np.uint8), "at least 80 images.*has 79"),
        (np.zeros((90, 8, 8, 1), np.float32), "uint8"),
    ],
)
def test_too_few_images_and_floats_are_refused(images, match, monkeypatch):
    data = jdiff.data.from_arrays(images, held_out=images[:9])
    monkeypatch.setattr(optimal_denoiser, "load", lambda spec, folder: data)
    with pytest.raises(ValueError, match=match):
        closed_forms.cases("cpu", options(data="npz:few.npz"))


def test_eighty_images_are_enough(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 1), np.uint8)
    data = jdiff.data.from_arrays(images, held_out=images[:9])
    monkeypatch.setattr(optimal_denoiser, "load", lambda spec, folder: data)
    cases: dict[str, Any] = {
        c.name: c.run for c in closed_forms.cases("smoke", options(data="npz:few.npz"))
    }
    found = cases["optimal, accuracy"]()
    assert found["images"][0] == 80
    # Against float64, as far as float32 rounding lets it.
    assert found["image_error_of_range"] < 1e-4
    high, low = cases["optimal, against the formula"]()
    assert (high["images"], high["sigma"], low["sigma"]) == (80, 20.0, 1.0)
    # Distances of 64 values of order 20 cancel to float32's last digits: weights to about 1e-4.
    assert high["largest_difference"] < 1e-3


def test_fits_of_random_features_have_exponents(monkeypatch):
    monkeypatch.setattr(linear_denoiser, "fit_once", None)  # no fit: its numbers are given
    answers = iter([(3.0, 80.0), (6.0, float("nan"))])
    monkeypatch.setattr(linear_denoiser.child, "numbers", lambda code, count: next(answers))
    cases: dict[str, Any] = {c.name: c.run for c in closed_forms.cases("smoke", options())}
    *rows, fit = cases["random features, fits"]()
    assert [row["peak_mb_beyond_data"] for row in rows] == [80.0, None]
    # 200 and 400 images; memory was not told at both.
    assert fit["part"] == "seconds against images"
    np.testing.assert_allclose(fit["exponent"], 1.0, rtol=1e-12)
