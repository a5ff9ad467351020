"""Tables, figures and comparisons say what results say; README is not stale."""

import copy
from pathlib import Path

import pytest

from benchmarks import compare, plots, record, report, tables

ROOT = Path(__file__).parents[2]


def timed(p10: float, p50: float, p90: float) -> dict:
    return {"p10": p10, "p50": p50, "p90": p90, "rounds": 5, "noisy": False}


def result(suite: str, rows: list, **more) -> dict:
    head = record.head(suite, "cpu", {})
    head |= {"device": "1 x CPU (imagined, 2 cores)", "command": "python -m benchmarks", **more}
    return {**head, "rows": [{"status": "ok", "took_seconds": 1.0, **row} for row in rows]}


def of_seeds(mean: float) -> dict:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}


def frontier_row(name: str, memorized: float, realism: float, verdicts: dict) -> dict:
    return {
        **{"case": "digits", "part": name, "architecture": name, "data": "digits"},
        **{"memorized_control": of_seeds(0.0), "frechet_control": of_seeds(0.1)},
        **{"budget": {"amount": 1000, "unit": "steps", "image_shape": None}, "batch": 64},
        **{"solver": "heun", "sigmas": "karras:18", "num_train": 300, "num_params": 1234},
        **{"steps": 1000, "nfe": 35, "verdicts": verdicts},
        **{"memorized_fraction": of_seeds(memorized), "realism": of_seeds(realism)},
        **{"novelty": of_seeds(1.0), "frechet_distance": of_seeds(0.2)},
        **{"agreement_with_optimal": of_seeds(0.5), "train_images_per_s": None},
        "sample_images_per_s": of_seeds(100.0),
    }


@pytest.fixture
def frontier() -> dict:
    rows = [
        frontier_row("optimal", 1.0, 1.05, {"memorizes": 1}),
        frontier_row("unet:width=16", 0.0, 0.9, {"creates": 2, "mixed": 1}),
    ]
    return result("frontier", rows)


@pytest.fixture
def training() -> dict:
    row = {
        **{"case": "diffusers_unet default, train", "image_shape": [8, 8, 1], "batch": 4},
        "seconds": {"diffusers_unet": timed(1.9, 2.0, 2.1), "jdiff": timed(0.9, 1.0, 1.1)},
        "ratio": {"of": "diffusers_unet / jdiff", **timed(1.8, 2.0, 2.2)},
    }
    lost = {"case": "dewml_unet default, train", "status": "skipped", "reason": "no dew"}
    return result("training", [row, lost])


def test_tables_have_every_number_and_what_is_missing(training, frontier):
    text = report.text(training)
    assert "2 (1.8 - 2.2, 5 rounds)" in text
    assert "no dew" in text
    text = report.text(frontier)
    assert "creates 2, mixed 1" in text
    assert "0.9 (0.89 - 0.91)" in text


def test_the_page_the_figure_and_readmes_part(training, frontier, tmp_path):
    for number, found in enumerate((training, frontier)):
        record.write(tmp_path / f"{number}.json", found)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nstale\n{report.END}\nafter\n")
    made = report.write(tmp_path, readme)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "stale" not in text
    assert "diffusers_unet / jdiff" in text
    figures = [path for path in made if path.suffix == ".png"]
    assert [path.name for path in figures] == ["frontier-digits-cpu-2-cores-cpu.png"]
    assert figures[0].read_bytes().startswith(b"\x89PNG")
    assert f"benchmarks/results/{figures[0].name}" in text
    # Written again, nothing changes.
    before = text, (tmp_path / "README.md").read_bytes()
    report.write(tmp_path, readme)
    assert before == (readme.read_text(), (tmp_path / "README.md").read_bytes())


