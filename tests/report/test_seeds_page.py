"""The page of several seeds: a line an architecture, means and ranges by hand, claims, size."""

import re

import numpy as np
import pytest
from page_reader import PageReader

from jdiff.report import Row, claims, entries, render, show, table, write

# The literature's sentences with what a study found of each.
CLAIMS = [
    {"claim": "Skips matter.", "shown": True, "evidence": "Precision 0.34 against 0.90."},
    {"claim": "Width matters.", "shown": False, "evidence": "0.51 and 0.52."},
    {"claim": "Padding matters.", "shown": None, "evidence": "Two seeds failed."},
]


class Page(PageReader):
    VOID = ("meta", "br", "link", "img", "wbr")

    def keep(self, given):
        values = [float(value) for value in (given["value"] or "").split()]
        self.cells.setdefault((self.row, self.column, given["class"]), values)


@pytest.fixture
def seeds(rng, make):
    return make.seeds(rng, ["unet", "unet:skips=false", "mlp"])


@pytest.fixture
def bare(rng, make):
    """The same without pictures and what explains them: their page is made sooner."""
    return make.seeds(rng, ["unet", "unet:skips=false", "mlp"], bare=True)


@pytest.mark.core
def test_the_first_table_has_means_ranges_and_controls(results, bare, data):
    cells = Page(render(results, bare, data=data)).cells
    for label in ("unet", "unet:skips=false", "mlp"):
        own = [row for row in bare if row.label == label]
        for name in ("memorized_fraction", "precision", "frechet_distance"):
            values = [row.measure(name)["value"] for row in own]
            assert cells[label, name, "value"] == pytest.approx([np.mean(values)], rel=1e-12)
            assert cells[label, name, "interval range"] == [min(values), max(values)]
            assert cells[label, name, "against"] == [own[0].measure(name)["control"]]
        for path in (("num_params",), ("receptive_field",), ("flops_per_image",)):
            column = ".".join(path)
            assert cells[label, column, "value"] == [own[0].entry(*path)]
            assert (label, column, "interval range") not in cells  # equal in all
        for column in ("seconds.compile", "seconds.train", "images_per_s.train"):
            assert (label, column, "value") in cells
    # The table of single runs is there too, with its intervals over samples.
    entry = bare[4].measure("precision")
    assert cells["unet:skips=false, seed 1", "precision", "value"] == [entry["value"]]
    assert cells["unet:skips=false, seed 1", "precision", "interval"] == entry["interval"]


def test_the_words_of_seeds(results, bare, data):
    words = Page(render(results, bare, data=data)).words
    assert "trained with 3 seeds : other initial weights" in words
    assert "interval over samples, as the single runs have it, says nothing about training" in words
    assert "The first, unet , is what the others are compared with" in words
    assert "in 10 % of comparisons of 3 seeds with 3" in words
    assert "creates 3 of 3" in words
    assert "On digits, unet, unet:skips=false and mlp create ." in words


def test_arrows_stand_where_the_ranges_lie_apart(results, bare, data):
    """Seeds differ by up to 0.03125, architectures by 0.0625: all others lie above the first."""

    def arrows(label):
        html = render(results, bare, data=data)
        (row,) = re.findall(rf'class="row" data-row="{label}">.*?</tbody>', html, flags=re.S)
        (cell,) = re.findall(r'data-column="precision".*?</td>', row, flags=re.S)
        return cell.count("▲")

    assert [arrows(label) for label in ("unet", "unet:skips=false", "mlp")] == [0, 1, 1]
    # The ranges touch: no arrow.
    bare[3].record["measures"]["precision"]["value"] = bare[2].measure("precision")["value"]
    assert arrows("unet:skips=false") == 0


def test_a_failed_seed_is_shown_and_is_in_no_mean(results, bare, data):
    error = "loss is NaN at step <420>"
    bare[0] = Row({**bare[0].record, "status": "failed", "error": error, "measures": None})
    read = Page(render(results, bare, data=data))
    values = [row.measure("precision")["value"] for row in bare[1:3]]
    assert read.cells["unet", "precision", "value"] == pytest.approx([np.mean(values)], rel=1e-12)
    assert read.cells["unet", "precision", "interval range"] == sorted(values)
    assert "creates 2 failed 1" in read.words
    assert f"Seed 0 failed and is in no mean: {error}" in read.words
    assert "unet, unet:skips=false and mlp create" in read.words  # what ran agrees


