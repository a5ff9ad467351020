"""Tables, figures and comparisons say what results say; README is not stale."""

import copy
from pathlib import Path

import pytest

from benchmarks import __main__ as cli
from benchmarks import asked, compare, plots, record, report, tables

ROOT = Path(__file__).parents[2]


def timed(p10: float, p50: float, p90: float) -> dict:
    return {"p10": p10, "p50": p50, "p90": p90, "rounds": 5, "noisy": False}


def ratio(p10: float, p50: float, p90: float) -> dict:
    return {"of": "diffusers_unet / jdiff", **timed(p10, p50, p90)}


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
        **{"num_params": 1000, "flops_per_image": 2_000_000, "peer_num_params": 1200},
        **{"peer_flops_per_image": 3_000_000, "ratio": ratio(1.8, 2.0, 2.2)},
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
    assert "diffusers_unet default, train" in text
    figures = [path for path in made if path.suffix == ".png"]
    assert [path.name for path in figures] == ["frontier-digits-imagined-2-cores-cpu.png"]
    assert figures[0].read_bytes().startswith(b"\x89PNG")
    assert f"benchmarks/results/{figures[0].name}" in text
    # It carries what it was drawn from, so that an old one is noticed.
    title, about = report.caption(frontier, "digits", frontier["rows"])
    assert about == "300 training images; steps 1,000, of 64 images each step; heun, karras:18"
    _, falling = report.caption(frontier, "digits", [frontier["rows"][0] | {"schedule": "cosine"}])
    assert "of 64 images each step, cosine learning rate; heun" in falling
    assert plots.carried(figures[0]) == plots.digest(frontier["rows"], title, about)
    other = [frontier["rows"][0] | {"realism": of_seeds(0.3)}, frontier["rows"][1]]
    assert plots.carried(figures[0]) != plots.digest(other, title, about)
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
        for data, rows in report.frontiers(result):
            figure = record.RESULTS / report.figure(result, data)
            drawn = plots.digest(rows, *report.caption(result, data, rows))
            assert plots.carried(figure) == drawn, f"{figure.name} is stale"


def test_what_became_slower_beyond_the_noise(training):
    slower = copy.deepcopy(training)
    slower["rows"][0]["ratio"] = ratio(1.2, 1.25, 1.3)
    lines, count = compare.between(training, slower)
    assert count == 1
    said = "slower   diffusers_unet default, train, diffusers_unet / jdiff: 1.60 times the time"
    assert lines[0] == said
    lines, count = compare.between(slower, training)
    assert count == 0
    assert lines[0].startswith("faster")
    # A smaller median within the noise is no regression, and seconds tell how busy the machine was.
    noisy = copy.deepcopy(training)
    noisy["rows"][0]["ratio"] = ratio(1.5, 1.6, 1.9)
    noisy["rows"][0]["seconds"]["jdiff"] = timed(8.0, 9.0, 10.0)
    assert compare.between(training, noisy) == (["1 of 1 numbers within the noise."], 0)
    # Beside another version of the peer the ratio says nothing of jdiff, so its seconds count.
    noisy["rows"][0]["peer_versions"] = {"torch": "3"}
    lines, count = compare.between(training, noisy)
    assert count == 1
    assert lines[0] == "slower   diffusers_unet default, train, jdiff: 9.00 times the time"


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
    assert lines[0] == "gone     train mlp"
    failed = result("training", [row, {"case": "x", "status": "failed", "error": "broke"}])
    lines, count = compare.between(old, failed)
    assert count == 1
    assert lines[-1] == "fails now x: broke"
    with pytest.raises(ValueError, match="one suite"):
        compare.between(old, frontier)
    with pytest.raises(ValueError, match="one device"):
        compare.between(old, new | {"device": "1 x TPU"})


ARCHITECTURES = ("unet:width=16,levels=2,skips=false", *(f"mlp:width={w}" for w in range(12)))


