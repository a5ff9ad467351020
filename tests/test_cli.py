"""The command line as a user meets it: four commands, their help, and one line for bad input."""

import dataclasses
import inspect
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import jdiff
from jdiff import cli
from jdiff.study import config
from jdiff.study.closed_forms import ClosedForm
from jdiff.training import TrainConfig

MLP = "mlp:width=16,depth=2"
TINY = ["--num-train", "24", "--num-samples", "20", "--sigmas", "karras:4", "--no-cache"]
STEPS = ["--steps", "10", "--batch-size", "8", "--warmup", "1", "--no-cache"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """32 training and 40 held-out images, 8x8x1; class 0 is dark, class 1 bright."""
    rng = np.random.default_rng(0)
    labels = np.arange(72) % 2
    images = rng.integers(0, 100, (72, 8, 8, 1)) + 150 * labels[:, None, None, None]
    path = tmp_path_factory.mktemp("data") / "d.npz"
    np.savez(
        path,
        train_images=images[:32].astype(np.uint8),
        train_labels=labels[:32],
        test_images=images[32:].astype(np.uint8),
        test_labels=labels[32:],
    )
    return f"npz:{path}"


@pytest.fixture
def jdiff_command(capsys):
    """Function: arguments -> (exit status, stdout, stderr)."""

    def run(*args) -> tuple[int, str, str]:
        status = 0
        try:
            cli.main([str(arg) for arg in args])
        except SystemExit as exit:
            status = exit.code or 0
        said = capsys.readouterr()
        return int(status), said.out, said.err

    return run


@pytest.fixture(scope="module")
def linear_run(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "linear"
    cli.main(["train", "linear", "--data", data, "--out", str(run), "--no-cache"])
    return run


COMMANDS = {
    **{"study": cli.study, "train": cli.train, "sample": cli.sample, "evaluate": cli.evaluate},
    "report": cli.report,
}


@pytest.mark.core
@pytest.mark.parametrize("command", COMMANDS)
def test_help_mentions_every_option_and_says_what_it_does(jdiff_command, command):
    status, out, err = jdiff_command(command, "--help")
    assert (status, err) == (0, "")
    names = dict.fromkeys(inspect.signature(COMMANDS[command]).parameters)
    if command == "train":
        del names["config"]
        names |= dict.fromkeys(field.name for field in dataclasses.fields(TrainConfig))
    positional = next(iter(names))
    assert re.search(rf"\b{positional.upper()}\b", out)
    for name in list(names)[1:]:
        option = "--no-cache" if name == "cache" else f"--{name.replace('_', '-')}"
        assert re.search(rf"^\W*{option}\b", out, re.MULTILINE), option
    assert "None|" not in out  # what is not given is not typed as None


@pytest.mark.core
def test_help_lists_the_commands(jdiff_command):
    status, out, _ = jdiff_command("--help")
    assert status == 0
    for command, function in COMMANDS.items():
        assert command in out
        assert (function.__doc__ or "").splitlines()[0].split()[0] in out


@pytest.mark.core
@pytest.mark.parametrize("how", ["environment", "flag", "flag before environment"])
def test_the_tiny_study(jdiff_command, data, tmp_path, monkeypatch, how):
    out, flags = tmp_path / "out", []
    if how != "flag":
        monkeypatch.setenv("JDIFF_BUDGET", "tiny" if how == "environment" else "steps:999")
    if how != "environment":
        flags = ["--budget", "tiny"]
    architectures = ["--architectures", "optimal", "linear"]
    status, printed, said = jdiff_command(
        "study", "demo", "--data", data, *architectures, *TINY, *flags, "--out", out
    )
    assert status == 0
    lines = printed.splitlines()
    assert lines[0].startswith("architecture")
    assert [line.split()[0] for line in lines[1:3]] == ["optimal", "linear"]
    assert lines[-1] == f"report: {out / 'report.html'}"
    assert (out / "report.html").exists()
    assert "finished in" in said
    study = json.loads((out / "study.json").read_text())["study"]
    assert study["budget"] == {"amount": 60, "unit": "steps", "image_shape": None}
    # Flags go before what tiny would take.
    assert (study["num_samples"], study["sigmas"], study["num_train"]) == (20, "karras:4", [24])
    command = json.loads((out / "results.json").read_text())["command"]
    variable = {"environment": "tiny", "flag before environment": "steps:999"}.get(how)
    start = "jdiff study demo --data" if variable is None else f"JDIFF_BUDGET={variable} jdiff"
    assert command.startswith(start)


@pytest.mark.core
def test_what_a_preset_interprets_can_be_left_out(jdiff_command, data, tmp_path):
    command = ["study", "locality", "--data", data, "--architectures", "linear", *TINY]
    status, _, said = jdiff_command(*command, "--interpret", "False", "--out", tmp_path / "out")
    assert status == 0, said
    study = json.loads((tmp_path / "out" / "study.json").read_text())["study"]
    assert (study["name"], study["interpret"]) == ("locality", False)


@pytest.mark.core
@pytest.mark.parametrize(
    ("value", "message"), [("huge", "got 'huge'"), ("", "num_samples must be")]
)
def test_a_budget_in_the_environment_is_checked_and_an_empty_one_is_none(
    jdiff_command, monkeypatch, value, message
):
    monkeypatch.setenv("JDIFF_BUDGET", value)
    status, _, said = jdiff_command("study", "demo", "--num-samples", "5", "--no-cache")
    assert (status, message in said) == (2, True)


def test_a_network_in_a_study_and_its_default_folder(jdiff_command, data, tmp_path, monkeypatch):
    monkeypatch.delenv("JDIFF_BUDGET", raising=False)
    monkeypatch.chdir(tmp_path)
    options = ["--data", data, *TINY, "--batch-size", "8", "--budget", "steps:10"]
    command = ["study", "demo", "--architectures", MLP, *options]
    status, printed, said = jdiff_command(*command)
    assert status == 0
    assert "report: runs/demo/report.html" in printed
    assert "10/10" in said  # the progress bar
    assert (tmp_path / "runs/demo/runs/mlp-width-16-depth-2-n24-s0/samples.npz").exists()

    status, _, said = jdiff_command(*command)
    assert status == 0
    assert "done before, kept" in said

    status, printed, said = jdiff_command(*command, "--seed", "5")
    assert (status, printed) == (2, "")
    assert "study.seed is 0 there and 5 here" in said

    status, _, _ = jdiff_command(*command, "--seed", "5", "--force")
    assert status == 0


def test_a_failed_row_is_said_and_told_by_the_exit_status(
    jdiff_command, data, tmp_path, monkeypatch
):
    def fit(data, grid, seed, **options):
        raise MemoryError("no room")

    monkeypatch.setitem(config.CLOSED_FORMS, "linear", ClosedForm(fit, ("rank",)))
    status, printed, said = jdiff_command(
        "study", "demo", "--data", data, "--architectures", "linear", *TINY, "--out", tmp_path / "o"
    )
    assert status == 1
    assert "linear failed: MemoryError: no room" in printed
    assert f"report: {tmp_path / 'o' / 'report.html'}" in printed
    assert said.endswith("jdiff: 1 of 1 rows failed: linear\n")


@pytest.mark.core
def test_a_closed_form_is_trained_sampled_and_drawn(jdiff_command, data, tmp_path):
    run = tmp_path / "run"
    status, printed, _ = jdiff_command(
        "train", "optimal:labels=true", "--data", data, "--out", run, "--no-cache"
    )
    assert (status, printed) == (0, f"fitted optimal:labels=true to 32 images: {run}\n")

    out = tmp_path / "new" / "bright.npz"
    options = ["--num", "5", "--sigmas", "karras:4", "--seed", "3", "--no-cache"]
    status, printed, _ = jdiff_command("sample", run, *options, "--labels", "1", "--out", out)
    assert (status, printed) == (0, f"5 samples: {out}, {out.with_suffix('.png')}\n")
    with np.load(out) as file:
        assert file["images"].shape == (5, 8, 8, 1)
        assert file["labels"].tolist() == [1] * 5
        assert (int(file["seed"]), str(file["solver"])) == (3, "heun")
        np.testing.assert_array_equal(file["sigmas"], jdiff.noise.karras(4))
        images = file["images"]
    # Copies of bright images.
    train = jdiff.data.load(data)
    bright = train.images[train.labels == 1] / 127.5 - 1
    distance = np.abs(images[:, None] - bright[None]).max((2, 3, 4))
    assert distance.min(1).max() < 1e-3
    with Image.open(out.with_suffix(".png")) as picture:
        assert picture.size == (3 * 34 + 2, 2 * 34 + 2)
    expected = jdiff.sample(
        jdiff.load(run),
        jax.random.key(3),
        5,
        sigmas=jdiff.noise.karras(4),
        solver="heun",
        labels=1,
    )
    np.testing.assert_array_equal(images, expected)


def test_a_network_is_trained_goes_on_and_is_sampled(jdiff_command, data, tmp_path):
    run = tmp_path / "run"
    command = ["train", MLP, "--data", data, "--out", run, "--num-train", "24", *STEPS]
    status, printed, said = jdiff_command(*command)
    assert status == 0
    assert printed.startswith(f"trained {MLP} for 10 steps on 24 images: loss ")
    assert printed.endswith(f"; {run}\n")
    assert "10/10" in said
    trained = json.loads((run / "config.json").read_text())["train"]
    assert trained == dataclasses.asdict(TrainConfig(steps=10, batch_size=8, warmup=1))

    weights = jax.tree.leaves(jdiff.load(run))
    status, again, _ = jdiff_command(*command)  # done: nothing is trained again
    assert (status, again) == (0, printed)
    for a, b in zip(weights, jax.tree.leaves(jdiff.load(run)), strict=True):
        np.testing.assert_array_equal(a, b)

    status, printed, said = jdiff_command(*command, "--learning-rate", "0.1")
    assert (status, printed) == (2, "")
    assert "train.learning_rate is 0.002 there and 0.1 here" in said
    assert said.count("\n") == 1

    status, printed, _ = jdiff_command("sample", run, "--num", "3", "--no-cache")
    assert (status, printed) == (0, f"3 samples: {run / 'drawn.npz'}, {run / 'drawn.png'}\n")


def test_networks_for_levels_and_guidance(jdiff_command, data, tmp_path):
    run = tmp_path / "run"
    named = f"{MLP},num_classes=2,per_level=karras:2"
    command = ["train", named, "--data", data, "--out", run, "--num-train", "24", *STEPS]
    status, printed, _ = jdiff_command(*command)
    assert status == 0
    assert printed.startswith(f"trained {named} for 10 steps a level on 24 images: loss ")
    sample = ["sample", run, "--num", "3", "--no-cache", "--guidance-scale", "2"]
    status, _, said = jdiff_command(*sample)
    assert (status, said) == (2, "jdiff: labels must be given: this is a GuidedDenoiser.\n")
    assert jdiff_command(*sample, "--labels", "1")[0] == 0
    with np.load(run / "drawn.npz") as drawn:
        assert drawn["images"].shape == (3, 8, 8, 1)
        np.testing.assert_allclose(drawn["sigmas"], [80, 0.002, 0], rtol=1e-6)
    status, _, said = jdiff_command(*sample, "--labels", "1", "--sigmas", "karras:3", "--force")
    assert status == 2
    assert "asks for levels that this GuidedDenoiser was not fitted at" in said


@pytest.mark.core
def test_samples_are_not_overwritten_unless_told_to(jdiff_command, linear_run, tmp_path):
    out = tmp_path / "a.npz"
    command = ["sample", linear_run, "--num", "5", "--sigmas", "karras:4", "--no-cache"]
    assert jdiff_command(*command, "--out", out)[0] == 0
    before = out.read_bytes()
    status, printed, said = jdiff_command(*command, "--out", out, "--seed", "1")
    assert (status, printed) == (2, "")
    assert said == f"jdiff: out {out} is there already; choose another --out, or --force.\n"
    assert out.read_bytes() == before
    assert jdiff_command(*command, "--out", out, "--seed", "1", "--force")[0] == 0
    assert out.read_bytes() != before


@pytest.mark.core
def test_a_picture_is_not_overwritten_either(jdiff_command, linear_run, tmp_path):
    (tmp_path / "a.png").write_text("a photograph")
    command = ["sample", linear_run, "--num", "5", "--sigmas", "karras:4", "--no-cache"]
    status, _, said = jdiff_command(*command, "--out", tmp_path / "a.npz")
    assert (status, "a.png is there already" in said) == (2, True)
    assert (tmp_path / "a.png").read_text() == "a photograph"
    assert not (tmp_path / "a.npz").exists()


def test_toy_samples_have_no_picture(jdiff_command, tmp_path):
    run = tmp_path / "run"
    jdiff_command("train", "linear", "--data", "toy:gaussian_2d", "--out", run, "--no-cache")
    status, printed, _ = jdiff_command("sample", run, "--num", "5", "--no-cache")
    assert (status, printed) == (0, f"5 samples: {run / 'drawn.npz'}\n")


def test_force_replaces_a_run_and_nothing_else(jdiff_command, data, tmp_path):
    command = ["--data", data, "--out", tmp_path / "run", "--no-cache"]
    assert jdiff_command("train", "linear", *command)[0] == 0
    assert jdiff_command("train", "linear:rank=2", *command)[0] == 2
    assert jdiff_command("train", "linear:rank=2", *command, "--force")[0] == 0
    found: Any = jdiff.load(tmp_path / "run")
    assert found.basis.shape == (64, 2)

    # What cannot be fitted or built costs no run.
    for bad in (
        *(["linear:rank=99"], ["mlp:width=0"], ["mlp:widht=3"]),
        ["mlp:preconditioning=x0", "--preconditioning", "edm"],
        ["mlp:per_level=karras:4", "--noise", "0.5"],
    ):
        assert jdiff_command("train", *bad, *command, "--force")[0] == 2, bad
    assert jdiff.load(tmp_path / "run").image_shape == (8, 8, 1)

    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("my only copy")
    command = ["--data", data, "--out", tmp_path / "papers", "--force", "--no-cache"]
    status, _, said = jdiff_command("train", "linear", *command)
    assert status == 2
    assert "holds files but no config.json" in said
    assert (tmp_path / "papers" / "thesis.tex").exists()


def test_a_report_is_made_again(jdiff_command, data, tmp_path):
    out = tmp_path / "out"
    jdiff_command("study", "demo", "--data", data, "--architectures", "linear", *TINY, "--out", out)
    written = (out / "report.html").read_text()
    (out / "report.html").unlink()
    status, printed, said = jdiff_command("report", out)
    assert (status, printed, said) == (0, f"report: {out / 'report.html'}\n", "")
    assert (out / "report.html").read_text() == written


STUDY = ["study", "demo", "--out", "OUT", "--no-cache"]
LAWS = ["study", "laws", "--out", "OUT", "--no-cache"]
TRAIN = ["train", "linear", "--data", "digits", "--out", "OUT", "--no-cache"]
SAMPLE = ["sample", "RUN", "--sigmas", "karras:4", "--out", "OUT/a.npz", "--no-cache"]


@pytest.mark.core
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["study", "dmeo", "--out", "OUT"], "study is 'dmeo'. Did you mean 'demo'?"),
        ([*STUDY, "--data", "digist"], "is 'digist'. Did you mean 'digits'?"),
        ([*STUDY, "--architectures", "optimall"], "'optimall'. Did you mean 'optimal'?"),
        ([*STUDY, "--architectures", "mlp:widht=3"], "is 'widht'. Did you mean 'width'?"),
        ([*STUDY, "--architectures", "unet:levels=9"], "levels must be at most 4"),
        ([*STUDY, "--num-train", "9999"], "num_train must be from 6 to 1437; got 9999"),
        ([*STUDY, "--num-train", "3"], "num_train must be at least 6; got 3"),
        ([*STUDY, "--sections", "star"], "study demo takes no --sections; of what makes a study"),
        (
            [*LAWS, "--architectures", "linear"],
            "study laws takes no --architectures; of what makes a study it takes --data, --num-tr",
        ),
        ([*LAWS, "--seeds", "1"], "study laws takes no --seeds; of what makes a study it takes"),
        ([*LAWS, "--num-train", "3"], "num_train must be at least 6; got 3"),
        ([*LAWS, "--num-train", "9999"], "num_train must be from 6 to 1437; got 9999"),
        ([*LAWS, "--sections", "star", "star"], "sections names star more than once"),
        ([*LAWS, "--solver", "ddpm"], "solver is 'ddpm'."),
        (
            [*STUDY, "--architectures", "polynomial:degree=1,sigmas=karras:4"],
            "is fitted at the levels of karras:4 and could not be sampled at those of sigmas",
        ),
        (["study", "demo", "--out", "RUN/config.json"], "config.json is a file"),
        (["study", "laws", "--out", "RUN/config.json/new"], "config.json is a file"),
        (
            [*TRAIN[:4], "--out", "RUN/config.json"],
            "must be a directory; RUN/config.json is a file",
        ),
        ([*SAMPLE[:-2], "RUN/config.json/a.npz"], "RUN/config.json: "),
        ([*STUDY, "--budget", "huge"], "budget must read tiny, steps:N, seconds:N or flops:N"),
        ([*STUDY, "--num-samples", "5"], "num_samples must be at least 20; got 5"),
        ([*STUDY, "--sigmas", "karras"], "sigmas must read NAME:STEPS, for example karras:18"),
        ([*STUDY, "--solver", "huen"], "solver is 'huen'. Did you mean 'heun'?"),
        ([*STUDY, "--learning-rate", "-1"], "learning_rate must be in (0, inf); got -1.0"),
        ([*TRAIN, "--seed", "-1"], "seed must be at least 0; got -1"),
        ([*TRAIN, "--steps", "0"], "steps must be at least 1; got 0"),
        ([*TRAIN, "--noise", "uniform"], "noise is 'uniform'. Did you mean 'log_uniform'?"),
        ([*TRAIN, "--optimizer", "adam"], "optimizer is 'adam'. Did you mean 'adamw'?"),
        (
            ["train", "liner", *TRAIN[2:]],
            "architecture is 'liner'. Did you mean 'linear' or 'local_linear'?",
        ),
        (["train", "linear:rank=99", *TRAIN[2:]], "rank must be from 1 to 64; got 99"),
        (["train", "polynomial:degree=1,sigmas=5", *TRAIN[2:]], "sigmas is '5'. Accepted: karras"),
        (["train", "mlp:width=a", *TRAIN[2:]], "width must be a whole number; got 'a'"),
        (["train", "linear", "--data", "npz:no.npz", *TRAIN[4:]], "there is no file no.npz"),
        ([*SAMPLE, "--num", "0"], "num_samples must be at least 1; got 0"),
        ([*SAMPLE, "--labels", "3"], "labels were given, but this LinearDenoiser has no classes"),
        ([*SAMPLE, "--solver", "huen"], "solver is 'huen'. Did you mean 'heun'?"),
        ([*SAMPLE[:-2], "OUT/a.png", "--no-cache"], "out must be a .npz file; got"),
        (["sample", "OUT", *SAMPLE[2:]], "is not a run: it has no config.json"),
        (["report", "OUT"], "has no results.json: no study finished there"),
        (["report", "RUN"], "has no results.json: no study finished there"),
    ],
    ids=lambda value: " ".join(value).replace("--", "") if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(
    jdiff_command, linear_run, snapshot_of, tmp_path, monkeypatch, args, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JDIFF_BUDGET", raising=False)
    before = snapshot_of(linear_run)
    put = lambda text: text.replace("OUT", str(tmp_path / "out")).replace("RUN", str(linear_run))
    args, message = [put(arg) for arg in args], put(message)
    status, out, err = jdiff_command(*args)
    assert (status, out) == (2, "")
    assert err.startswith("jdiff: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []
    assert snapshot_of(linear_run) == before


@pytest.fixture
def snapshot_of():
    return lambda path: {f: f.read_bytes() for f in path.rglob("*") if f.is_file()}


@pytest.mark.core
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "study, train, sample, evaluate, report"),
        (["studdy"], "studdy"),
        (["study"], "NAME"),
        (["train", "linear", "--data", "digits"], "--out"),
        (["study", "demo", "--num-sample", "5"], "--num-samples"),
        (["study", "demo", "--num-samples", "many"], "--num-samples"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_parsed_is_told_in_words(
    jdiff_command, tmp_path, monkeypatch, args, message
):
    monkeypatch.chdir(tmp_path)
    status, out, err = jdiff_command(*args)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.core
def test_levels_that_a_run_was_not_fitted_at(jdiff_command, data, tmp_path):
    command = ["train", "polynomial:degree=1,sigmas=karras:20", "--data", data, "--no-cache"]
    assert jdiff_command(*command, "--out", tmp_path / "run")[0] == 0
    command = ["sample", tmp_path / "run", "--num", "4", "--no-cache"]
    status, printed, said = jdiff_command(*command, "--sigmas", "karras:7")
    assert (status, printed, said.count("\n")) == (2, "", 1)
    levels = ", ".join(f"{sigma:.4g}" for sigma in jdiff.noise.karras(20)[:-1])
    assert said == (
        "jdiff: sigmas karras:7 asks for levels that this PolynomialDenoiser was not fitted at; it "
        f"was at {levels}. Leave --sigmas out to sample at these, or make another run: a closed "
        "form with the option sigmas=karras:7, networks with per_level=karras:7.\n"
    )
    assert jdiff_command(*command)[0] == 0


@pytest.mark.core
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", "[]", "results.json is damaged: it must hold an object; got []."),
        ("results.json", "{", "results.json is damaged: Expecting"),
        ("data.npz", None, "data.npz is missing."),
        ("runs/linear-n24-s0/samples.npz", None, "samples.npz is missing."),
        ("runs/linear-n24-s0/samples.npz", "PK", "samples.npz is damaged: "),
    ],
)
def test_a_report_that_cannot_be_made_says_what_to_do(
    jdiff_command, linear_study, tmp_path, name, content, message
):
    out = shutil.copytree(linear_study, tmp_path / "out")
    if content is None:
        (out / name).unlink()
    else:
        (out / name).write_text(content)
    status, printed, said = jdiff_command("report", out)
    assert (status, printed, said.count("\n")) == (2, "", 1)
    assert said.startswith("jdiff: ")
    assert message in said
    assert said.endswith("Run the study again: what is whole is kept, the rest made anew.\n")


