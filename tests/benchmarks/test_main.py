"""`python -m benchmarks`: what it refuses, and that every suite has a row for what it asks."""

import re

import pytest

from benchmarks import __main__ as cli
from benchmarks import record

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
        (["training", "metrics", "--out", "x.json"], "one suite"),
        (["compare", "absent.json", "absent.json"], "absent.json"),
        (["report", "--results", "absent"], "absent holds no results"),
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


def test_the_frontier_says_copies_of_copies(tmp_path, capsys):
    """End to end: the optimal denoiser memorizes, and a failing architecture is a row."""
    out = tmp_path / "frontier.json"
    args = ["frontier", "--out", str(out), "--work", str(tmp_path), "--budget", "steps:2"]
    assert cli.main([*args, "--architectures", "optimal", "mlp:width=8,depth=1"]) == 0
    rows = {row["architecture"]: row for row in record.read(out)["rows"]}
    optimal, mlp = rows["optimal"], rows["mlp:width=8,depth=1"]
    # Exact copies, as float32 has them.
    assert optimal["memorized_fraction"]["mean"] == 1
    assert optimal["novelty"]["mean"] < 1e-3
    assert optimal["verdicts"] == {"memorizes": 1}
    assert mlp["steps"] == 2
    assert mlp["seeds"] == [0]
    assert mlp["memorized_fraction"]["mean"] == 0
    assert mlp["realism"]["mean"] < 0.5
    assert "memorizes 1" in capsys.readouterr().out
    # Asked again, the study's rows are kept: the same numbers, not new timings.
    assert cli.main([*args, "--architectures", "optimal", "mlp:width=8,depth=1"]) == 0
    again = {row["architecture"]: row for row in record.read(out)["rows"]}
    assert again["optimal"]["sample_images_per_s"] == optimal["sample_images_per_s"]