def test_a_readme_without_marks_and_a_folder_without_results_are_refused(training, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing")
    with pytest.raises(FileNotFoundError, match="no results"):
        report.write(tmp_path, readme)
    record.write(tmp_path / "0.json", training)
    with pytest.raises(ValueError, match="must hold"):
        report.write(tmp_path, readme)
    assert readme.read_text() == "nothing"


def test_readme_is_what_the_results_say():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = report.read(record.RESULTS)
    assert readme == report.replaced(readme, report.part(found)), (
        "README.md is stale: run python -m benchmarks report"
    )
    page = (record.RESULTS / "README.md").read_text(encoding="utf-8")
    assert page == report.page(found), "run python -m benchmarks report"
    for result in found:
        for data, _ in report.frontiers(result):
            assert (record.RESULTS / report.figure(result, data)).exists()


def test_what_became_slower_beyond_the_noise(training):
    slower = copy.deepcopy(training)
    slower["rows"][0]["seconds"]["jdiff"] = timed(1.4, 1.5, 1.6)
    lines, count = compare.between(training, slower)
    assert count == 1
    assert lines[0] == "slower   diffusers_unet default, train, jdiff: 1.50 times the time"
    lines, count = compare.between(slower, training)
    assert count == 0
    assert lines[0].startswith("faster")
    # A larger median within the noise is no regression; a peer's time is none of jdiff's.
    noisy = copy.deepcopy(training)
    noisy["rows"][0]["seconds"]["jdiff"] = timed(0.8, 1.5, 1.9)
    noisy["rows"][0]["seconds"]["diffusers_unet"] = timed(8.0, 9.0, 10.0)
    assert compare.between(training, noisy) == (["1 of 1 timings within the noise."], 0)


def test_rates_that_fall_are_slower(frontier):
    row = {"case": "train mlp", "images_per_s": timed(90, 100, 110), "step_seconds": 1.0}
    old, new = result("training", [row]), result("training", [copy.deepcopy(row)])
    new["rows"][0]["images_per_s"] = timed(45, 50, 55)
    lines, count = compare.between(old, new)
    assert count == 1
    assert "2.00 times the time" in lines[0]
    gone = result("training", [])
    lines, count = compare.between(old, gone)
    assert count == 1
    assert lines[0] == "gone     train mlp, images/s"
    failed = result("training", [row, {"case": "x", "status": "failed", "error": "broke"}])
    lines, count = compare.between(old, failed)
    assert count == 1
    assert lines[-1] == "fails now x: broke"
    with pytest.raises(ValueError, match="one suite"):
        compare.between(old, frontier)
    with pytest.raises(ValueError, match="one device"):
        compare.between(old, new | {"device": "1 x TPU"})


def test_numbers_beside_points_do_not_lie_on_each_other(tmp_path):
    """Thirteen architectures at one place: their numbers stand side by side."""
    rows = [frontier_row(f"mlp:width={w}", 0.0, 1.0, {"creates": 3}) for w in range(1, 14)]
    places = plots.places(rows)
    assert len(set(places)) == 13
    apart = min(
        max(abs(a[0] - b[0]) / 0.032, abs(a[1] - b[1]) / 0.045)
        for i, a in enumerate(places)
        for b in places[:i]
    )
    assert apart >= 1
    plots.frontier(rows, "thirteen", tmp_path / "a.png")


def test_spelled_numbers():
    assert tables.spell(None) == "–"
    assert tables.spell(12345.6) == "12,346"
    assert tables.spell(0.01234) == "0.0123"
    assert tables.spell_range({"mean": 2.0, "low": 2.0, "high": 2.0}) == "2"
    assert tables.spell_spread({**timed(1, 2, 9), "noisy": True}) == "2 (1 - 9, 5 rounds, noisy)"


def test_numbers_without_a_spread_must_differ_by_more():
    """The minutes of a study, images a second of the frontier."""
    study = {"case": "demo", "study_seconds": 100.0}
    old = result("studies", [study])
    for seconds, worse in ((120.0, 0), (130.0, 1), (75.0, 0)):
        new = result("studies", [{**study, "study_seconds": seconds}])
        assert compare.between(old, new)[1] == worse
    rate = lambda mean: result("frontier", [{"case": "d", "sample_images_per_s": of_seeds(mean)}])
    assert compare.between(rate(100.0), rate(50.0))[1] == 1
    assert compare.between(rate(100.0), rate(200.0))[1] == 0