def spread_out(num_train: int) -> list[dict]:
    """Thirteen architectures, many of them near each other, as frontiers are."""
    words = ("memorizes", "creates", "unrealistic", "mixed")
    return [
        frontier_row(name, (0, 0, 0.5, 1)[i % 4], 0.1 * (i // 2), {words[i % 4]: 2, "mixed": 1})
        | {"num_train": num_train}
        for i, name in enumerate(ARCHITECTURES)
    ]


FIGURES = {
    "thirteen": spread_out(300),
    "one": spread_out(300)[:1],
    "two sizes": [*spread_out(1000), *spread_out(10_000)],
    "all at one place": [
        row | {"memorized_fraction": of_seeds(1.0), "realism": of_seeds(1.0)}
        for row in (*spread_out(1000), *spread_out(10_000))
    ],
    "more than a column": [
        row | {"architecture": f"{row['architecture']}{i}"} for i in "ab" for row in spread_out(300)
    ],
}


@pytest.mark.parametrize("name", list(FIGURES))
def test_the_texts_of_a_figure_lie_on_the_page_and_not_on_each_other(name):
    rows = FIGURES[name]
    title, about = report.caption(result("frontier", rows), "tfds:fashion_mnist", rows)
    figure = plots.drawn(rows, title, about)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    words = {"nonsense", "creations", "copies"}  # in the background
    texts = [text for text in figure.texts + axes.texts if text.get_text() not in words]
    numbers = [text.get_text() for text in axes.texts if text.get_text() not in words]
    assert sorted(map(int, numbers)) == list(range(1, len(rows) + 1))
    boxes = [text.get_window_extent() for text in texts]
    page = figure.bbox
    for text, box in zip(texts, boxes, strict=True):
        inside = page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert inside, text.get_text()
    for i, box in enumerate(boxes):
        for j in range(i):
            lie_on_each_other = box.overlaps(boxes[j])
            assert not lie_on_each_other, (texts[i].get_text(), texts[j].get_text())


def test_two_sizes_of_training_sets_are_told_apart():
    rows = FIGURES["two sizes"]
    found = result("frontier", rows)
    title, about = report.caption(found, "digits", rows)
    assert about.startswith("1,000 and 10,000 training images")
    assert "frontier, digits, 1,000, 10,000 training images" in report.text(found)
    figure = plots.drawn(rows, title, about)
    heads = [text.get_text() for text in figure.texts if "training images" in text.get_text()]
    assert [head.split()[1] for head in heads[1:]] == ["1,000", "10,000"]
    shapes = {head.split()[0] for head in heads[1:]}
    assert len(shapes) == 2  # as the points' are


def test_numbers_that_are_no_times_are_compared_too():
    """Memory, compilation, accuracies: each with the factor that is more than its noise."""
    of = lambda **row: result("closed_forms", [{"case": "a", **row}])
    mb = lambda value, how="the program": of(peak_mb=value, peak_of=how)
    lines, count = compare.between(mb(280.0), mb(900.0))
    assert count == 1
    assert lines[0] == "larger   a, MB of the program: 3.21 times the memory"
    assert compare.between(mb(280.0), mb(300.0))[1] == 0
    assert compare.between(mb(1.0), mb(10.0))[1] == 0  # a few megabytes
    lines, count = compare.between(mb(280.0, "the process"), mb(900.0))  # counted in another way
    assert count == 0
    assert lines[0] == "not told a, MB of the process, which OLD has"
    assert compare.between(of(compile_seconds=10.0), of(compile_seconds=20.0))[1] == 1
    assert compare.between(of(compile_seconds=0.001), of(compile_seconds=0.9))[1] == 0
    lines, count = compare.between(of(weight_error=1e-6), of(weight_error=1e-4))
    assert (count, lines[0]) == (1, "coarser  a, weight_error: 100.00 times the error")
    assert compare.between(of(weight_error=0.0), of(weight_error=1e-4))[1] == 1


def test_another_work_compares_with_nothing_and_flags_are_told(training):
    other = copy.deepcopy(training)
    other["rows"][0] |= {"batch": 8, "ratio": ratio(0.1, 0.2, 0.3)}
    name = "diffusers_unet default, train"
    assert compare.between(training, other) == (
        [
            f"no match {name}, whose work is another: batch 4 -> 8",
            "0 of 0 numbers within the noise.",
        ],
        0,
    )
    old = training | {"flags": ""}
    slower = copy.deepcopy(training)  # by more FLOPs: that is no excuse
    slower["rows"][0] |= {"flops_per_image": 9_000_000, "ratio": ratio(0.9, 1.0, 1.1)}
    assert compare.between(training, slower)[1] == 1
    lines, _ = compare.between(old, training | {"flags": "NPROC=1", "commit": "abc"})
    assert lines[:2] == [f"commit   {training['commit']} -> abc", "flags     -> NPROC=1"]


def test_what_a_frontier_finds_otherwise_is_told(frontier):
    other = copy.deepcopy(frontier)
    other["rows"][1] |= {"realism": of_seeds(0.5), "verdicts": {"unrealistic": 3}}
    other["rows"][1]["novelty"] = of_seeds(1.015)  # within the ranges
    lines, count = compare.between(frontier, other)
    assert count == 0
    assert lines[:2] == [
        "finds    digits: unet:width=16, realism 0.9 (0.89 - 0.91) -> 0.5 (0.49 - 0.51)",
        "finds    digits: unet:width=16, verdict creates 2, mixed 1 -> unrealistic 3",
    ]
    assert len(lines) == 3


def test_a_skipped_row_is_named_and_is_no_regression(training):
    lost = {"case": "diffusers_unet default, train", "status": "skipped", "reason": "no torch"}
    lines, count = compare.between(training, result("training", [lost, training["rows"][1]]))
    assert count == 0
    assert lines[0] == "skipped  diffusers_unet default, train: no torch"
    # Of a case in parts, the whole of which is skipped or fails now.
    parts = [{"case": "sweep", "part": p, "seconds": {"jdiff": timed(1, 2, 3)}} for p in "ab"]
    whole = lambda status, **why: result("training", [{"case": "sweep", "status": status, **why}])
    lines, count = compare.between(result("training", parts), whole("skipped", reason="why"))
    assert (count, lines[0]) == (0, "skipped  sweep: a: why")
    lines, count = compare.between(result("training", parts), whole("failed", error="broke"))
    assert (count, lines[-1]) == (1, "fails now sweep: broke")


def test_where_peers_of_measures_ran_is_said():
    """Beside an accelerator they have its host's CPU."""

    def measured(p90: float, device: str) -> dict:
        both = {"prdc package": timed(1, 2, 3), "jdiff": timed(1, 2, 3)}
        of = ratio(1.0, 1.0, p90) | {"of": "prdc package / jdiff"}
        return result("metrics", [{"case": "prdc", "seconds": both, "ratio": of}], device=device)

    # One line, a column a device; of the GPU nothing was asked.
    found = [measured(2.0, "1 x CPU (imagined, 2 cores)"), measured(1.0, "1 x NVIDIA H200")]
    line = (
        "| prdc | at least 2 | 1 (1 - 2): missed, within the noise | "
        "1 (1 - 1): the other on the host's CPU"
    )
    # Of size cpu, which is not the one for a GPU.
    text = report.part(found)
    assert line in text
    assert "| imagined, 2 cores | NVIDIA H200, size cpu |" in text


def test_how_fast_the_machine_was_is_said():
    peak = lambda value: result(
        "training", [{"case": "matmul peak", "flops_per_s": {"float32": value}}]
    )
    lines, count = compare.between(peak(2e11), peak(1.5e11))
    assert (count, lines[0]) == (0, "matmul peak over that of OLD: float32 0.75")


def test_what_was_asked_stands_beside_it(training):
    """In README too: of size cpu on a CPU, the loop's cost on any device."""
    row = training["rows"][0]
    (line,) = (line for line in report.part([training]).splitlines() if "diffusers_unet" in line)
    assert line == (
        "| diffusers_unet default, train | at least 1 | 2 (1.8 - 2.2): reached | "
        "1.2 k parameters (1.20 x), 3 M FLOPs (1.50 x) |"
    )
    assert "at least 1: reached" in report.text(training)
    found = asked.of(training, row, "ratio")
    assert found is not None
    assert found.answer(0.99) == "missed"
    assert asked.of(training | {"size": "smoke"}, row, "ratio") is None
    assert asked.of(training | {"device": "1 x NVIDIA H200"}, row, "ratio") is None
    assert asked.of(training, {"case": "frechet", "ratio": {}}, "ratio") is None
    assert asked.of(training, {"case": row["case"]}, "ratio") is None
    # Nothing was asked of other machines' cores, nor of settings of one's own.
    many = training["device"].replace(", 2 cores)", ", 64 cores)")
    assert many != training["device"]
    assert asked.of(training | {"device": many}, row, "ratio") is None
    assert asked.of(training | {"settings": {"data": "digits"}}, row, "ratio") is None
    loop = {"case": "bare step over loop", "ratio": {}}
    found = asked.of({"size": "accelerator", "device": "1 x NVIDIA H200"}, loop, "ratio")
    assert str(found) == "at least 0.952"
    assert found is not None
    # 1.05 times the bare step is what was asked for, 1.06 times is not.
    assert found.answer(1 / 1.049) == "reached"
    assert found.answer(1 / 1.06) == "missed"
    assert found.answer(0.95, {"p10": 0.94, "p90": 0.96}) == "missed, within the noise"
    measures = {
        **{"case": "all measures", "all_seconds": 61.0},
        "not_taken": {"agreements": "it needs a noise"},
    }
    found = result("metrics", [measures])
    line = next(line for line in report.part([found]).splitlines() if "61" in line)
    assert line.endswith("one run | at most 60 | 61: missed |")
    assert "agreements: it needs a noise" in report.text(found)


def test_every_case_that_was_asked_of_is_one_of_size_cpu():
    """Otherwise its figure would never be held against what was asked."""
    cases = {case.name for make in cli.SUITES.values() for case in make("cpu", cli.Options())}
    assert {name for name, _ in asked.ASKED} <= cases


def test_sweeps_have_their_spread_and_dashes_for_what_is_missing():
    sweep = {
        **{"case": "sweep", "part": "100 images", "flops_per_s": 3e9},
        "seconds": {"jdiff": timed(1.0, 2.0, 3.0)},
    }
    text = report.text(result("closed_forms", [sweep]))
    # FLOP/s of the slowest and of the fastest tenth: 3 x 2 / 3 and 3 x 2 / 1.
    assert "3 (2 - 6, 5 rounds) GFLOP/s  –" in text
    row = {
        **{"case": "sample a", "architecture": "a", "image_shape": [8, 8, 1], "batch": 4},
        **{"nfe": 7, "images_per_s": timed(1.0, 2.0, 3.0)},
    }
    without = report.text(result("sampling", [row])).splitlines()[2]
    assert without.split()[-5:] == [tables.DASH] * 5
    row |= {"evaluations_per_s": 14.0, "peak_mb": 5.0, "flops_per_image": 12_300_000}
    line = report.text(result("sampling", [row])).splitlines()[2]
    assert {"14", "5", "12.3"} <= set(line.split())


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
