"""`python -m benchmarks`: what it refuses, and that every suite has a row for what it asks."""

import json
import re

import pytest

from benchmarks import __main__ as cli
from benchmarks import complete, record
from jdiff.study import row as study_row

SIZES = ("smoke", "cpu", "accelerator", "pod")


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (["trainig"], "unknown suite 'trainig'.*Close: training"),
        (["training", "--architectures", "unett"], "unett.*unet"),
        (["training", "--architectures", "unet:widht=3"], "widht.*width"),
        (["metrics", "--architectures", "unet"], "--architectures goes with training"),
        (["training", "--budget", "steps:5"], "--budget goes with frontier"),
        (["frontier", "--budget", "steps:0.5"], "at least one step"),
        (["frontier", "--budget", "hours:1"], "steps:N"),
        (["frontier", "--budget", "flops:1"], "at least one step of unet"),
        (["frontier", "--architectures", "unet:widht=3"], "widht.*width"),
        (
            ["frontier", "--budget", "steps:3", "--architectures", "mlp:per_level=karras:4"],
            "budget must buy at least one step for each of the 4 networks of "
            "mlp:per_level=karras:4; got 3",
        ),
        (["training", "metrics", "--out", "x.json"], "one suite"),
        (["compare", "absent.json", "absent.json"], "absent.json"),
        (["report", "--results", "absent"], "absent holds no results"),
        (["reprot"], "Close: report"),
        (["training", "--architectures", "mlp:width=wide"], "width.*wide"),
        (["training", "--peer-python", "nowhere"], "interpreter; got nowhere"),
        (["metrics", "--data", "npz:absent.npz"], "absent.npz"),
        (["frontier", "--data", "tfds:fashion_mnits"], "fashion_mnits"),
    ],
)
def test_bad_input_ends_with_one_line(args, what, capsys):
    assert cli.main(args) == 2
    said = capsys.readouterr().err
    assert said.startswith("benchmarks: ")
    assert said.count("\n") == 1
    assert re.search(what, said), said


def test_an_unknown_size_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["training", "--size", "huge"])
    assert "smoke" in capsys.readouterr().err


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", list(cli.SUITES))
def test_cases_have_names_of_their_own_at_every_size(name, size):
    cases = cli.SUITES[name](size, cli.Options())
    names = [case.name for case in cases]
    assert names
    assert len(set(names)) == len(names)


def test_architectures_are_those_asked_for():
    options = cli.Options(architectures=("mlp:width=8", "linear"))
    names = [case.name for case in cli.SUITES["sampling"]("smoke", options)]
    assert {"sample mlp:width=8", "sample linear"} <= set(names)
    assert not any("unet" in name for name in names)


def test_settings_of_ones_own_do_not_replace_the_published_results(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "RESULTS", tmp_path / "published")
    rows = lambda size, options: [cli.suite.Case("a", lambda: {"seconds": {}})]
    monkeypatch.setattr(cli, "SUITES", dict.fromkeys(cli.SUITES, rows))
    work = ["--work", str(tmp_path / "work")]
    assert cli.main(["metrics", "training", *work, "--architectures", "linear"]) == 0
    assert capsys.readouterr().out.rstrip().endswith(f"{tmp_path / 'work' / 'results'}.")
    (metrics,) = (tmp_path / "published").glob("*.json")  # which takes no architectures
    (training,) = (tmp_path / "work" / "results").glob("*.json")
    assert "-metrics-" in metrics.name
    assert "-training-" in training.name
    assert cli.main(["training", *work, "--architectures", "mlp"]) == 0
    assert len(list((tmp_path / "work" / "results").glob("*.json"))) == 2  # beside each other
    assert cli.main(["training", *work]) == 0
    assert record.path("training", "smoke", record.RESULTS).exists()


def test_results_of_another_device_are_not_written_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setitem(
        cli.SUITES, "metrics", lambda *_: [cli.suite.Case("a", lambda: {"seconds": {}})]
    )
    there = record.path("metrics", "smoke", tmp_path)
    other = record.head("metrics", "smoke", {}) | {"device": "1 x CPU (another, 2 cores)"}
    record.write(there, {**other, "rows": []})
    before = there.read_text()
    work = tmp_path / "work"
    assert cli.main(["metrics", "--work", str(work)]) == 0
    assert capsys.readouterr().out.rstrip().endswith(f"{work / 'results'}.")
    assert there.read_text() == before
    assert record.read(work / "results" / there.name)["device"] == record.device()
    # Of this device, or what nobody could read, it is.
    for text in (json.dumps({**other, "device": record.device(), "rows": []}), "{"):
        there.write_text(text)
        assert cli.main(["metrics"]) == 0
        assert [row["case"] for row in record.read(there)["rows"]] == ["a"]


def by_architecture(out) -> dict[str, dict]:
    """The rows of a frontier but that of the peak."""
    return {row["architecture"]: row for row in record.read(out)["rows"] if "architecture" in row}


