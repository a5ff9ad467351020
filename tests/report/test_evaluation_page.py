"""The page of one evaluation: its numbers are the record's, nothing is loaded, gaps are told."""

import re
import xml.etree.ElementTree

import numpy as np
import pytest
from evaluation_example import make_arrays, make_record, measure
from page_reader import PageReader

from jdiff.report import evaluation_table, glossary, render_evaluation, write_evaluation
from jdiff.report import evaluation_tables as tables
from jdiff.report.evaluation_record import ARRAYS, Finding, Findings


class Page(PageReader):
    VOID = ("meta", "br", "img", "wbr")

    def __init__(self, html):
        self.loose = []
        super().__init__(html)

    def keep(self, given):
        values = [float(value) for value in given["value"].split()]
        if "class" in given:
            self.cells[self.row, self.column, given["class"]] = values
        else:  # the number below a pair of pictures
            self.loose += values


@pytest.fixture(scope="module")
def html():
    return render_evaluation(make_record(), make_arrays())


def sections(html):
    return re.findall(r'<section id="([\w-]*)"', html)


@pytest.mark.core
def test_every_number_of_the_table_is_the_records_number(html):
    cells = Page(html).cells
    for key, entry in make_record()["measures"].items():
        for field in ("value", "control"):
            ends = "interval" if field == "value" else "control_interval"
            where = [(key, field)]
            if key in ("memorized_fraction", "precision", "frechet_distance"):
                where.append((key, "evidence" if field == "value" else "evidence.control"))
            for place in where:
                if entry[field] is None:
                    assert (*place, "value") not in cells
                    continue
                assert cells.pop((*place, "value")) == np.ravel(entry[field]).tolist()
                assert cells.pop((*place, "interval")) == np.ravel(entry[ends]).tolist()
        assert cells.pop((key, "n", "value")) == [entry["n"]]
    assert cells == {}  # and no other number


@pytest.mark.core
def test_nothing_is_loaded_from_anywhere(html):
    read = Page(html)
    outside = [ref for ref in read.references if not ref.startswith(("data:", "#"))]
    assert outside == [glossary.PAPER]
    assert re.findall(r"https?://[^\s\"<]*", html) == [glossary.PAPER]
    assert not re.search(r"<(script|link|iframe)|@import|url\((?!#)", html)
    assert len(set(read.ids)) == len(read.ids)
    inside = [ref[1:] for ref in read.references if ref.startswith("#")]
    inside += re.findall(r"url\(#([^)]*)\)", html)
    assert inside
    assert set(inside) <= set(read.ids)


def test_figures_are_drawings_in_the_pages_inks(html):
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.S)
    marks = 3 + len(make_record()["measures"])
    # A histogram, three source maps, a plane (no density here), spectra; gap and both, locality,
    # equivariance, two numbers of explained_by.
    assert len(drawings) == marks + 1 + 3 + 1 + 1 + 2 + 1 + 1 + 2
    for drawing in drawings:
        assert xml.etree.ElementTree.fromstring(drawing).get("aria-label")
        assert "#000000" not in drawing
        assert "<style" not in drawing


@pytest.mark.core
def test_the_verdict_is_said_with_its_reason_and_numbers(html):
    words = Page(html).words
    assert "unet:width=32 is mixed . 31.2% of the samples are copies." in words
    assert glossary.VERDICTS["mixed"] in words
    text = "memorized fraction on pixels 0.312 0.302–0.333 held-out images 0.017 0.007–0.037"
    assert text in words
    assert (
        "20 samples from runs/a, held against digits: 1,437 training images, 360 held out" in words
    )
    assert "8 × 8 pixels, grey" in words


def test_without_a_verdict_it_says_what_one_needs():
    record = make_record(verdict=None, measures={"recall": measure("recall", 0.5, 0.75)})
    words = Page(render_evaluation(record, {})).words
    assert "has no verdict . A verdict needs the memorized fraction, precision and" in words
    assert "memorized fraction – held-out images –" in words


