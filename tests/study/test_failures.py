"""What fails is reported and stops no other row; what was stopped goes on where it stood."""

import json
import sys
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff.networks import NETWORKS
from jdiff.study import Budget, config, cost, rebuild_report, run
from jdiff.study.closed_forms import ClosedForm
from jdiff.training import loop

NAME = "mlp:width=16,depth=2"
RUN = "mlp-width-16-depth-2-n24-s0"
real_fit = config.CLOSED_FORMS["linear"].fit


class Flaky(nn.Module):
    """A network of one parameter, whose training fails as long as it is `broken`."""

    preconditioning = "x0"
    broken = True

    @staticmethod
    def image_defaults(image_shape):
        return {}

    @nn.nowrap
    def check_image(self, image_shape):
        pass

    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        if train and Flaky.broken:
            raise MemoryError("no room for the gradient")
        return x * self.param("scale", nn.initializers.ones, (), jnp.float32)


def statuses(rows):
    return [(row.label.partition(":")[0], row.record["status"]) for row in rows]


@pytest.fixture
def fit_of_linear(monkeypatch):
    """Puts a function in the place of the linear denoiser's fit."""
    return lambda fit: monkeypatch.setitem(
        config.CLOSED_FORMS, "linear", ClosedForm(fit, ("rank",))
    )


def test_a_failing_network_is_reported_stops_no_other_and_is_tried_again(
    tmp_path, make_study, records, snapshot, monkeypatch, capsys
):
    monkeypatch.setitem(NETWORKS, "flaky", Flaky)
    monkeypatch.setattr(Flaky, "broken", True)
    study, out = make_study(architectures=("flaky", "linear")), tmp_path / "out"
    rows = run(study, out)
    assert statuses(rows) == [("flaky", "failed"), ("linear", "ok")]
    error = "MemoryError: no room for the gradient"
    failed, ok = records(out).values()
    assert failed["error"] == rows[0].record["error"] == error
    assert failed.keys() == ok.keys()  # what it lacks is null
    assert failed["verdict"] is failed["samples"] is failed["measures"] is None
    assert error in (out / "report.html").read_text()
    said = capsys.readouterr().err
    assert "Traceback" in said  # for whoever looks for the reason
    assert said.rstrip().splitlines()[-1].startswith("finished in")

    before = snapshot(out / "runs" / "linear-n24-s0")
    monkeypatch.setattr(Flaky, "broken", False)
    assert statuses(run(study, out, progress=False)) == [("flaky", "ok"), ("linear", "ok")]
    assert snapshot(out / "runs" / "linear-n24-s0") == before
    assert [row["error"] for row in records(out).values()] == [None, None]


@pytest.mark.core
def test_a_closed_form_that_failed_before_it_wrote_anything_is_tried_again(
    tmp_path, make_study, fit_of_linear
):
    fits = []

    def fit(data, grid, seed, **options):
        fits.append(options)
        if len(fits) == 1:
            raise MemoryError("no room")
        return real_fit(data, grid, seed, **options)

    fit_of_linear(fit)
    study = make_study(architectures=("linear",))
    assert statuses(run(study, tmp_path / "out", progress=False)) == [("linear", "failed")]
    assert statuses(run(study, tmp_path / "out", progress=False)) == [("linear", "ok")]


@pytest.mark.core
def test_samples_that_are_not_finite_fail_the_row(tmp_path, make_study, records, fit_of_linear):
    def fit(data, grid, seed, **options):
        denoiser: Any = real_fit(data, grid, seed, **options)
        return denoiser.replace(mean=jnp.full_like(denoiser.mean, jnp.nan))

    fit_of_linear(fit)
    rows = run(make_study(architectures=("linear", "optimal")), tmp_path / "out", progress=False)
    assert statuses(rows) == [("linear", "failed"), ("optimal", "ok")]
    error = records(tmp_path / "out")["linear n24 s0"]["error"]
    assert error.startswith("ValueError: generated must be finite")
    assert "24 of 24" in error


