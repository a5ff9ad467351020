"""The study `laws`: what it holds, resumes, reports and refuses."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from jdiff import theory
from jdiff.study import PRESETS, Architecture, Budget, LawStudy, law_row, rebuild_report, run
from jdiff.study.law_cases import DEGREES, SECTIONS, Sets, cases

SHAPE, NUM = (8, 8, 1), 32


@pytest.fixture(scope="module")
def make(data):
    def study(**fields) -> LawStudy:
        given = {"data": data, "num_samples": 250, "sigmas": "karras:6", "budget": Budget(3)}
        return LawStudy(**{**given, "sections": ("star", "moments", "atoms"), **fields})

    return study


@pytest.fixture(scope="module")
def done(make, tmp_path_factory):
    out = tmp_path_factory.mktemp("laws") / "laws"
    return out, run(make(), out, progress=False)


def test_every_section_is_made_of_cases_that_can_be_fitted():
    found = cases(SHAPE, 1437)
    assert {case.section for case in found} == set(SECTIONS)
    assert len({case.slug for case in found}) == len(found)  # a folder each
    for case in found:
        Architecture.parse(case.spec)
    lines = {case.family for case in found if case.section == "sweep"}
    assert {"rank", "patch size", "code size", "linear", "optimal"} <= lines
    by_degree = [c.knob for c in found if c.family == "degree, points in the plane"]
    assert tuple(by_degree) == DEGREES == (1, 2, 3, 5, 7)
    # Small images and few of them: ranks, windows and codes stay within what there is.
    for case in cases((5, 7, 3), 10):
        options = dict(Architecture.parse(case.spec).options)
        if case.data == "images":
            assert options.get("rank", 1) <= 9
            assert options.get("code_dim", 1) <= 9
            assert options.get("patch_size", 1) <= 9


def test_the_toys_have_the_moments_that_they_are_there_for():
    sets = Sets(images=None)  # pyright: ignore[reportArgumentType]
    moments = {}
    for name in ("gauss_hermite:2", "gauss_hermite:7", "third_moment"):
        data = sets[name]
        x, w = data.images.reshape(-1).astype(float), data.weights
        assert w is not None
        moments[name] = [float(w @ x**n) for n in range(5)]
    np.testing.assert_allclose(moments["gauss_hermite:2"], [1, 0, 1, 0, 3], atol=1e-6)
    np.testing.assert_allclose(moments["gauss_hermite:7"], [1, 0, 1, 0, 3], atol=1e-5)
    np.testing.assert_allclose(moments["third_moment"], [1, 0, 1, 1, 3], atol=1e-5)
    assert sets["two_points"].images.reshape(-1).tolist() == [-1, 1]
    assert sets["gaussian_points:4"].num_train == 4
    assert sets["two_moons:120"].num_train == 120


def test_rows_say_what_was_predicted_checked_and_rejected(done, make):
    out, rows = done
    results = json.loads((out / "results.json").read_text())
    assert (results["schema"], results["kind"]) == (1, "laws")
    assert len(rows) == len(results["rows"]) == 4 + 3 + 4
    for row, record in zip(rows, results["rows"], strict=True):
        assert record == json.loads(json.dumps(row.record))
        assert record["status"] == "ok", record["error"]
        assert record["check"]["num_samples"] == record["num_samples"]
        assert record["num_samples"] == (1000 if record["section"] != "atoms" else 250)
        assert record["measures"]["law_distance"]["value"] >= 0
        # Points on a line have no share of copies.
        copies = record["measures"].get("memorized_fraction")
        assert (copies is None) == (record["section"] != "atoms")
        assert copies is None or 0 <= copies["value"] <= 1
    star = [row for row in rows if row.section == "star"]
    for row in star:
        assert row.record["check"]["passed"]
        (twin,) = row.record["twins"]
        assert (twin["about"], twin["check"]["passed"]) == (
            "samples of the optimal denoiser",
            False,
        )
        num_points = (row.record["knob"] + 1,)
        assert row.arrays["points"].shape == row.arrays["weights"].shape == num_points
        # The density is one of the law: its mass on the bins is the share that did not escape.
        widths = np.diff(row.arrays["edges"])
        assert np.sum(row.arrays["density"] * widths) == pytest.approx(1, abs=0.02)
    a, b, c = (row.record for row in rows if row.section == "moments")
    # B's samples obey the law of A, C's do not.
    assert a["check"]["passed"]
    assert b["check"]["passed"]
    assert [twin["check"]["passed"] for twin in c["twins"]] == [False]
    html = (out / "report.html").read_text()
    for row in rows:
        assert row.label.split(":")[0] in html


def test_started_again_it_keeps_what_is_done_and_makes_what_is_missing(
    done, make, tmp_path, capsys
):
    out = shutil.copytree(done[0], tmp_path / "copy")
    one = next((out / "runs").glob("star-*degree-2*"))
    (one / "pictures.npz").write_bytes(b"damaged")
    before = (out / "results.json").read_text()
    run(make(), out)
    said = capsys.readouterr().err
    assert said.count("done before, kept") == 10
    again = json.loads((out / "results.json").read_text())
    first = json.loads(before)
    for old, new in zip(first["rows"], again["rows"], strict=True):
        drop = lambda row: {k: v for k, v in row.items() if k != "seconds"}
        assert drop(new) == drop(old)
    with pytest.raises(ValueError, match=r"study\.num_samples is 250 there and 50 here"):
        run(make(num_samples=50), out, progress=False)


def test_the_report_is_written_again_from_files_alone(done, tmp_path):
    out = shutil.copytree(done[0], tmp_path / "copy")
    before = (out / "report.html").read_text()
    (out / "report.html").unlink()
    assert rebuild_report(out) == out / "report.html"
    assert (out / "report.html").read_text() == before
    next((out / "runs").glob("star-*degree-2*/pictures.npz")).unlink()
    message = r"star-.*degree-2/pictures\.npz is missing\. Run the study again"
    with pytest.raises(FileNotFoundError, match=message):
        rebuild_report(out)


def _of_another_case(one, other):
    for name in ("row.json", "pictures.npz"):
        (one / name).write_bytes((other / name).read_bytes())


def _row_alone(one, other):
    row = json.loads((one / "row.json").read_text())
    row["record"] = json.loads((other / "row.json").read_text())["record"]
    (one / "row.json").write_text(json.dumps(row))


def _of_other_settings(one, other):
    row = json.loads((one / "row.json").read_text())
    row["settings"]["case"]["data"] = "gauss_hermite:4"
    (one / "row.json").write_text(json.dumps(row))


def _no_arrays(one, other):
    np.savez(one / "pictures.npz")
    row = json.loads((one / "row.json").read_text())
    del row["crc32"]  # as if nothing said which file it should be
    (one / "row.json").write_text(json.dumps(row))


def _other_shapes(one, other):
    _no_arrays(one, other)
    (one / "pictures.npz").write_bytes((other / "pictures.npz").read_bytes())


def _text(content):
    return lambda one, other: (one / "row.json").write_text(content)


DAMAGE = {
    "row cut off": (_text('{"settings": {"da'), "row.json is damaged: "),
    "row null": (_text("null"), "row.json is damaged: it must hold an object; got null"),
    "row empty": (_text("{}"), "row.json is damaged: it lacks 'settings'"),
    "row of another case": (_of_another_case, "row.json is of another row: "),
    "record of another case": (_row_alone, "row.json is of another row: "),
    "row of other settings": (_of_other_settings, "row.json is of another case: case.data is"),
    "no pictures": (lambda one, other: (one / "pictures.npz").unlink(), "pictures.npz is missing"),
    "pictures of another case": (
        lambda one, other: shutil.copy(other / "pictures.npz", one / "pictures.npz"),
        "pictures.npz is damaged: it is not the file that row.json was written with",
    ),
    "no arrays": (_no_arrays, "pictures.npz is damaged: it lacks samples"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_files_of_a_case_are_named_and_made_again(done, make, tmp_path, capsys, how):
    out = shutil.copytree(done[0], tmp_path / "copy")
    one, other = (next((out / "runs").glob(f"star-*degree-{k}")) for k in (2, 3))
    break_it, message = DAMAGE[how]
    break_it(one, other)
    run(make(), out)
    said = capsys.readouterr().err
    assert said.count("done before, kept") == 10
    (line,) = [line for line in said.splitlines() if "The row is made again" in line]
    assert line.startswith(str(one))
    assert message in line
    with np.load(one / "pictures.npz") as new, np.load(done[0] / "runs" / one.name / PICTURES) as a:
        for name in a.files:
            np.testing.assert_array_equal(new[name], a[name])
    records = [json.loads((d / "runs" / one.name / "row.json").read_text()) for d in (out, done[0])]
    new, old = ({**row["record"], "seconds": None} for row in records)
    assert new == old


PICTURES = "pictures.npz"


@pytest.mark.parametrize(
    "how", ["no arrays", "no pictures", "pictures of another case", "row cut off"]
)
def test_a_report_of_damaged_files_is_refused(done, tmp_path, how):
    out = shutil.copytree(done[0], tmp_path / "copy")
    one, other = (next((out / "runs").glob(f"star-*degree-{k}")) for k in (2, 3))
    break_it, message = DAMAGE[how]
    break_it(one, other)
    before = (out / "report.html").read_text()
    with pytest.raises((ValueError, FileNotFoundError), match=f"{message}.* Run the study again"):
        rebuild_report(out)
    assert (out / "report.html").read_text() == before


def test_pictures_that_fit_no_row_are_named(done, tmp_path):
    out = shutil.copytree(done[0], tmp_path / "copy")
    one, other = (next((out / "runs").glob(f"{s}-*")) for s in ("atoms", "star"))
    _other_shapes(one, other)
    with pytest.raises(ValueError, match=r"pictures\.npz is damaged: it lacks atoms"):
        rebuild_report(out)
    with np.load(one / PICTURES) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(one / PICTURES, **arrays, atoms=np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"pictures\.npz is damaged: arrays\['samples'\] of row"):
        rebuild_report(out)


def test_sections_may_be_added_and_not_left_out(done, make, tmp_path, capsys):
    out = shutil.copytree(done[0], tmp_path / "copy")
    rows = run(make(sections=("two_points", "star", "moments", "atoms")), out)
    assert capsys.readouterr().err.count("done before, kept") == 11
    assert len(rows) == 11 + 4
    assert not any(row.failed for row in rows)
    assert {row.section for row in rows} == {"star", "two_points", "moments", "atoms"}
    study = json.loads((out / "study.json").read_text())["study"]
    assert study["sections"] == ["two_points", "star", "moments", "atoms"]
    # What was added is now the study's.
    for sections, left_out in (
        (("star", "moments", "atoms"), "two_points"),
        (("moments",), "star"),
    ):
        with pytest.raises(
            ValueError, match="sections leaves out .*, which the study in"
        ) as raised:
            run(make(sections=sections), out, progress=False)
        assert left_out in str(raised.value) or "two_points" in str(raised.value)
    assert json.loads((out / "study.json").read_text())["study"] == study


@pytest.mark.core
@pytest.mark.parametrize("num_train", [5, 33])
def test_training_sizes_that_cannot_be_are_refused(make, tmp_path, num_train):
    message = "at least 6; got 5" if num_train == 5 else "from 6 to 32; got 33"
    with pytest.raises(ValueError, match=f"num_train must be {message}"):
        run(make(num_train=num_train), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.core
def test_too_few_images_are_refused(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", train_images=x[:5], test_images=x[5:])
    with pytest.raises(ValueError, match="at least 6 training images for a study; npz:"):
        run(LawStudy(data=f"npz:{tmp_path / 'd.npz'}"), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_failing_case_is_reported_and_tried_again(make, tmp_path, monkeypatch):
    real = theory.law

    def broken(denoiser, sigmas, solver):
        if type(denoiser).__name__ == "OptimalDenoiser":
            raise MemoryError("no room for the atoms")
        return real(denoiser, sigmas, solver)

    monkeypatch.setattr(law_row.theory, "law", broken)
    study, out = make(sections=("atoms",)), tmp_path / "out"
    rows = run(study, out, progress=False)
    assert [row.failed for row in rows] == [True, False, False, False]
    assert rows[0].record["error"] == "MemoryError: no room for the atoms"
    assert "no room for the atoms" in (out / "report.html").read_text()
    monkeypatch.undo()
    assert not any(row.failed for row in run(study, out, progress=False))


@pytest.mark.core
@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"solver": "ddpm"}, ValueError, "solver is 'ddpm'.* Accepted: ddim, heun"),
        ({"solver": "dpmpp_2m"}, ValueError, "solver is 'dpmpp_2m'"),
        ({"sections": ("stars",)}, ValueError, "section is 'stars'. Did you mean 'star'"),
        ({"sections": ()}, ValueError, "sections must not be empty"),
        ({"sections": ["star"]}, TypeError, r"sections must be a tuple; got \['star'\]"),
        ({"sections": ("star", "atoms", "star")}, ValueError, "sections names star more than once"),
        ({"num_samples": 5}, ValueError, "num_samples must be at least 20; got 5"),
        ({"num_train": 2}, ValueError, "num_train must be at least 6; got 2"),
        ({"budget": Budget(3, "seconds")}, ValueError, "budget of the study laws must be steps:N"),
        ({"sigmas": "karras"}, ValueError, "sigmas must read NAME:STEPS"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"held_out": 1.5}, ValueError, "held_out must be in"),
    ],
)
def test_what_cannot_be_studied(fields, error, message):
    with pytest.raises(error, match=message):
        LawStudy(**fields)


@pytest.mark.core
def test_the_preset_is_whole_and_its_tiny_form_is_the_same_study():
    preset = PRESETS["laws"]
    assert isinstance(preset, LawStudy)
    assert preset.sections == SECTIONS
    tiny = preset.tiny()
    assert tiny.num_samples < preset.num_samples
    assert dataclasses.replace(tiny, num_samples=1000, budget=preset.budget) == preset


def test_weighted_data_is_refused(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
    np.savez(tmp_path / "w.npz", train_images=x[:30], test_images=x[30:], weights=np.ones(30))
    with pytest.raises(ValueError, match="data has weights"):
        run(LawStudy(data=f"npz:{tmp_path / 'w.npz'}"), tmp_path / "out", progress=False)
