"""What explains the networks: numbers by hand, the best marked, every line readable."""

import numpy as np
import pytest

from jdiff.report import Row, glossary, interpretation, interpretation_figures
from jdiff.report.groups import group
from jdiff.report.interpretation import curve, explained, key


@pytest.mark.core
def test_an_agreement_is_a_mean_over_levels_then_over_seeds(rng, make):
    found = group(make.seeds(rng))
    # Levels 0.125, 0.25, 0.375 in the first seed; each further seed adds 0.015625.
    spread = explained(found[0], "optimal", "pearson_r")
    assert spread == pytest.approx((0.265625, 0.25, 0.28125, 3))
    spread = explained(found[1], "optimal", "pearson_r", samples=True)
    assert spread == pytest.approx((0.671875, 0.65625, 0.6875, 3))


def test_a_run_without_one_of_its_levels_has_no_mean(rng, make):
    rows = make.seeds(rng)
    rows[1].record["measures"]["explained_by optimal pearson_r"]["value"][0] = None
    del rows[2].record["measures"]["explained_by optimal pearson_r"]
    assert explained(group(rows)[0], "optimal", "pearson_r") == (0.25, 0.25, 0.25, 1)


@pytest.mark.parametrize(
    ("statistic", "samples", "denoiser"),
    [("pearson_r", "optimal", "local_linear 5"), ("mse", "local_linear 5", "optimal")],
)
def test_the_best_form_is_marked_the_lowest_of_errors(statistic, samples, denoiser, rng, make):
    """In the made-up rows agreement with samples falls from form to form, with answers it rises."""
    table = interpretation.agreement(make.seeds(rng), statistic)
    assert [half["samples"] for half in table["halves"]] == [True, False]
    for line in table["lines"]:
        best = [cell["column"] for cell in line["cells"] if cell["best"]]
        assert best == [key(samples, statistic, samples=True), key(denoiser, statistic)]


def test_references_in_words():
    names = ["optimal", "linear", "local_linear 5", "equivariant_linear"]
    record = {"label": "a", "status": "ok", "measures": {}}
    for name in names:
        record["measures"] |= {key(name, "mse"): {}, key(name, "cosine", samples=True): {}}
    assert interpretation.references([Row(record)]) == names
    assert list(map(interpretation.named, names)) == [
        "optimal",
        "linear",
        "local linear 5 × 5",
        "equivariant linear",
    ]


def test_a_curve_has_mean_and_range_at_every_level(make):
    values = {0: ([1.0, 3.0], [2.0, 0.5]), 1: ([5.0, None], [2.0, 0.5]), 2: ([9.0], [0.1])}
    rows = []
    for seed, (numbers, sigmas) in values.items():
        measures = {"psnr_gap": make.by_level(numbers, None, sigmas)}
        rows.append(Row({"label": "a", "status": "ok", "seed": seed, "measures": measures}))
    rows.append(Row({"label": "a", "status": "failed", "seed": 3}))
    made = curve(group(rows)[0], lambda _: "psnr_gap")
    assert made is not None
    np.testing.assert_array_equal(made.sigmas, [0.1, 0.5, 2.0])
    np.testing.assert_array_equal(made.mean, [9.0, 3.0, 3.0])
    np.testing.assert_array_equal(made.low, [9.0, 3.0, 1.0])
    np.testing.assert_array_equal(made.high, [9.0, 3.0, 5.0])
    assert np.isnan(made.control).all()
    assert curve(group(rows)[0], lambda _: "locality_profile 75%") is None


def test_values_that_do_not_fit_their_levels_are_refused(make):
    measures = {"psnr_gap": make.by_level([0.5, 0.5], None, [1.0])}
    rows = [Row({"label": "unet", "status": "ok", "measures": measures})]
    with pytest.raises(ValueError, match="measure 'psnr_gap' of row 'unet' must have one noise"):
        interpretation.families(rows)


def test_the_longer_shift_is_each_architectures_own(rng, make):
    rows = make.seeds(rng, ["a", "b"], 1)
    del rows[1].record["measures"]["equivariance_error step 4"]
    rows[1].record["measures"]["equivariance_error step 2"] = make.by_level([0.5] * 3)
    (family,) = (f for f in interpretation.families(rows) if f.name == "equivariance")
    _, longer = family.panels
    assert [(drawn.note, drawn.mean[0]) for drawn in longer.curves if drawn] == [
        ("4", 0.125),
        ("2", 0.5),
    ]