def test_a_study_of_failures_alone_has_a_report(tmp_path, make_study, fit_of_linear):
    def fit(data, grid, seed, **options):
        raise MemoryError("no room for <it>")

    fit_of_linear(fit)
    rows = run(make_study(architectures=("linear",)), tmp_path / "out", progress=False)
    assert statuses(rows) == [("linear", "failed")]
    assert "no room for &lt;it&gt;" in (tmp_path / "out" / "report.html").read_text()


class Stops:
    """Ctrl-C before the step `at`; counts the steps that were begun."""

    def __init__(self, at: int | None):
        self.at, self.begun, self.run = at, [], loop._Clock.run

    def __get__(self, clock, kind):
        def run_steps(compiled, state, data, step, stop, bar):
            if step == self.at:
                raise KeyboardInterrupt
            self.begun += range(step, stop)
            return self.run(clock, compiled, state, data, step, stop, bar)

        return run_steps


@pytest.fixture
def often(monkeypatch):
    """A checkpoint a step, which so short a training would not have."""
    monkeypatch.setattr(sys.modules["jdiff.study.run"], "_LEAST_STEPS", 1)


@pytest.mark.usefixtures("often")
def test_stopped_in_the_middle_of_training_it_goes_on_there(
    tmp_path, make_study, finished, monkeypatch
):
    study, out = make_study(architectures=("linear", NAME)), tmp_path / "out"
    monkeypatch.setattr(loop._Clock, "run", stopped := Stops(at=6))
    with pytest.raises(KeyboardInterrupt):
        run(study, out, progress=False)
    assert stopped.begun == [0, 1, 2, 3, 4, 5]
    assert not (out / "results.json").exists()
    assert not (out / "runs" / RUN / "row.json").exists()

    stopped.at, stopped.begun = None, []
    rows = run(study, out, progress=False)
    assert stopped.begun == [6, 7, 8, 9]  # the missing steps alone
    assert statuses(rows) == [("linear", "ok"), ("mlp", "ok")]
    # As if never stopped: bit for bit the samples and the history of the shared study.
    for name, read in (("metrics.jsonl", lambda path: path.read_text()), ("samples.npz", np.load)):
        a, b = (read(path / "runs" / RUN / name) for path in (finished, out))
        if name == "samples.npz":
            a, b = a["images"], b["images"]
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("often")
def test_a_budget_in_seconds_keeps_the_steps_it_bought_when_it_was_begun(
    tmp_path, make_study, monkeypatch
):
    # 2 s at 5 steps a second, and later on a machine ten times as fast.
    speed, timed = 5 * 8, []
    real_steps = cost.steps

    def steps(budget, *args, **kwargs):
        timed.append(budget.unit)
        return real_steps(Budget(2 * speed / 8), *args, **kwargs)

    monkeypatch.setattr(cost, "steps", steps)
    study = make_study(architectures=(NAME,), budget=Budget(2, "seconds"))
    monkeypatch.setattr(loop._Clock, "run", stopped := Stops(at=6))
    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path / "out", progress=False)
    speed, stopped.at, stopped.begun = 10 * speed, None, []
    run(study, tmp_path / "out", progress=False)
    assert timed == ["seconds"]  # once
    assert stopped.begun == [6, 7, 8, 9]
    settings = json.loads((tmp_path / "out" / "runs" / RUN / "row.json").read_text())["settings"]
    assert settings["train"]["steps"] == 10
    # Done, it is kept, however fast the machine.
    run(study, tmp_path / "out", progress=False)
    assert (timed, stopped.begun) == (["seconds"], [6, 7, 8, 9])


def test_a_row_of_other_settings_is_refused(copied, make_study):
    file = copied / "runs" / RUN / "row.json"
    row = json.loads(file.read_text())
    row["settings"]["train"]["steps"] = 9
    file.write_text(json.dumps(row))
    with pytest.raises(
        ValueError, match=r"holds another row: train.steps is 9 there and 10 here. Remove"
    ):
        run(make_study(seeds=(0, 1, 2)), copied, progress=False)


