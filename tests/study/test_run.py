"""A study directory: what is in it, what a second start does, and what stops what."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdiff
from jdiff import data as datasets
from jdiff import noise
from jdiff.sampling import sample_key
from jdiff.study import PRESETS, Budget, LawStudy, Study, cost, run

MLP = "mlp:width=16,depth=2"
RUNS = ["optimal-n24-s0", "linear-n24-s0", *(f"mlp-width-16-depth-2-n24-s{s}" for s in (0, 1, 2))]
KEYS = [  # contracts.md, Files
    *("label", "architecture", "options", "all_options", "preconditioning"),
    *("data", "num_train", "seed"),
    *("status", "error", "num_params", "flops_per_image", "budget", "seconds", "images_per_s"),
    *("receptive_field", "sigmas", "left_out"),
    *("nfe", "measures", "verdict", "samples"),
]


def images_of(run_dir):
    with np.load(run_dir / "samples.npz") as file:
        return file["images"]


@pytest.mark.core
def test_the_files_of_a_study(finished):
    assert sorted(p.name for p in finished.iterdir()) == [
        *("data.npz", "report.html", "results.json", "runs", "study.json")
    ]
    assert sorted(p.name for p in (finished / "runs").iterdir()) == sorted(RUNS)
    always = {"config.json", "row.json", "samples.npz", "neighbors.npz"}
    for name in RUNS:
        found = {p.name for p in (finished / "runs" / name).iterdir()}
        more = {"metrics.jsonl", "checkpoints"} if name.startswith("mlp") else {"denoiser.npz"}
        assert found == always | more


def test_three_seeds_are_three_rows_of_a_network_and_one_of_a_closed_form(finished, records):
    assert list(records(finished)) == [
        *("optimal n24 s0", "linear n24 s0"),
        *(f"{MLP} n24 s{seed}" for seed in (0, 1, 2)),
    ]
    # Another seed is another initialisation and other batches, and so other samples.
    a, b = (images_of(finished / "runs" / name) for name in RUNS[2:4])
    assert np.abs(a - b).max() > 0.1


@pytest.mark.core
def test_results_json_is_as_the_contract_says(finished, make_study):
    results = json.loads((finished / "results.json").read_text())
    assert list(results) == [
        *("schema", "study", "command", "device", "versions", "rows", "claims"),
        "notes",
    ]
    assert results["schema"] == 1
    assert results["study"]["num_samples"] == 24
    assert results["study"]["budget"] == {"amount": 10, "unit": "steps", "image_shape": None}
    assert {"jdiff", "python", "jax", "jaxlib", "numpy"} <= set(results["versions"])
    assert results["versions"]["jax"] == jax.__version__
    for row in results["rows"]:
        assert sorted(row) == sorted(KEYS)
        assert (row["status"], row["error"], row["num_train"]) == ("ok", None, 24)
        assert row["nfe"] == 7  # heun, four steps
        assert {"compile", "train", "sample"} <= set(row["seconds"])
        assert set(row["images_per_s"]) == {"train", "sample"}
        assert row["images_per_s"]["sample"] == pytest.approx(24 / row["seconds"]["sample"])
        assert set(row["verdict"]) == {"word", "reason"}
        for name in ("memorized_fraction", "nearest_rms", "precision", "frechet_distance"):
            measure = row["measures"][name]
            assert set(measure) == {
                *("value", "interval", "control", "control_interval", "n", "features"),
                "constants",
            }
            assert len(measure["interval"]) == len(measure["control_interval"]) == 2
            assert measure["features"] == "pixels"


def test_what_a_network_and_a_closed_form_say_of_themselves(finished, records):
    found = records(finished)
    optimal, linear, mlp = (found[k] for k in ("optimal n24 s0", "linear n24 s0", f"{MLP} n24 s1"))
    for row in (optimal, linear):
        assert row["budget"] is row["preconditioning"] is row["seconds"]["train"] is None
        assert row["options"] == {}
    assert mlp["options"] == {"width": 16, "depth": 2}
    assert mlp["all_options"]["output"] == "tanh"  # what the string left out
    assert mlp["all_options"].items() >= mlp["options"].items()
    assert optimal["all_options"] is None
    assert mlp["preconditioning"] == "x0"
    assert mlp["budget"] == {
        "steps": 10,
        "networks": 1,
        "images": 80,
        "flops": 3 * 80 * mlp["flops_per_image"],
    }
    assert mlp["seconds"]["train"] > 0
    assert mlp["images_per_s"]["train"] > 0
    assert mlp["samples"] == "runs/mlp-width-16-depth-2-n24-s1/samples.npz"


@pytest.mark.core
def test_closed_forms_are_measured_for_what_they_are(finished, records):
    found = records(finished)
    optimal = found["optimal n24 s0"]
    assert optimal["measures"]["memorized_fraction"]["value"] == 1.0
    assert optimal["verdict"]["word"] == "memorizes"
    assert optimal["measures"]["pearson_r_to_optimal"]["value"] == pytest.approx(1, abs=1e-6)
    assert found["linear n24 s0"]["measures"]["memorized_fraction"]["value"] < 0.5
    assert found["linear n24 s0"]["measures"]["pearson_r_to_optimal"]["value"] < 0.95


@pytest.mark.core
def test_all_rows_share_the_training_subset_that_the_studys_seed_draws(finished, data):
    whole = datasets.load(data)
    key = jax.random.fold_in(jax.random.key(3), 0)
    subset = whole.subset(24, key)
    for name in RUNS:
        settings = json.loads((finished / "runs" / name / "row.json").read_text())["settings"]
        assert settings["data"]["fingerprint"] == subset.fingerprint() != whole.fingerprint()
        with np.load(finished / "runs" / name / "neighbors.npz") as file:
            nearest = file["nearest"]
        rows = {image.tobytes() for image in subset.images}
        assert all(image.tobytes() in rows for image in nearest)


@pytest.mark.parametrize("name", RUNS)
def test_all_rows_start_from_the_same_noise(finished, name):
    grid = noise.karras(4)
    key = jax.random.fold_in(jax.random.key(3), 1)
    normal = lambda i: jax.random.normal(jax.random.fold_in(sample_key(key, i), 0), (8, 8, 1))
    y = grid[0] * jax.vmap(normal)(jnp.arange(32))  # the study's batch: 24 in whole powers of 2
    denoiser = jdiff.load(finished / "runs" / name)
    found = jdiff.solve(denoiser, y, grid, solver="heun")[:24]
    # Another program of the same sums. Roundings of y, 1e-6 at sigma 0.5, are divided by 0.002 and
    # multiplied by 0.5 / 2 in Heun's last step; other noise would differ by about 1.
    np.testing.assert_allclose(found, images_of(finished / "runs" / name), atol=2e-3)


def test_samples_say_how_they_were_made(finished):
    with np.load(finished / "runs" / RUNS[0] / "samples.npz") as file:
        assert file["images"].shape == (24, 8, 8, 1)
        assert file["images"].dtype == np.float32
        np.testing.assert_array_equal(file["sigmas"], noise.karras(4))
        assert (int(file["seed"]), str(file["solver"])) == (3, "heun")


@pytest.mark.core
def test_started_again_it_does_nothing_twice(copied, make_study, snapshot, capsys):
    before = snapshot(copied / "runs")
    rows = run(make_study(seeds=(0, 1, 2)), copied)
    assert [row.record["status"] for row in rows] == ["ok"] * 5
    assert snapshot(copied / "runs") == before  # neither written again nor added to
    said = capsys.readouterr().err
    assert said.count("done before, kept") == 5
    assert "[5/5] mlp-width-16-depth-2-n24-s2: done before, kept" in said
    assert "Roughly" in said


@pytest.mark.core
def test_an_added_architecture_alone_is_run(copied, make_study, snapshot, records):
    before, old = snapshot(copied / "runs"), records(copied)
    study = make_study(architectures=("optimal", "linear", MLP, "linear:rank=2"), seeds=(0, 1, 2))
    run(study, copied, progress=False)
    after = snapshot(copied / "runs")
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"linear-rank-2-n24-s0"}
    new = records(copied)
    assert new.keys() - old.keys() == {"linear:rank=2 n24 s0"}
    assert {name: new[name] for name in old} == old
    # linear, rank 2: mean, two axes, two eigenvalues.
    assert new["linear:rank=2 n24 s0"]["num_params"] == 64 + 2 * 64 + 2


@pytest.mark.core
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_samples": 30}, "study.num_samples is 24 there and 30 here"),
        ({"solver": "ddim"}, "study.solver is 'heun' there and 'ddim' here"),
        ({"budget": Budget(11)}, "study.budget.amount is 10 there and 11 here"),
        ({"seed": 4}, "study.seed is 3 there and 4 here"),
        ({"data": "toy:ring"}, "data.name is 'npz:"),
    ],
    ids=["num_samples", "solver", "budget", "seed", "data"],
)
def test_another_study_is_refused_and_nothing_touched(
    copied, make_study, snapshot, fields, message
):
    before = snapshot(copied)
    with pytest.raises(ValueError, match="belongs to another study") as raised:
        run(make_study(**fields), copied, progress=False)
    assert message in str(raised.value)
    assert "--force" in str(raised.value)
    assert snapshot(copied) == before


@pytest.mark.core
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architectures": ("mlp:widht=3",)}, "option of mlp is 'widht'"),
        ({"architectures": ("optimal", "unet:levels=9")}, "levels must be at most 4"),
        ({"num_train": (24, 33)}, "num_train must be from 6 to 32; got 33"),
        ({"data": "npz:nowhere.npz"}, "there is no file nowhere.npz"),
    ],
    ids=["option", "levels", "num_train", "data"],
)
@pytest.mark.parametrize("force", [False, True])
def test_what_cannot_be_run_is_refused_before_a_file_is_touched(
    copied, tmp_path, make_study, snapshot, fields, message, force
):
    before = snapshot(copied)
    for out in (tmp_path / "new", copied):
        with pytest.raises((ValueError, TypeError), match=message):
            run(make_study(**fields), out, force=force, progress=False)
    assert not (tmp_path / "new").exists()
    assert snapshot(copied) == before


@pytest.mark.core
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": (0, 2)}, "seeds leaves out 1, which the study in"),
        ({"architectures": ("linear", MLP)}, "architectures leaves out 'optimal'"),
        ({"num_train": (None,)}, "num_train leaves out 24"),
    ],
    ids=["seeds", "architectures", "num_train"],
)
def test_rows_that_are_there_are_not_dropped_in_silence(
    copied, make_study, snapshot, fields, message
):
    before = snapshot(copied)
    with pytest.raises(ValueError, match=message):
        run(make_study(**{"seeds": (0, 1, 2), **fields}), copied, progress=False)
    assert snapshot(copied) == before


@pytest.mark.core
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_images": 5, "test_images": 20}, "at least 6 training images for a study; npz:"),
        ({"train_images": 6, "test_images": 19}, "at least 20 held-out images for a study; npz:"),
        ({"train_images": 6, "test_images": 20, "weights": 6}, "data has weights, which the"),
    ],
    ids=["training", "held-out", "weights"],
)
def test_data_that_cannot_be_judged_by_is_refused_first(tmp_path, make_study, arrays, message):
    shapes = {name: (n,) if name == "weights" else (n, 4, 4, 1) for name, n in arrays.items()}
    kinds = {"weights": np.float64}
    values: Any = {name: np.ones(s, kinds.get(name, np.uint8)) for name, s in shapes.items()}
    np.savez(tmp_path / "d.npz", **values)
    study = make_study(data=f"npz:{tmp_path / 'd.npz'}", num_train=(None,))
    with pytest.raises(ValueError, match=message):
        run(study, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.core
def test_the_study_that_a_directory_belongs_to_is_named_and_not_its_every_field(copied):
    message = r"belongs to the study 'tiny', and this is 'laws'\. Choose another directory"
    with pytest.raises(ValueError, match=message) as raised:
        run(LawStudy(), copied, progress=False)
    assert "num_samples" not in str(raised.value)


@pytest.mark.core
def test_a_file_is_no_directory_for_a_study(tmp_path, make_study):
    (tmp_path / "notes").write_text("mine")
    for out in (tmp_path / "notes", tmp_path / "notes" / "new"):
        with pytest.raises(ValueError, match=r"out_dir .* must be a directory; .*notes is a file"):
            run(make_study(architectures=("linear",)), out, progress=False)
    assert (tmp_path / "notes").read_text() == "mine"


@pytest.mark.core
def test_a_form_fitted_at_levels_that_the_study_does_not_sample_at_is_refused(make_study):
    spec = "polynomial:degree=1,sigmas="
    make_study(architectures=(f"{spec}karras:4",))  # its own grid is the study's
    message = (
        r"architecture polynomial:degree=1,sigmas=karras:5 is fitted at the levels of karras:5 and "
        r"could not be sampled at those of sigmas karras:4: leave out its option sigmas"
    )
    with pytest.raises(ValueError, match=message):
        make_study(architectures=("linear", f"{spec}karras:5"))
    with pytest.raises(ValueError, match="sigmas is '5'. Accepted: karras"):
        make_study(architectures=(f"{spec}5",))


def test_a_directory_of_something_else_is_refused(tmp_path, make_study):
    (tmp_path / "thesis.tex").write_text("my only copy")
    for force in (False, True):
        with pytest.raises(ValueError, match="holds files but no study.json"):
            run(make_study(architectures=("linear",)), tmp_path, force=force, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_force_starts_anew_and_leaves_what_is_not_the_studys(copied, make_study, records):
    (copied / "notes.txt").write_text("mine")
    run(make_study(architectures=("linear",), num_samples=30), copied, force=True, progress=False)
    assert list(records(copied)) == ["linear n24 s0"]
    assert [p.name for p in (copied / "runs").iterdir()] == ["linear-n24-s0"]
    assert len(images_of(copied / "runs" / "linear-n24-s0")) == 30
    assert (copied / "notes.txt").read_text() == "mine"


def test_training_sizes_are_rows_of_their_own(tmp_path, make_study, records):
    study = make_study(architectures=("linear",), num_train=(24, None))
    run(study, tmp_path / "out", progress=False)
    assert list(records(tmp_path / "out")) == ["linear n24 s0", "linear n32 s0"]


def test_the_rows_that_are_returned_are_those_of_results_json(copied, make_study, records):
    rows = run(make_study(seeds=(0, 1, 2)), copied, progress=False, command="jdiff study tiny")
    assert [row.record for row in rows] == list(records(copied).values())
    assert json.loads((copied / "results.json").read_text())["command"] == "jdiff study tiny"
    pictures = [row.pictures for row in rows if row.pictures]
    np.testing.assert_array_equal(pictures[0].samples, images_of(copied / "runs" / RUNS[0]))
    history = [shown.history for shown in pictures]
    assert history[:2] == [None, None]
    assert [len(curves["loss"]) for curves in history[2:] if curves] == [10, 10, 10]


def test_what_could_not_train_is_refused_before_a_file_is_written(tmp_path):
    base = dataclasses.replace(PRESETS["demo"], num_train=(24,), budget=Budget(3))
    refused = (
        ({"architectures": ("unet:width=4,levels=1,norm=batch",), "batch_size": 1}, "at least 2 a"),
    )
    for fields, message in refused:
        with pytest.raises(ValueError, match=message):
            jdiff.study.run(dataclasses.replace(base, **fields), tmp_path / "s", progress=False)
        assert not (tmp_path / "s").exists()
    # A budget of fewer steps than a row has networks.
    few = dataclasses.replace(base, architectures=("mlp:width=4,depth=1,per_level=karras:4",))
    with pytest.raises(ValueError, match="each of the 4 networks"):
        jdiff.study.run(few, tmp_path / "few", progress=False)
    assert not (tmp_path / "few").exists()


def test_seeds_share_the_steps_that_seconds_buy(tmp_path, monkeypatch):
    """Timed anew for every seed they would differ, and every seed would compile its own step."""
    bought = iter((3, 4, 5))
    monkeypatch.setattr(cost, "steps", lambda *a, **k: next(bought))
    study = Study(
        name="timed", architectures=(MLP,), num_train=(24,), seeds=(0, 1, 2), num_samples=20,
        budget=Budget(1, "seconds"), sigmas="karras:3", batch_size=8,
    )  # fmt: skip
    rows = run(study, tmp_path / "s", progress=False)
    assert [row.record["budget"]["steps"] for row in rows] == [3, 3, 3]