def test_closed_forms_and_old_records_have_no_part_in_it(rows):
    assert interpretation.interpreted(rows) == []
    assert interpretation.families(rows) == []
    assert interpretation.agreement(rows)["lines"] == []
    assert interpretation.levels(rows) == []


@pytest.mark.parametrize("number", [0, 1, 5, 6, 12, 23])
def test_every_architecture_is_coloured_in_one_panel(number):
    parts = interpretation_figures.chunks(number)
    assert [place for part in parts for place in part] == list(range(number))
    assert all(1 <= len(part) <= interpretation_figures.IN_COLOUR for part in parts)


def test_a_panel_names_its_lines_and_the_one_they_are_compared_with(rng, make):
    labels = ["unet", *(f"unet:width={8 * i}" for i in range(1, 12))]
    rows = make.seeds(rng, labels, 2)
    found = interpretation.interpreted(rows)
    locality = interpretation.families(rows)[0]
    part = interpretation_figures.chunks(12)[2]
    (axes,) = interpretation_figures.panel(locality, 0, part, found, rows).axes
    wanted = [found[place].short for place in part]
    assert sorted(text.get_text() for text in axes.texts) == sorted([*wanted, "unet"])
    curves = [line for line in axes.lines if np.size(line.get_xdata()) == 3]
    assert len(curves) == 12 + len(part)  # all of them, and the controls of those in colour
    colored = [line for line in curves if line.get_marker() == "o"]
    assert len({line.get_color() for line in colored}) == len(part)
    np.testing.assert_allclose(
        np.asarray(colored[0].get_ydata()), 3.0 + 0.0625 * part[0] + 0.015625 / 2
    )


def test_a_level_far_from_all_others_does_not_stretch_the_axis(rng, make):
    rows = make.seeds(rng, ["a", "b", "c"], 2)
    for row in rows[4:]:
        make.explain(row.record, 50.0, sigmas=[20291.0, 1.0])
        row.record["measures"]["locality_profile 75%"]["value"][1] = 4.0
    family = interpretation.families(rows)[0]
    assert interpretation_figures.levels_drawn(family) == (0.02, 2.0)
    assert interpretation_figures.left_out(family) == "0.02 to 2"
    found = interpretation.interpreted(rows)
    (axes,) = interpretation_figures.panel(family, 0, [0, 1, 2], found, rows).axes
    assert axes.get_xlim() == pytest.approx((0.02 / 1.15, 2.3))
    assert axes.get_ylim()[1] < 10  # nor does the value there
    assert interpretation.levels(rows) == [
        ("2.00, 0.200, 0.0200", ["a", "b"]),
        ("20,291, 1.00", ["c"]),
    ]


def test_names_beside_the_lines_stay_apart_and_inside():
    wanted, sizes = [5.0, 6.0, 6.5, 170.0, 173.0], [14.0, 26.0, 14.0, 14.0, 14.0]
    centers = interpretation_figures._spread(wanted, sizes, 174)
    edges = [(c - s / 2, c + s / 2) for c, s in zip(centers, sizes, strict=True)]
    assert edges[0][0] >= 0
    assert edges[-1][1] <= 174
    for (_, top), (bottom, _) in zip(edges[:-1], edges[1:], strict=True):
        assert bottom >= top - 1e-9
    # Alone, a name stands where it is wanted.
    assert interpretation_figures._spread([50.0, 120.0], [14.0, 14.0], 174) == [50.0, 120.0]


def test_keys_of_a_denoiser_are_known_and_flood_no_table(rng, make):
    rows = make.seeds(rng)
    rows[0].record["measures"]["memorized_fraction_half"] = {"value": 0.5}
    assert len(rows[0].record["measures"]) > 30
    assert glossary.extra_measures(rows) == ["memorized_fraction_half"]
    for name in rows[0].record["measures"]:
        assert glossary.measure(name).definition
    assert glossary.measure("explained_by samples of linear mse").title == (
        "explained by, samples of linear mse"
    )
    assert glossary.measure("explained_by linear pearson_r").form(0.5) == "0.500"
    assert glossary.measure("something_new").title == "something new"
