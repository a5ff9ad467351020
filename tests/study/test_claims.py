"""What the literature says, held against rows whose numbers are known."""

import re

import pytest

from jdiff.study import claims


def refused(error, *words):
    """pytest.raises(error) whose message holds all words, in order."""
    return pytest.raises(error, match=".*".join(re.escape(word) for word in words))


def record(
    label, seed=0, word="creates", options=None, status="ok", field=None, more=None, **values
):
    values = {"memorized_fraction": 0.0, "precision": 0.9, "frechet_distance": 0.1, **values}
    values |= more or {}
    return {
        "label": label,
        "num_train": 100,
        "seed": seed,
        "status": status,
        "options": options or {},
        "receptive_field": field,
        "verdict": {"word": word},
        "measures": {name: {"value": value} for name, value in values.items()},
    }


def one(name, records):
    (found,) = claims.of([name], records)
    return found["shown"], found["evidence"]


def seeds(label, precisions, **fields):
    return [record(label, seed, precision=p, **fields) for seed, p in enumerate(precisions)]


def test_a_change_counts_where_ranges_do_not_overlap():
    first = seeds("a", [0.80, 0.90])
    below, over = seeds("b", [0.70, 0.79]), seeds("c", [0.70, 0.81])
    shown, evidence = one("differ", [*first, *below, *over])
    assert shown  # one of two is a half
    assert evidence == (
        "1 of 2 changes leave the range of a: b (precision 0.7–0.79 against 0.8–0.9). Within it: c."
    )
    assert one("differ", [*first, *over])[0] is False
    assert one("differ", first)[0] is None


def test_unrealistic_changes_are_counted_by_most_of_their_runs():
    first = seeds("a", [0.9] * 3)
    bad = [record("b", seed, word) for seed, word in enumerate(["unrealistic"] * 2 + ["mixed"])]
    good = [record("c", seed, word) for seed, word in enumerate(["unrealistic", "mixed", "mixed"])]
    shown, evidence = one("unrealistic", [*first, *bad, *good])
    assert shown
    assert evidence.startswith("1 of 2 changes are unrealistic in most of their runs: b")
    assert one("unrealistic", [*first, *good])[0] is False
    # Where the start is unrealistic itself, nothing can be told.
    start = [record("a", seed, "unrealistic") for seed in range(3)]
    assert one("unrealistic", [*start, *bad])[0] is None


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["unrealistic", "creates", "mixed", "memorizes"], True),
        (["creates", "creates", "creates", "mixed"], False),
        (["unrealistic", "mixed", "memorizes", "memorizes"], False),
        (["memorizes", "mixed", "mixed", "creates"], False),
    ],
    ids=["both", "no copies", "no creations", "reversed"],
)
def test_narrow_creates_and_wide_memorizes(words, shown):
    rows = [
        record(f"mlp:width={w}", word=word, options={"width": w})
        for w, word in zip((8, 16, 32, 64), words, strict=True)
    ]
    # The order of the rows does not matter.
    assert one("width", rows)[0] is one("width", rows[::-1])[0] is shown
    assert one("width", rows[:1])[0] is None


def test_sight_is_a_correlation_over_runs():
    r = "explained_by samples of optimal pearson_r"
    fields = [3, 5, 7, 9, 11, 13]
    row = lambda i, value: record(f"r{i}", field=fields[i], more={r: value})
    rising = [row(i, 0.1 * i) for i in range(6)]
    falling = [row(i, -0.1 * i) for i in range(6)]
    shown, evidence = one("sight", rising)
    assert shown
    assert "over 6 runs: 1.00" in evidence
    assert one("sight", falling)[0] is False
    assert one("sight", rising[:2])[0] is None  # two fields
    assert one("sight", [record("a", field=3)] * 4)[0] is None  # not measured


def test_padding_compares_the_worst_with_the_best():
    e = "equivariance_error step 1"
    circular = [record("c", options={"padding": "circular"}, more={e: [0.0, 0.02]})]
    zeros = [record("z", more={e: [0.1, 0.3]})]
    assert one("padding", [*circular, *zeros])[0] is True
    bad = [record("d", options={"padding": "circular"}, more={e: [0.4, 0.6]})]
    assert one("padding", [*circular, *zeros, *bad])[0] is False
    assert one("padding", circular)[0] is None


def test_failed_rows_count_for_nothing():
    first = seeds("a", [0.80, 0.90])
    failed = [record("b", status="failed")]
    assert one("differ", [*first, *failed])[0] is None


def test_an_unknown_claim_is_refused():
    with refused(ValueError, "claim is 'widht'. Did you mean 'width'"):
        claims.of(["widht"], [])