def test_measures_are_grouped_each_with_its_meaning(html):
    words = Page(html).words
    order = ["Memorization", "Creativity", "Realism", "Denoiser", "Further measures"]
    table = html[html.index('<table class="measures">') :]
    heads = re.findall(r'rowgroup" colspan="6">([^<]*)<', table)
    assert heads == [*order, "Explained by"]
    for kind in ("copying_z", "patch_sources", "recall", "psnr_gap", "explained_by"):
        assert glossary.measure(kind).reading in words
        assert glossary.measure(kind).definition in words
    assert "novelty of mine pixels 41.2 41.2–41.3 42.8" in words
    assert "explained_by" in words
    assert "all 2 numbers of explained_by" in words


def test_every_listed_measure_has_its_words():
    for kinds in glossary.GROUPS.values():
        for kind in kinds:
            assert kind in glossary.MEASURES
            known = glossary.measure(kind)
            assert kind in glossary.STATISTICS or (known.reading and known.definition)
    listed = [kind for kinds in glossary.GROUPS.values() for kind in kinds]
    assert sorted(listed) == sorted(set(listed))
    assert set(listed) == set(glossary.MEASURES)


def test_pairs_carry_their_numbers_and_copies_are_framed(html):
    arrays, read = make_arrays(), Page(html)
    assert read.loose == [*arrays["copied_ratio"], *arrays["novel_rms"]]
    for text in ("0.12", "0.38", "0.61", "0.41", "0.40"):
        assert text in read.words
    # c is 1/2 here: two of three copied ones, none of the novel ones.
    assert html.count('<figure class="copy">') == 2
    without = make_record(measures={})
    assert '<figure class="copy">' not in render_evaluation(without, arrays)


def test_the_share_left_of_the_threshold_is_the_records(html):
    words = Page(html).words
    assert "Left of the line lie 0.312 of the samples and 0.017 of the held-out images." in words
    assert "samples (n = 20)" in words
    assert "held-out images (n = 12)" in words
    assert (
        "Left of the line"
        not in Page(render_evaluation(make_record(measures={}), make_arrays())).words
    )


def test_mosaics_say_how_many_sources_and_which(html):
    words, sources = Page(html).words, make_arrays()["mosaic_sources"]
    assert "1 source , in all 4 tiles" in words
    assert len(np.unique(sources[1])) == 4  # three sources and -1
    assert "3 sources , another for every tile; 1 constant" in words
    assert "2 sources , the most frequent in 3 of 4 tiles" in words
    shown = [int(source) for source in re.findall(r'data-source="(\d+)"', html)]
    assert shown == [source for source in sources.ravel() if source >= 0]
    assert "4 × 4 pixels" in words


@pytest.mark.core
@pytest.mark.parametrize("group", ARRAYS)
def test_without_a_group_its_figure_is_left_out(group, html):
    heads = {
        "pictures": "Look first",
        "ratios": "How close the samples come to being copies",
        "copied": "The most copied samples",
        "novel": "The most novel samples",
        "mosaics": "What they are made of",
        "spectra": "As much detail as real images have?",
    }
    arrays = {n: a for n, a in make_arrays().items() if n not in ARRAYS[group]}
    words = Page(render_evaluation(make_record(), arrays)).words
    assert heads[group] in Page(html).words
    assert heads[group] not in words
    assert all(head in words for name, head in heads.items() if name != group)


def test_without_arrays_and_measures_only_the_record_is_left():
    html = render_evaluation(make_record(measures={}, skipped=None), {})
    assert sections(html) == ["measures", "made"]
    html = render_evaluation(make_record(), {})
    assert sections(html) == ["measures", "realism", "denoiser", "made"]


def test_points_are_no_pictures():
    data = {"name": "toy:spiral", "image_shape": [1, 1, 2]}
    arrays = make_arrays(shape=(1, 1, 2), side=1)
    html = render_evaluation(make_record(data=data), arrays)
    assert "2 coordinates each" in Page(html).words
    assert "<img" not in html
    assert sections(html) == ["measures", "memorization", "realism", "denoiser", "made"]
    assert "The most copied samples" not in html


def test_images_of_other_channels_are_said_to_be_drawn_in_grey():
    data = {"name": "radar", "image_shape": [8, 8, 2]}
    html = render_evaluation(make_record(data=data), make_arrays(shape=(8, 8, 2)))
    words = Page(html).words
    assert "8 × 8 pixels, 2 channels" in words
    assert "Images are drawn as the mean of their 2 channels." in words