@pytest.fixture(scope="module")
def linear_study(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("studies") / "linear"
    command = ["study", "demo", "--data", data, "--architectures", "linear", *TINY]
    cli.main([*command, "--out", str(out)])
    return out


@pytest.mark.core
def test_a_directory_of_another_study_is_told_by_its_name(jdiff_command, linear_study):
    status, _, said = jdiff_command("study", "laws", "--out", linear_study, "--no-cache")
    assert status == 2
    assert said.startswith(
        f"jdiff: out_dir {linear_study} belongs to the study 'demo', and this is 'laws'."
    )


@pytest.mark.core
def test_the_help_says_which_solvers_the_laws_take(jdiff_command):
    _, out, _ = jdiff_command("study", "laws", "--help")
    words = " ".join(re.sub(r"[│╭╰╮╯─]", " ", out).split())
    assert "of laws those that all its laws know, ddim or heun" in words


@pytest.mark.core
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["report", "DIR"], "stopped."),
        (["study", "demo"], "stopped; the same command goes on from here."),
        (["study", "demo", "--force"], "stopped; the same command, without --force, goes on from"),
    ],
    ids=["report", "study", "force"],
)
def test_an_interrupt_is_one_line(jdiff_command, monkeypatch, args, message):
    from jdiff import study

    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "rebuild_report", stopped)
    monkeypatch.setattr(study, "run", stopped)
    flags = [] if args[0] == "report" else ["--no-cache"]
    status, printed, said = jdiff_command(*args, *flags)
    assert (status, printed) == (130, "")
    # A line break first: the cursor stands behind ^C or a progress bar.
    assert said.startswith(f"\njdiff: {message}")
    assert said.count("\n") == 2


