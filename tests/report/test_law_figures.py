"""Figures of the study `laws`: predictions over samples, every number the arrays' own."""

import io
from typing import Any

import numpy as np
import pytest

from jdiff.report import canvas, law_figures, law_sweep
from jdiff.report.law_rows import LawRow


def draw(figure):
    """Draws the figure, so that an error that comes only then is seen."""
    figure.savefig(io.BytesIO(), format="png")


def texts(panel):
    return [text.get_text() for text in panel.texts]


def on_a_line(rng, section="star", n=200, **more):
    points = np.array([-1.0, 0.0, 2.0])
    edges = np.linspace(-4, 4, 41)
    arrays = {
        "samples": rng.normal(size=n),
        "points": points,
        "weights": np.array([0.25, 0.5, 0.25]),
        "edges": edges,
        "density": np.exp(-((edges[:-1] + 0.1) ** 2) / 2) / np.sqrt(2 * np.pi),
        "optimal_samples": rng.choice(points, n, p=[0.25, 0.5, 0.25]),
    }
    record = {"label": "polynomial", "section": section, "status": "ok", "knob": 2}
    return LawRow(record, arrays | more)


def swept(family, knob, distance, fraction, data="digits", **more):
    measures = {
        "law_distance": {"value": distance, "control": 0.04},
        "memorized_fraction": {
            "value": fraction,
            "interval": None if fraction is None else [fraction - 0.01, fraction + 0.02],
            "control": 0.1,
        },
    }
    record = {"label": f"{family}={knob}", "section": "sweep", "status": "ok", "knob": knob}
    return LawRow(record | {"family": family, "data": data, "measures": measures} | more)


@pytest.mark.core
def test_histogram_and_law_are_densities_on_the_same_bins(rng):
    samples = np.array([0.05, 0.05, 0.15, 9.0, np.nan, np.inf, -0.3, 1.0])
    row = on_a_line(rng, samples=samples, optimal_samples=np.zeros(8))
    below: Any = law_figures.line(row, law_figures.frame([row])).axes[1]
    bars, law = (patch.get_data() for patch in below.patches)
    np.testing.assert_array_equal(bars.edges, row.array("edges"))
    np.testing.assert_array_equal(law.edges, row.array("edges"))
    np.testing.assert_array_equal(law.values, row.array("density"))
    # By hand: bins of 0.2, eight samples, three in [0, 0.2); the escaped ones keep their share.
    assert bars.values[20] == pytest.approx(3 / 8 / 0.2)
    assert np.sum(bars.values) * 0.2 == pytest.approx(5 / 8)
    assert texts(below) == ["3 of 8 lie outside"]


def test_copies_stand_at_their_points_with_their_shares(rng):
    row = on_a_line(rng, n=400)
    copies = row.array("optimal_samples") + rng.normal(0, 1e-6, 400)  # both sides of an edge
    row = on_a_line(rng, n=400, optimal_samples=copies)
    above: Any = law_figures.line(row, law_figures.frame([row])).axes[0]
    bars = above.patches[0].get_data()
    for point, weight in zip(row.array("points"), row.array("weights"), strict=True):
        (bin_,) = np.flatnonzero((bars.edges[:-1] < point) & (point < bars.edges[1:]))
        assert bars.values[bin_] == pytest.approx(np.mean(np.abs(copies - point) < 0.01))
        assert bars.values[bin_] == pytest.approx(weight, abs=0.1)  # 4 deviations of 400 draws
    assert bars.values.sum() == pytest.approx(1)
    rings = above.lines[-1]
    np.testing.assert_array_equal(rings.get_xdata(), row.array("points"))
    np.testing.assert_array_equal(rings.get_ydata(), row.array("weights"))


def test_rows_of_one_frame_share_their_axes(rng):
    rows = [on_a_line(rng), on_a_line(rng, points=np.array([-3.0, 0.0, 1.0]))]
    shared = law_figures.frame(rows)
    made = [law_figures.line(row, shared, beside=rows[0]) for row in rows]
    for k in range(2):
        assert made[0].axes[k].get_xlim() == made[1].axes[k].get_xlim()
        assert made[0].axes[k].get_ylim() == made[1].axes[k].get_ylim()
    assert made[0].axes[1].get_xlim() == pytest.approx((-4, 4))  # as far as their bins
    (dashed,) = made[1].axes[1].lines
    np.testing.assert_array_equal(dashed.get_ydata(), rows[0].array("density"))