def test_many_pictures_are_cut_and_it_says_so():
    arrays = make_arrays()
    arrays["samples"] = np.zeros((1040, 8, 8, 1), np.uint8)
    html = render_evaluation(make_record(), arrays)
    assert html.count('alt="samples"') == 32
    assert "samples the first 32 of 1,040" in Page(html).words


def test_missing_numbers_are_dashes():
    entries = {
        "recall": {"name": "recall", "value": None, "control": float("nan")},
        "psnr_gap": measure("psnr_gap", [0.25, 0.5, 0.75])
        | {"value": [0.25, None, 0.75], "interval": [[0.2, None, 0.7], [0.3, None, 0.8]]},
        "precision": None,
        "vendi": measure("vendi", 4.5, 5.5) | {"interval": [None, None], "features": None},
    }
    read = Page(render_evaluation(make_record(measures=entries), {}))
    assert "recall – – –" in read.words
    assert "PSNR gap (dB) pixels 0.250–0.750 3 noise levels –" in read.words
    assert "Vendi score 4.50 5.50" in read.words
    np.testing.assert_array_equal(read.cells["psnr_gap", "value", "value"], [0.25, np.nan, 0.75])
    assert "None" not in read.words
    assert "nan" not in read.words.lower().split()


def test_a_curve_that_is_level_is_one_number():
    level = Finding("mse", measure("mse", [0.5, 0.5, 0.5], [0.25, 0.5, 0.75]))
    assert tables.printed(level, "value", "interval")["text"] == "0.500"
    assert tables.printed(level, "control", "control_interval")["text"] == "0.250–0.750"


def test_what_came_from_outside_is_escaped():
    record = make_record(title="<b>&\"x'", command="a <i> & b", skipped={"<u>": "<s>"})
    record["verdict"]["reason"] = "1 < 2 & <script>"
    record["measures"] |= {"<em>": measure("<em>", 1.5, features="<q>")}
    html = render_evaluation(record, make_arrays())
    assert not re.search("<(script|u|s|q|i|em)>", html)
    assert '<b>&"' not in html
    words = Page(html).words
    for text in ("<b>&\"x'", "a <i> & b", "<u> : <s>", "1 < 2 & <script>", "<em> <q>"):
        assert text in words
    assert Page(html).cells["<em>", "value", "value"] == [1.5]


def test_what_was_not_measured_is_said_with_its_reason(html):
    words = Page(html).words
    assert "two_split_agreement : it needs two networks <sic>" in words
    assert "Not measured" not in Page(render_evaluation(make_record(skipped={}), {})).words


def test_how_it_was_made(html):
    words = Page(html).words
    for text in (
        "jdiff evaluate runs/a",
        "a CPU",
        "jdiff = 0.1.0",
        "neighbors = 1.25",
        "samples: solver heun",
        "data: num train 1,437",
        "Here: n = 20, on pixels, c = 0.5.",
        "arXiv:2605.16415",
    ):
        assert text in words


def test_precision_and_recall_are_paired_within_their_space():
    entries = {
        "precision": measure("precision", 0.5, 0.9),
        "recall (encoder)": measure("recall", 0.5, 0.9, features="encoder"),
        "density (encoder)": measure("density", 0.5, 0.9, features="encoder"),
        "coverage (encoder)": measure("coverage", 0.5, 0.9, features="encoder"),
    }
    words = Page(render_evaluation(make_record(measures=entries), {})).words
    assert "density and coverage encoder" in words
    assert "precision and recall" not in words


def test_unlisted_measures_with_levels_have_their_curve():
    entries = {"my_profile": measure("my_profile", [1.0, 2.0, 3.0])}
    html = render_evaluation(make_record(measures=entries), {})
    assert "My profile" in Page(html).words
    assert "other-0-0-" in html


def test_equal_records_give_equal_bytes(html):
    assert render_evaluation(make_record(), make_arrays()) == html
    assert render_evaluation(make_record(), make_arrays(seed=1)) != html