@pytest.mark.core
@pytest.mark.parametrize("file", ["samples.npz", "neighbors.npz"])
@pytest.mark.parametrize("content", [None, b"PK\x03\x04 cut off"], ids=["gone", "damaged"])
def test_a_row_whose_files_cannot_be_read_is_made_again(
    copied, make_study, snapshot, file, content
):
    before = snapshot(copied / "runs")
    broken = copied / "runs" / "linear-n24-s0" / file
    broken.unlink()
    if content is not None:
        broken.write_bytes(content)
    rows = run(make_study(seeds=(0, 1, 2)), copied, progress=False)
    assert [status for _, status in statuses(rows)] == ["ok"] * 5
    after = snapshot(copied / "runs")
    changed = {name for name in before if after[name] != before[name]}
    assert {name.split("/")[0] for name in changed} == {"linear-n24-s0"}
    with np.load(broken) as found:
        assert found.files


ROW_FILES = {
    "cut off": lambda runs: (runs / RUN / "row.json").read_text()[:40],
    "null": lambda runs: "null",
    "empty": lambda runs: "{}",
    "record": lambda runs: '{"settings": {}, "record": {}}',
    "of another row": lambda runs: (runs / "linear-n24-s0" / "row.json").read_text(),
}


@pytest.mark.core
@pytest.mark.parametrize("content", ROW_FILES)
def test_a_damaged_row_is_named_and_made_again(copied, make_study, records, capsys, content):
    runs, before = copied / "runs", records(copied)
    file = runs / RUN / "row.json"
    history = (runs / RUN / "metrics.jsonl").read_bytes()
    file.write_text(ROW_FILES[content](runs))
    rows = run(make_study(seeds=(0, 1, 2)), copied)
    assert [status for _, status in statuses(rows)] == ["ok"] * 5
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if "The row is made again" in line]
    assert line.startswith(str(file))
    assert said.count("done before, kept") == 4
    # The training is whole and is not done again.
    assert (runs / RUN / "metrics.jsonl").read_bytes() == history
    assert json.loads(file.read_text())["record"]["label"] == NAME
    for name, record in records(copied).items():
        assert record["measures"] == before[name]["measures"]


@pytest.mark.core
@pytest.mark.parametrize("file", ["samples.npz", "neighbors.npz"])
def test_files_of_another_row_are_not_taken_for_its_own(copied, make_study, snapshot, capsys, file):
    runs = copied / "runs"
    own, other = runs / "linear-n24-s0" / file, runs / "optimal-n24-s0" / file
    before = snapshot(own.parent)
    own.write_bytes(other.read_bytes())  # arrays of the same names and shapes
    with pytest.raises(ValueError, match=rf"linear-n24-s0/{file} is damaged: .*Run the study"):
        rebuild_report(copied)
    run(make_study(seeds=(0, 1, 2)), copied)
    assert f"{own} is damaged: it is not the file that row.json" in capsys.readouterr().err
    with np.load(own) as found:
        arrays = {name: found[name] for name in found.files}
    own.write_bytes(before[file][1])
    with np.load(own) as found:
        for name in found.files:
            np.testing.assert_array_equal(arrays[name], found[name])


def test_a_damaged_history_fails_no_other_row(copied, make_study):
    (copied / "runs" / RUN / "metrics.jsonl").write_text('{"loss": 1}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged: KeyError\('step'\)"):
        rebuild_report(copied)
    rows = run(make_study(seeds=(0, 1, 2)), copied, progress=False)
    assert sorted(status for _, status in statuses(rows)) == ["failed", *["ok"] * 4]


def test_half_written_files_of_a_kill_are_no_obstacle(tmp_path, make_study):
    study, out = make_study(architectures=("linear",)), tmp_path / "out"
    out.mkdir()
    (out / ".study.json.x7f3").write_text("{")
    assert statuses(run(study, out, progress=False)) == [("linear", "ok")]
    for file in (out / "runs" / "linear-n24-s0").iterdir():
        file.unlink()
    (out / "runs" / "linear-n24-s0" / ".config.json.x7f3").write_text("{")
    assert statuses(run(study, out, progress=False)) == [("linear", "ok")]
