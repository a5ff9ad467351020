"""The page of the study `laws`: every row is on it, bad news first, and nothing is loaded."""

import re
import xml.etree.ElementTree

import numpy as np
import pytest
from page_reader import PageReader

from jdiff.report import glossary, law_glossary
from jdiff.report.law_page import laws_table, render_laws, write_laws
from jdiff.report.law_rows import SECTIONS, LawRow


class Page(PageReader):
    VOID = ("meta", "br", "wbr")

    def keep(self, given):
        self.cells[self.row, self.column] = float(given["value"] or "nan")


def a_test(name, passed=True, statistic: float | None = 0.8125, p_value: float | None = 0.25):
    return {
        "name": name,
        "statistic": statistic,
        "expected": 1.0,
        "p_value": p_value,
        "passed": passed,
        "detail": f"detail of {name}",
    }


def check(*rows, **more):
    passed = all(row["passed"] for row in rows)
    found = {"about": "law", "passed": passed, "alpha": 0.01, "num_samples": 1000, "overflowed": 0}
    return found | {"rows": list(rows)} | more


REJECTED = check(a_test("mean"), a_test("radius", False, 7.0, 0.0))
MEASURES = {
    "memorized_fraction": {"value": 0.25, "interval": [0.2, 0.3], "control": 0.0},
    "law_distance": {"value": 0.125, "interval": None, "control": 0.03125, "n": 990},
}


def record(label, section, **more):
    return {
        "label": label,
        "section": section,
        "data": "digits",
        "status": "ok",
        "error": None,
        "solver": "ddim",
        "sigmas": "karras:18",
        "num_samples": 1000,
        "num_train": 1437,
        "law": "gaussian",
        "why_no_law": None,
        "check": None,
        "twins": [],
        "measures": MEASURES,
        "seconds": {"fit": 0.5, "sample": 1.5, "law": None},
        "family": None,
        "knob": None,
    } | more


def line_arrays(rng, n=50):
    edges = np.linspace(-3, 3, 31)
    return {
        "samples": np.append(rng.normal(size=n - 1), 40.0),
        "points": np.array([-1.0, 1.0]),
        "weights": np.array([0.5, 0.5]),
        "edges": edges,
        "density": np.full(30, 1 / 6),
        "optimal_samples": rng.choice([-1.0, 1.0], n),
    }


