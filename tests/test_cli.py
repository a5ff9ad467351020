"""The command line as a user meets it: four commands, their help, and one line for bad input."""

import dataclasses
import inspect
import json
import re
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


COMMANDS = {"study": cli.study, "train": cli.train, "sample": cli.sample, "report": cli.report}


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
    for bad in ("linear:rank=99", "mlp:width=0", "mlp:widht=3"):
        assert jdiff_command("train", bad, *command, "--force")[0] == 2
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
        ([*STUDY, "--num-train", "9999"], "num_train must be from 1 to 1437; got 9999"),
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
    args = [a.replace("OUT", str(tmp_path / "out")).replace("RUN", str(linear_run)) for a in args]
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
        ([], "study, train, sample, report"),
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
        cli._use_cache(False)
        assert folder() == before
        cli._use_cache(True)
        assert folder() == str(tmp_path / "jdiff" / "compiled")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