def test_the_frontier_says_copies_of_copies(tmp_path, capsys):
    """End to end: the optimal denoiser memorizes, an untrained network does not."""
    out = tmp_path / "frontier.json"
    args = ["frontier", "--out", str(out), "--work", str(tmp_path), "--budget", "steps:2"]
    assert cli.main([*args, "--architectures", "optimal", "mlp:width=8,depth=1"]) == 0
    rows = by_architecture(out)
    optimal, mlp = rows["optimal"], rows["mlp:width=8,depth=1"]
    # Exact copies, as float32 has them.
    assert optimal["memorized_fraction"]["mean"] == 1
    assert optimal["novelty"]["mean"] < 1e-3
    assert optimal["verdicts"] == {"memorizes": 1}
    assert mlp["steps"] == 2
    assert mlp["seeds"] == [0]
    # The share of the peak is the rate's: three forward passes a training step.
    done = 3 * mlp["flops_per_image"] * mlp["train_images_per_s"]["mean"]
    assert mlp["train_mfu"]["mean"] == pytest.approx(done / mlp["peak_flops_per_s"])
    done = mlp["nfe"] * mlp["flops_per_image"] * mlp["sample_images_per_s"]["mean"]
    assert mlp["sample_mfu"]["mean"] == pytest.approx(done / mlp["peak_flops_per_s"])
    assert optimal["train_mfu"] is None
    assert optimal["sample_mfu"] is None
    assert mlp["memorized_fraction"]["mean"] == 0
    assert mlp["realism"]["mean"] < 0.5
    assert "memorizes 1" in capsys.readouterr().out
    # Asked again, it is measured again.
    assert cli.main([*args, "--architectures", "optimal", "mlp:width=8,depth=1"]) == 0
    again = by_architecture(out)
    assert again["optimal"]["sample_images_per_s"] != optimal["sample_images_per_s"]
    assert again["optimal"]["frechet_distance"] == optimal["frechet_distance"]


def test_a_killed_frontier_goes_on_from_its_rows(tmp_path, monkeypatch):
    """Of the same study, code and device; what was done is not done again."""
    out = tmp_path / "frontier.json"
    args = ["frontier", "--out", str(out), "--work", str(tmp_path), "--budget", "steps:2"]
    args += ["--architectures", "linear", "mlp:width=8,depth=1"]
    made = []

    def kill_at_the_second(*given, **more):
        made.append(given)
        if len(made) == 2:
            raise KeyboardInterrupt
        return make(*given, **more)

    make = study_row.make
    monkeypatch.setattr(study_row, "make", kill_at_the_second)
    assert cli.main(args) == 130
    assert not out.exists()
    assert len(list(tmp_path.glob("frontier-digits-smoke-*.unfinished"))) == 1
    assert cli.main(args) == 0
    assert len(made) == 3  # linear, the network that was killed, that network again
    assert set(by_architecture(out)) == set(args[-2:])
    assert not list(tmp_path.glob("*.unfinished"))


def test_an_architecture_with_a_failed_seed_is_a_failed_row(tmp_path, monkeypatch):
    out = tmp_path / "frontier.json"

    def fail(study, architecture, *given, **more):
        if architecture.name == "mlp":
            raise RuntimeError("broke in /home/somebody/x.py")
        return make(study, architecture, *given, **more)

    make = study_row.make
    monkeypatch.setattr(study_row, "make", fail)
    args = ["frontier", "--out", str(out), "--work", str(tmp_path), "--budget", "steps:2"]
    assert cli.main([*args, "--architectures", "linear", "mlp:width=8,depth=1"]) == 1
    rows = by_architecture(out)
    assert rows["linear"]["status"] == "ok"
    mlp = rows["mlp:width=8,depth=1"]
    assert mlp["status"] == "failed"
    assert "seed 0: RuntimeError: broke in" in mlp["error"]
    assert "verdicts" not in mlp


@pytest.mark.parametrize("name", ["sampling", "frontier"])
def test_rows_are_complete(name, tmp_path):
    """Every row of an architecture has what its suite says; those of all suites, in .ci/run."""
    out = tmp_path / "found.json"
    args = [name, "--out", str(out), "--work", str(tmp_path), "--architectures", "linear"]
    assert cli.main(args) == 0
    found = record.read(out)["rows"]
    assert found[0]["case"] == "matmul peak"
    rows = [row for row in found if "architecture" in row and "ratio" not in row]
    assert rows
    for row in rows:
        assert set(complete.OF_ARCHITECTURES[name]) <= set(row)


def test_a_row_that_lacks_something_ends_a_run_with_1(tmp_path, monkeypatch, capsys):
    rows = [
        {"part": "whole", "seconds": {}},
        {"part": "no answer", "queries": 3},
        {"part": "half", "architecture": "mlp", "images_per_s": {}, "compile_seconds": 1.0},
        {"part": "failed", "status": "failed", "error": "broke"},
    ]
    monkeypatch.setitem(cli.SUITES, "training", lambda *_: [cli.suite.Case("a", lambda: rows)])
    assert cli.main(["training", "--out", str(tmp_path / "found.json")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-2:] == [
        "benchmarks: training: a: no answer lacks an answer.",
        "benchmarks: training: a: half lacks step_seconds, model_flops_per_s, mfu, num_params, "
        "flops_per_image, peak_mb.",
    ]