def test_an_architecture_whose_seeds_all_failed(results, bare, data):
    for i in range(3):
        record = {"label": "unet", "status": "failed", "seed": i, "num_train": 1437}
        bare[i] = Row(record | {"error": f"error {i}"})
    read = Page(render(results, bare, data=data))
    assert "failed 3 of 3" in read.words
    assert all(f"seed {i}: error {i}" in read.words for i in range(3))
    assert ("unet", "precision", "value") not in read.cells
    assert "unet failed to run" in read.words


def test_a_missing_number_says_over_how_many_seeds_it_is(results, bare, data):
    bare[1].record["measures"]["precision"] = None
    html = render(results, bare, data=data)
    assert html.count("2 of 3 seeds") == 1
    value = np.mean([bare[i].measure("precision")["value"] for i in (0, 2)])
    assert Page(html).cells["unet", "precision", "value"] == pytest.approx([value], rel=1e-12)


def test_seeds_that_disagree_are_told(results, bare, data):
    for i, word in ((1, "mixed"), (2, "mixed")):
        bare[i].record["verdict"]["word"] = word
    words = Page(render(results, bare, data=data)).words
    assert "unet:skips=false and mlp create and unet differs from seed to seed ." in words
    assert "mixed 2 creates 1" in words


def test_other_seeds_are_folded_strips(results, seeds, data):
    html = render(results, seeds, data=data)
    folded = re.findall(r'<details class="more">.*?</details>', html, flags=re.S)
    assert [part.count("<svg") for part in folded] == [2, 2, 2]
    assert "samples of unet, seed 1" in folded[0]
    whole = re.sub(r"<details.*?</details>", "", html, flags=re.S)
    assert len(re.findall(r'aria-label="samples of ', whole)) == 3
    assert len(re.findall(r'aria-label="Learning curves', html)) == 3
    assert len(re.findall(r'aria-label="Each sample beside', html)) == 3


def test_one_seed_has_no_ranges_and_nothing_folded(results, rows, data):
    html = render(results, rows, data=data)
    for absent in ("<details", "range", "seeds", "What explains them", "What the literature"):
        assert absent not in Page(html).words
    assert "receptive field" not in Page(html).words  # records of old have none


def test_one_seed_that_is_explained_has_the_section_without_ranges(results, rng, make, data):
    rows = make.seeds(rng, seeds=1)
    read = Page(render(results, rows, data=data))
    assert "What explains them" in read.words
    assert "What they make of the same noise" in read.words
    column = "explained_by linear pearson_r"
    assert read.cells["unet", column, "value"] == [0.5]
    assert ("unet", column, "interval range") not in read.cells
    assert read.cells["unet", "receptive_field", "value"] == [5]


def test_the_table_of_explanations(results, seeds, data):
    html = render(results, seeds, data=data)
    read = Page(html)
    for words in ("local linear 5 × 5", "Does it treat every place alike?", "longer shifts"):
        assert words in read.words
    column = "explained_by optimal pearson_r"
    assert read.cells["unet:skips=false", column, "value"] == pytest.approx([0.328125])
    assert read.cells["unet:skips=false", column, "interval range"] == [0.3125, 0.34375]
    (best,) = re.findall(rf'class="[^"]*" data-column="{column}"', html)[:1]
    assert "best" not in best
    marked = re.findall(r'class="best[^"]*" data-column="([^"]*)"', html)
    assert marked[:2] == [
        "explained_by samples of optimal pearson_r",
        "explained_by local_linear 5 pearson_r",
    ]
    assert 'data-column="psnr_gap' not in html  # nor does any of them flood another table