# Of a shell's background job, tests among them, the system ignores interrupts.
COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from jdiff import cli, study
{body}
study.run = run
cli.main()
"""
# Leaving by sys.exit while this compiles is a segmentation fault.
COMPILES = """
import jax
import jax.numpy as jnp

def run(*args, **kwargs):
    def f(x):
        for _ in range(1000):
            x = jnp.sin(x @ x)
        return x
    lowered = jax.jit(f).lower(jnp.ones((8, 8)))
    print("ready", flush=True)
    lowered.compile()
"""
# What is raised in such a callback is printed and dropped.
COLLECTS = """
import gc
import time

def run(*args, **kwargs):
    gc.callbacks.append(lambda phase, info: time.sleep(30))
    print("ready", flush=True)
    gc.collect()
"""


@pytest.mark.parametrize("body", [COMPILES, COLLECTS], ids=["compiles", "collects"])
def test_an_interrupt_ends_the_process_in_order(body):
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(body=body), "study", "demo", "--no-cache"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "")
    assert said == "\njdiff: stopped; the same command goes on from here.\n"


def test_what_is_no_users_mistake_is_not_hidden(monkeypatch):
    from jdiff import study

    def broken(directory):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(study, "rebuild_report", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli.main(["report", "runs/demo"])


@pytest.mark.core
def test_the_compilation_cache_is_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    folder = lambda: jax.config.values["jax_compilation_cache_dir"]
    before = folder()
    try:
        cli._start(cache=False, distributed=False)
        assert folder() == before
        cli._start(cache=True, distributed=False)
        assert folder() == str(tmp_path / "jdiff" / "compiled")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