def test_the_density_of_two_points_ends_at_half_a_sample(rng):
    row = on_a_line(rng, "two_points", n=100)
    shared = law_figures.frame([row])
    panel: Any = law_figures.density(row, shared).axes[0]
    assert panel.get_yscale() == "log"
    assert panel.get_ylim()[0] == pytest.approx(0.5 / 100 / 0.2)
    draw(law_figures.density(row, shared))
    draw(law_figures.copies(row, shared))


@pytest.mark.parametrize("band", [True, False])
@pytest.mark.parametrize("m", [1, 5, 1000])
def test_variances_stand_on_their_diagonal(m, band):
    predicted = np.geomspace(3, 1e-5, m)[::-1]
    measured = predicted * 1.05
    arrays = {"predicted": predicted, "measured": measured}
    if band:
        arrays |= {"low": predicted * 0.9, "high": predicted * 1.1}
    images = np.zeros((2, 4, 4, 1))
    record = {"label": "linear", "section": "gaussian", "status": "ok"}
    row = LawRow(record, {"samples": images, "law_samples": images} | arrays)
    figure: Any = law_figures.diagonal(row)
    above, below = figure.axes
    dots, ratios = above.lines[-1], below.lines[-1]
    np.testing.assert_allclose(dots.get_ydata() / dots.get_xdata(), 1.05)
    np.testing.assert_allclose(ratios.get_ydata(), 1.05)
    assert len(dots.get_xdata()) == min(m, 300)
    assert above.get_xscale() == above.get_yscale() == "log"
    assert above.get_xlim() == above.get_ylim()
    assert len(above.collections) == len(below.collections) == int(band)
    draw(figure)


def test_the_plane_counts_what_lies_outside_and_draws_the_code(rng):
    training = rng.uniform(-1, 1, (30, 2))
    training[:2] = [[-1, -1], [1, 1]]
    samples = np.concatenate([training, [[50.0, 0.0], [np.nan, 0.0]]])
    arrays = {"training": training, "samples": samples}
    arrays |= {"axis": np.array([1.0, 0.0]), "mean": np.array([0.0, 0.25])}
    row = LawRow({"label": "b", "section": "plane", "status": "ok"}, arrays)
    limits = law_figures.plane_limits([row])
    assert limits == pytest.approx((-1.6, 1.6, -1.6, 1.6))
    figure: Any = law_figures.plane(row, limits)
    (panel,) = figure.axes
    assert texts(panel) == ["2 of 32 lie outside"]
    np.testing.assert_array_equal(panel.lines[0].get_ydata(), [0.25, 0.25])  # the code's line
    assert [len(drawn.get_xdata()) for drawn in panel.lines] == [2, 30, 30]
    # One unit is as long upwards as to the right.
    box = panel.get_position()
    width, height = figure.get_size_inches()
    assert box.width * width == pytest.approx(box.height * height, rel=0.02)
    with_curve = LawRow(row.record, arrays | {"curve": rng.uniform(-1, 1, (900, 2))})
    panel: Any = law_figures.plane(with_curve, limits).axes[0]
    assert sorted(len(drawn.get_xdata()) for drawn in panel.lines) == [2, 30, 30, 300]


def test_strips_hold_the_images_pixel_for_pixel(rng):
    images = rng.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    row = LawRow(
        {"label": "optimal", "section": "atoms", "status": "ok"},
        {"samples": images, "atoms": images},
    )
    panel: Any = law_figures.strip(row, "atoms").axes[0]
    np.testing.assert_array_equal(panel.images[0].get_array(), canvas.mosaic(images[:16], 16))
    with pytest.raises(ValueError, match="row 'optimal' has no array 'law_samples' to draw"):
        law_figures.strip(row, "law_samples")


@pytest.mark.parametrize("smallest", [1e-9, 0.0])
def test_the_spectrum_marks_the_code(smallest):
    values = np.array([1.0, 0.5, smallest])
    record = {"label": "mlp", "section": "without_law", "status": "ok", "knob": 2}
    arrays = {"samples": np.zeros((1, 2, 2, 1)), "singular_values": values}
    panel: Any = law_figures.spectrum(LawRow(record, arrays)).axes[0]
    np.testing.assert_array_equal(panel.lines[0].get_ydata(), values)
    assert panel.get_yscale() == ("log" if smallest else "linear")
    assert texts(panel) == [" code: 2"]