def make_rows():
    """One row a section at least; a failed one, one without arrays, one without a law."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (4, 4, 4, 1)).astype(np.float32)
    variances = np.array([2.0, 0.5, 0.125])
    push = {
        "law": "push-forward",
        "data": "two_points",
        "check": check(a_test("escaped", statistic=0.0175), a_test("shape")),
        "measures": {"escaped": {"value": 0.0175, "control": 0.0150, "n": 50}},
    }
    gaussian = {"samples": images, "law_samples": images}
    gaussian |= {"predicted": variances, "measured": variances}
    twins = [{"about": "the training set itself", "check": REJECTED}]
    finite = check(a_test("finite", p_value=None), a_test("at atoms", p_value=None))
    toy = {"training": rng.normal(size=(20, 2)), "samples": rng.normal(size=(900, 2))}
    no_law = {"law": None, "why_no_law": "because <h> is no polynomial", "knob": 2}
    sweep = {"family": "rank", "check": None}
    return [
        LawRow(record("polynomial:degree=1", "star", knob=1, **push), line_arrays(rng)),
        LawRow(record("polynomial:degree=5", "two_points", knob=5, **push), line_arrays(rng)),
        LawRow(record("A: three points", "moments", knob=2, **push), line_arrays(rng)),
        LawRow(record("linear", "gaussian", check=check(a_test("mean")), twins=twins), gaussian),
        LawRow(record("kept_without_arrays", "gaussian", check=check(a_test("radius")))),
        LawRow(record("bottleneck_plane", "plane", law="atoms", check=finite), toy),
        LawRow(
            record("optimal", "atoms", law="atoms", check=finite),
            {"samples": images, "atoms": images},
        ),
        LawRow(
            record("random_polynomial", "without_law", **no_law),
            {"samples": images, "singular_values": np.array([1.0, 0.5, 1e-7])},
        ),
        LawRow(record("linear:rank=1", "sweep", knob=1, **sweep), {}),
        LawRow(record("linear:rank=4", "sweep", knob=4, **sweep)),
        LawRow(
            {
                "label": "mlp<1>",
                "section": "plane",
                "status": "failed",
                "error": "loss is NaN at step <420>",
            }
        ),
    ]


RESULTS = {
    "schema": 1,
    "study": {"name": "laws", "solver": "ddim", "sigmas": "karras:18", "held_out": None},
    "command": "jdiff study laws",
    "device": "a CPU",
    "versions": {"jdiff": "0.1.0", "jax": "0.10.2"},
    "notes": ["Held-out digits were drawn at random."],
}


@pytest.fixture(scope="module")
def rows():
    return make_rows()


@pytest.fixture(scope="module")
def html(rows):
    return render_laws(RESULTS, rows)


def changed(row, **more):
    return LawRow({**row.record, **more}, row.arrays)


@pytest.mark.core
def test_every_row_is_on_the_page(html, rows):
    words = Page(html).words
    for row in rows:
        assert row.label in words
    for name in SECTIONS:
        assert law_glossary.SECTIONS[name].title in words
        assert law_glossary.SECTIONS[name].read in words


def test_sections_come_in_their_order_and_without_rows_not_at_all(html, rows):
    places = [html.index(f'<section id="{name.replace("_", "-")}"') for name in SECTIONS]
    assert places == sorted(places)
    html = render_laws(RESULTS, rows[3:4])
    assert re.findall(r'<section id="([\w-]*)"', html) == ["gaussian", "checks", "made"]


def test_nothing_is_loaded_from_anywhere(html):
    read = Page(html)
    outside = [ref for ref in read.references if not ref.startswith(("data:", "#"))]
    assert outside == [glossary.PAPER]
    assert re.findall(r"https?://[^\s\"<]*", html) == [glossary.PAPER]
    assert not re.search(r"<(script|link|iframe)|@import|url\((?!#)", html)
    assert len(set(read.ids)) == len(read.ids)
    inside = [ref[1:] for ref in read.references if ref.startswith("#")]
    inside += re.findall(r"url\(#([^)]*)\)", html)
    assert set(inside) <= set(read.ids)


def test_figures_are_drawings_in_the_pages_inks(html):
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.S)
    # star, two points and their end, moments; two strips and a diagonal; a plane; two strips of
    # atoms; a strip and a spectrum; the sweep.
    assert len(drawings) == 1 + 2 + 1 + 3 + 1 + 2 + 2 + 1
    for drawing in drawings:
        assert xml.etree.ElementTree.fromstring(drawing).get("aria-label")
        assert "#000000" not in drawing
        assert "<style" not in drawing
    assert "var(--muted)" in html


def test_the_head_counts_rows(html, rows):
    words = Page(html).words
    assert "In 7 of 7 cases the samples obey the distribution" in words
    assert "rejected 1 of 1 wrong samples, the training set itself among them." in words
    assert "Failed to run: mlp<1>." in words
    assert "digits (N = 1,437)" in words
    assert "Sampled by ddim on the grid karras:18" in words
    assert "not rejected" not in words


@pytest.mark.core
def test_a_wrong_law_that_passes_is_bad_news(rows):
    """In the head, below its row, and in the terminal: by words, not by colour alone."""
    about = "samples of something else"
    twins = [*rows[3].twins, {"about": about, "check": check(a_test("mean"))}]
    bad = changed(rows[3], twins=twins)
    words = Page(render_laws(RESULTS, [bad])).words
    assert "rejected 1 of 2 wrong samples" in words
    assert f"Wrong, yet not rejected: {about}, held against the law of linear" in words
    assert f"{about}: ✗ not rejected , though it should be" in words
    assert "the training set itself: ✓ rejected by radius (p < 1e−300)" in words
    assert f"1 of 2; NOT {about}" in laws_table([bad])


def test_the_training_set_is_praised_only_when_every_one_was_rejected(rows):
    passed = {"about": "the training set itself", "check": check(a_test("mean"))}
    words = Page(render_laws(RESULTS, [rows[3], changed(rows[3], twins=[passed])])).words
    assert "rejected 1 of 2 wrong samples." in words


def test_a_law_that_is_not_obeyed_says_by_which_test(rows):
    bad = changed(rows[3], check=REJECTED | {"overflowed": 3})
    words = Page(render_laws(RESULTS, [bad])).words
    assert "In 0 of 1 cases the samples obey" in words
    assert "linear (digits): rejected by radius." in words
    assert "✗ 7.00 p < 1e−300" in words
    assert "Fails radius: 7.00, where the law has 1.00; p < 1e−300; detail of radius." in words
    assert "1,000 samples, 3 overflowed" in words


def test_every_number_of_the_tables_is_the_rows_number(html, rows):
    cells = Page(html).cells
    for row in rows:
        for test in (row.check or {}).get("rows", ()):
            found = cells.pop((f"{row.label}, {row.record['data']}", test["name"]))
            assert found == test["statistic"]
    assert cells == {}


def test_what_escaped_is_stated(html):
    words = Page(html).words
    assert words.count("escaped: 1.8 % of the samples, 1.5 % by the law") == 3
    assert html.count("1 of 50 lie outside") == 3  # in the picture itself


def test_why_there_is_no_law(html):
    assert "because <h> is no polynomial" in Page(html).words


def test_only_some_of_many_points_are_drawn_and_it_says_so(html):
    assert "the first 800 of 900 samples" in Page(html).words


def test_samples_that_the_sweep_leaves_out_are_counted(rows):
    measures = {
        **MEASURES,
        "law_distance": MEASURES["law_distance"] | {"constants": {"left_out": 10, "bound": 12.5}},
    }
    words = Page(render_laws(RESULTS, [changed(rows[8], measures=measures), rows[9]])).words
    assert "linear:rank=1: 10 of 1,000 samples lie beyond 12.5 of the mean" in words


def test_failures_show_their_error_and_holes_are_dashes(html):
    read = Page(html)
    assert "loss is NaN at step <420>" in read.words
    assert "None" not in read.words
    assert "nan" not in " ".join(read.words.lower().replace("loss is nan", "").split())
    (line,) = re.findall(r"<tr><th scope=\"row\">mlp&lt;1&gt;</th>.*?</tr>", html, flags=re.S)
    assert line.count("<td>–</td>") == 7
    assert "0.50 / 1.5 / –" in read.words


def test_numbers_that_are_missing_are_dashes(rows):
    hole = a_test("mean", statistic=None, p_value=float("nan")) | {"expected": None}
    words = Page(render_laws({"schema": 1}, [changed(rows[4], check=check(hole))])).words
    assert "✓ – law: –" in words
    assert "nan" not in words.lower().split()


def test_tests_that_the_page_does_not_know_have_columns_too(rows):
    odd = changed(rows[4], check=check(a_test("kurtosis"), a_test("mean")))
    read = Page(render_laws(RESULTS, [odd]))
    assert read.cells["kept_without_arrays, digits", "kurtosis"] == 0.8125


def test_how_it_was_made_and_what_the_words_mean(html):
    words = Page(html).words
    for text in (
        "study laws",
        "jdiff study laws",
        "a CPU",
        "jdiff = 0.1.0; jax = 0.10.2",
        "solver ddim",
        "held out –",
        "Held-out digits were drawn at random.",
        "arXiv:2605.16415",
        law_glossary.TESTS["radius"],
        law_glossary.DEFINITIONS["wrong laws"],
        glossary.measure("memorized_fraction").definition,
    ):
        assert text in words
    assert law_glossary.TESTS["codes"] not in words  # no row took that test


def test_equal_rows_give_equal_bytes(html, rows):
    assert render_laws(RESULTS, make_rows()) == html


@pytest.mark.core
def test_the_text_table_says_the_rows_numbers(rows):
    lines = laws_table([*rows[3:4], *rows[7:9], rows[10]]).splitlines()
    cells = [re.split(r" {2,}", line) for line in lines]
    assert cells[1] == [
        *("gaussian", "linear", "digits", "gaussian", "obeys"),
        *("0.250 [0.200–0.300] (0.000)", "0.125 (0.0312)", "1 of 1"),
    ]
    assert cells[2][:5] == ["without law", "random_polynomial", "digits", "–", "no law"]
    assert cells[3][:5] == ["sweep", "linear:rank=1", "digits", "gaussian", "not tested"]
    assert cells[4][1:] == ["mlp<1>", "–", "–", "failed", "–", "–", "–"]
    assert lines[5] == "mlp<1> failed: loss is NaN at step <420>"
    starts = [lines[0].index(head) for head in cells[0]]
    for line in lines[1:5]:
        assert all(line[start] != " " and line[start - 1 : start] in ("", " ") for start in starts)


def test_whose_law_was_obeyed_is_said(rows):
    other = changed(rows[3], law_of="A")
    bound = changed(rows[3], law="dimension")
    text = laws_table([other, bound])
    assert "obeys the law of A" in text
    assert "within its bound" in text
    assert "obeys the law of A" in Page(render_laws(RESULTS, [other])).words


def test_zero_escapes_are_not_worth_a_line_and_deviations_are(rows):
    measures = {
        "escaped": {"value": 0.0, "control": 0.0},
        "deviation": {"value": 0.9517, "control": 0.9462},
    }
    words = Page(render_laws(RESULTS, [changed(rows[0], measures=measures)])).words
    assert "escaped:" not in words
    assert "standard deviation 0.952, by the law 0.946" in words


def test_the_false_alarm_rate_is_that_of_tests_of_chance(rows):
    record = dict(rows[3].record)
    checked = {**record["check"], "alpha": 0.00031234}
    facts = {
        **{"passed": True, "alpha": 0.05},
        "rows": [{"name": "rank", "statistic": 4, "expected": 4, "p_value": None, "passed": True}],
    }
    both = [changed(rows[3], check=checked), changed(rows[3], check=facts, law="dimension")]
    words = Page(render_laws(RESULTS, both)).words
    assert "α = 0.00031 a check" in words
    assert "0.05" not in words


def test_refusals(rows):
    with pytest.raises(ValueError, match="rows must hold at least one row; got none"):
        render_laws(RESULTS, [])
    with pytest.raises(ValueError, match="is 2; this version of jdiff reads schema 1"):
        render_laws(RESULTS | {"schema": 2}, rows)


def test_written_whole_or_not_at_all(tmp_path, monkeypatch, rows):
    path = tmp_path / "new" / "report.html"
    write_laws(path, RESULTS, rows[10:])
    first = path.read_text(encoding="utf-8")
    assert first == render_laws(RESULTS, rows[10:])

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_laws(path, RESULTS, rows[8:10])
    assert path.read_text(encoding="utf-8") == first
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