@pytest.mark.parametrize(
    ("entry", "value", "control", "zero"),
    [
        # 4 .. 116 pixels for 0 .. 1: 4 + 112 x.
        (measure("recall", 0.5, 0.75, 0.125), (60.0, [46.0, 88.0]), (88.0, [74.0, 116.0]), None),
        # Other numbers end at the largest, here 8, the control's upper end.
        (measure("nearest_rms", 2.0, 4.0, 2.0), (32.0, [4.0, 88.0]), (60.0, [32.0, 116.0]), None),
        # -4 .. 4: 0 is in the middle.
        (measure("copying_z", -2.0, None, 2.0), (46.4, [4.0, 116.0]), None, 116 - 112 * 2 / 5),
    ],
)
def test_marks_lie_where_their_numbers_say(entry, value, control, zero):
    if entry["name"] == "copying_z":
        entry["interval"] = [-3.0, 2.0]
        value = (round(4 + 112 / 5, 2), [4.0, 116.0])
    made = tables.mark(Finding("x", entry))
    assert (made["value"]["at"], made["value"]["ends"]) == value
    if control is None:
        assert made["control"] is None
    else:
        assert (made["control"]["at"], made["control"]["ends"]) == control
    assert made["zero"] == (None if zero is None else pytest.approx(zero, abs=0.01))


def test_marks_of_curves_go_from_low_noise_to_high():
    made = tables.mark(Finding("x", measure("psnr_gap", [4.0, 2.0, 0.0], None, 0.0)))
    # 4 .. 116 to the right; from 22 (the smallest) up to 4.
    assert made["value"]["points"] == "4.00,22.00 60.00,13.00 116.00,4.00"
    assert made["control"]["points"] == ""
    assert tables.mark(Finding("x", {})) == {}


@pytest.mark.core
def test_the_text_table_says_the_records_numbers():
    lines = evaluation_table(make_record()).splitlines()
    cells = [re.split(r" {2,}", line) for line in lines]
    assert cells[0] == ["measure", "value [95 %]", "control [95 %]", "n"]
    told = {line[0]: line[1:] for line in cells[1:]}
    assert told["memorized_fraction, c = 0.5 (pixels)"] == [
        *("0.312 [0.302–0.333]", "0.017 [0.007–0.037]", "20")
    ]
    assert told["copying_z (pixels)"] == ["−7.21 [−8.41 to −4.81]", "–", "20"]
    assert told["frechet_distance (encoder)"][0] == "3.21 [3.20–3.23]"
    assert told["psnr_gap (pixels)"][0] == "0.0312–2.51 (3 noise levels)"
    assert told["locality_profile, q = 0.5 (pixels)"][1] == "3.40–7.20"
    assert told["explained_by optimal mse (pixels)"][0] == "0.0730–0.0910 (3 noise levels)"
    number = len(make_record()["measures"])
    assert len(lines) == 1 + number + 2
    assert lines[-2] == "not measured: two_split_agreement: it needs two networks <sic>"
    assert lines[-1] == "unet:width=32: mixed. 31.2% of the samples are copies."
    starts = [lines[0].rindex(head) for head in cells[0]]
    for line in lines[1 : 1 + number]:
        assert all(line[start] != " " and line[start - 1 : start] in ("", " ") for start in starts)


def test_every_measure_is_in_a_group_once():
    found = Findings(make_record(), {})
    listed = [m.key for _, measures in tables.grouped(found) for m in measures]
    assert sorted(listed) == sorted(make_record()["measures"])


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "evaluation.html"
    write_evaluation(path, make_record(), {})
    first = path.read_text(encoding="utf-8")
    assert first == render_evaluation(make_record(), {})

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_evaluation(path, make_record(title="other"), {})
    assert path.read_text(encoding="utf-8") == first
    assert [file.name for file in path.parent.iterdir()] == ["evaluation.html"]


def test_refusals():
    with pytest.raises(ValueError, match="this version of jdiff reads schema 1"):
        render_evaluation(make_record(schema=2), {})
    with pytest.raises(ValueError, match="this version of jdiff reads schema 1"):
        evaluation_table(make_record(schema=2))