def sweep_rows():
    """Five families of which three meet on the axis, and the two ends."""
    rows = [swept("rank", k, d, 0.0) for k, d in ((1, 0.8), (2, 0.79), (8, 0.5), (64, 0.04))]
    rows += [swept("patch", k, d, 0.0) for k, d in ((15, 0.04), (3, 0.3), (1, 0.79))]
    rows += [swept("code", k, d, f) for k, d, f in ((1, 0.8, 0.0), (16, 0.6, 0.2), (64, 0.2, 1.0))]
    rows += [swept("degree", k, 0.05 * k, 0.05 * k, data="moons") for k in (1, 2, 3, 5, 7)]
    rows += [swept("features", k, 0.4 - 0.02 * k, 0.1 * k) for k in (1, 2, 3, 5, 7)]
    rows += [swept("linear", None, 0.04, 0.0), swept("optimal", None, 0.2, 1.0)]
    return rows


@pytest.mark.core
def test_the_sweep_draws_every_point_where_its_numbers_say():
    rows = sweep_rows()
    panel: Any = law_sweep.sweep(rows).axes[0]
    markers = [drawn for drawn in panel.lines if drawn.get_marker() not in ("None", None, "")]
    assert len(markers) == len(rows)
    drawn = [
        (*map(float, marker.get_xdata()), *map(float, marker.get_ydata())) for marker in markers
    ]
    wanted = [row for line in law_sweep.lines_of(rows).values() for row in line]
    for (x, y), row in zip(drawn, wanted, strict=True):
        assert x == row.measure("law_distance")["value"]
        fraction = row.measure("memorized_fraction")["value"]
        assert y == fraction if fraction else y < 0  # no copies: below the axis, in a lane
    # Families in lanes do not lie on each other.
    lanes = {row.record["family"]: y for (_, y), row in zip(drawn, wanted, strict=True) if y < 0}
    assert set(lanes) == {"rank", "patch", "code", "linear"}
    assert len(set(lanes.values())) == 4


def test_lines_run_in_the_order_of_their_knobs():
    lines = law_sweep.lines_of(sweep_rows())
    assert [row.record["knob"] for row in lines["patch", "digits"]] == [1, 3, 15]
    assert ("degree", "moons") in lines
    styles = law_sweep.line_styles(sweep_rows())
    assert len(set(styles[:5])) == 5
    assert styles[5] == styles[6]  # the two ends


def test_names_in_the_sweep_do_not_collide():
    figure: Any = law_sweep.sweep(sweep_rows())
    (panel,) = figure.axes
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    written = [text for text in panel.texts if text.get_text()]
    written += [tick for tick in panel.get_yticklabels() if tick.get_text()]
    words = [text.get_text() for text in written]
    assert {"creation", "copying", "optimal", "7  degree", "2, 1", "rank", "linear"} <= set(words)
    assert {"noise floor, digits", "held out, moons"} <= set(words)
    boxes = [text.get_window_extent(renderer) for text in written]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i]), words[i]
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width


def test_copies_by_chance_are_a_line_where_there_are_any():
    by_chance = {"memorized_fraction_of_linear_law": {"value": 0.19}}
    few = [swept("degree", k, 0.3 * k, 0.3, data="moons") for k in (1, 2)]
    few = [LawRow({**r.record, "measures": {**r.record["measures"], **by_chance}}) for r in few]
    panel: Any = law_sweep.sweep([*few, swept("rank", 3, 0.5, 0.3)]).axes[0]
    assert "linear law, moons" in texts(panel)
    assert "linear law, digits" not in texts(panel)
    assert 0.19 in [line.get_ydata()[0] for line in panel.lines]


def test_the_sweep_leaves_out_what_was_not_measured():
    rows = [swept("rank", 1, None, 0.5), swept("rank", 2, 0.5, None), swept("rank", 3, 0.5, 0.5)]
    other = LawRow({"label": "linear", "section": "gaussian", "status": "ok"})
    assert law_sweep.swept([*rows, other]) == rows[2:]


def test_far_points_are_drawn_on_a_logarithmic_axis():
    near = [swept("rank", k, 0.1 * k, 0.1) for k in (1, 2)]
    assert law_sweep.sweep(near).axes[0].get_xscale() == "linear"
    panel: Any = law_sweep.sweep([*near, swept("rank", 3, 22.0, 0.3)]).axes[0]
    assert panel.get_xscale() == "log"