def test_claims_are_said_with_what_was_found(results, bare, data):
    html = render(results | {"claims": CLAIMS}, bare, data=data)
    words = Page(html).words
    assert "1 not shown 1 cannot be told 1 shown" in words
    for claim, word in zip(CLAIMS, ("shown", "not shown", "cannot be told"), strict=True):
        assert f"{word} {claim['claim']} {claim['evidence']}" in words
    assert html.index('id="claims"') < html.index('id="answers"')
    items = re.findall(r'<li class="([^"]*)">', html)
    assert items == ["shown", "not-shown", "cannot-be-told"]
    for none in (results, results | {"claims": []}, results | {"claims": None}):
        assert "What the literature" not in render(none, bare[:1], data=data)


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"shown": True}, r"results\['claims'\]\[1\] must hold a sentence as 'claim'"),
        ("Skips matter.", r"results\['claims'\]\[1\] must hold a sentence as 'claim'"),
        ({"claim": "a", "shown": "no"}, r"\['claims'\]\[1\]\['shown'\] must be true, .* got 'no'"),
        ({"claim": "a"}, r"\['shown'\] must be true, false or null; got None"),
        ({"claim": "a", "shown": 1}, "got 1"),
    ],
)
def test_a_claim_that_is_none_is_refused(claim, message, results, bare, data, tmp_path):
    with pytest.raises(ValueError, match=message):
        claims.read([CLAIMS[0], claim])
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a", results | {"claims": [CLAIMS[0], claim]}, bare[:1], data=data)
    assert not (tmp_path / "a").exists()


def test_the_terminal_has_a_line_an_architecture_and_the_claims(seeds):
    error = "loss is NaN at step 420"
    seeds[8] = Row({**seeds[8].record, "status": "failed", "error": error, "measures": None})
    lines = table(seeds, CLAIMS).splitlines()
    assert len(lines) == 1 + 3 + 1 + 3
    cells = [re.split(r" {2,}", line) for line in lines[:4]]
    assert [row[:2] for row in cells[1:]] == [
        ["unet", "creates 3 of 3"],
        ["unet:skips=false", "creates 3 of 3"],
        ["mlp", "creates 2, failed 1"],
    ]
    precision = cells[1][cells[0].index("precision [seeds] (control)")]
    assert precision == "0.887 [0.871–0.902] (0.971)"
    assert cells[1][cells[0].index("samples explained by (r)")] == "optimal (0.734)"
    assert cells[1][cells[0].index("field")] == "5"
    assert lines[4] == f"mlp, seed 2 failed: {error}"
    assert lines[6] == "not shown:      Width matters. 0.51 and 0.52."


def test_the_notebook_has_claims_ranges_and_figures_over_the_noise_level(seeds, data, monkeypatch):
    ipython = pytest.importorskip("IPython")
    shown = []
    monkeypatch.setattr(ipython, "get_ipython", lambda: type("Kernel", (), {"kernel": None})())
    monkeypatch.setattr("IPython.display.display", shown.append)
    show(seeds, data, CLAIMS)
    # Strips, real images, nearest, ratios, curves; locality, equivariance, psnr, agreement; plane.
    assert [type(thing).__name__ for thing in shown] == ["HTML"] + 10 * ["HTML", "Image"]
    assert "not shown" in shown[0].data
    assert "interval range" in shown[0].data
    assert "Does it know its own images?" in shown[15].data


def test_settings_are_a_line_an_architecture(results, bare, data):
    words = Page(render(results, bare, data=data)).words
    assert "1,437 0, 1, 2 4,000" in words
    bare[1].record["seconds"]["train"] = 90.0
    assert "90–100" in Page(render(results, bare, data=data)).words


def test_optional_entries_have_columns_where_a_row_has_them(rows, seeds):
    names = lambda given: [cost.name for cost in entries.shown(entries.COSTS, given)]
    assert "receptive_field" not in names(rows)
    assert "receptive_field" in names(seeds)
    assert set(names(rows)) < set(names(seeds))


def test_equal_rows_give_equal_bytes(results, rng, make, data):
    rows = make.seeds(rng, seeds=2)
    made = [render(results | {"claims": CLAIMS}, rows, data=data) for _ in range(2)]
    assert made[0] == made[1]


def test_a_dozen_architectures_with_three_seeds(results, rng, make, data):
    """Unique ids, nothing from elsewhere, six megabytes at most, and a short headline."""
    labels = ["unet", *(f"unet:width={8 * i}" for i in range(1, 12))]
    html = render(results | {"claims": CLAIMS}, make.seeds(rng, labels), data=data)
    assert len(html.encode()) < 6e6
    read = Page(html)
    assert len(set(read.ids)) == len(read.ids)
    assert "Of 12 architectures on digits, 12 create ." in read.words
    assert "Every run alone (36)" in read.words
    assert not re.search(r"https?://(?!arxiv\.org)[^\s\"<]*", html)
