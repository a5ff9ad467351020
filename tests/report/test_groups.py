"""Training seeds: means and ranges by hand, failed seeds in no mean, labels that tell apart."""

import itertools

import pytest

from jdiff.report import Row, groups
from jdiff.report.groups import Spread, group


def row(label, seed=0, *, word="creates", status="ok", num_train=100, **entries):
    record = {"label": label, "status": status, "seed": seed, "num_train": num_train}
    verdict = {"word": word, "reason": ""} if word else None
    return Row(record | {"verdict": verdict if status == "ok" else None, **entries})


@pytest.mark.core
def test_mean_and_range_by_hand():
    rows = [row("unet", s, seconds={"train": t}) for s, t in enumerate((2.0, 7.0, 3.0))]
    (one,) = group(rows)
    assert one.spread("seconds", "train") == (4.0, 2.0, 7.0, 3)
    assert one.spread("seconds", "compile") == (None, None, None, 0)


def test_a_failed_seed_is_in_no_mean():
    rows = [
        row("unet", 0, status="failed", num_params=1000.0),
        row("unet", 1, num_params=10.0),
        row("unet", 2, num_params=20.0),
    ]
    (one,) = group(rows)
    assert one.spread("num_params") == (15.0, 10.0, 20.0, 2)
    assert one.first == 1
    assert one.said == "creates 2, failed 1"
    assert one.word == "creates"


def test_a_missing_number_is_counted():
    values = [0.5, None, float("nan")]
    rows = [row("a", s, measures={"recall": {"value": v}}) for s, v in enumerate(values)]
    spread = group(rows)[0].spread("measures", "recall", "value")
    assert spread == (0.5, 0.5, 0.5, 1)
    assert spread.ends is None  # one number has no range


def test_values_by_noise_level_are_no_number():
    rows = [row("a", s, measures={"psnr_gap": {"value": [0.1, 0.2]}}) for s in range(2)]
    assert group(rows)[0].spread("measures", "psnr_gap", "value").mean is None


@pytest.mark.parametrize(
    ("words", "said", "word"),
    [
        (["creates"] * 3, "creates 3 of 3", "creates"),
        (["creates"], "creates", "creates"),
        (["mixed", "unrealistic", "unrealistic"], "unrealistic 2, mixed 1", groups.VARIES),
        (["mixed", "memorizes"], "memorizes 1, mixed 1", groups.VARIES),
        ([None, None], "– 2 of 2", ""),
    ],
)
def test_verdicts_over_seeds_in_words(words, said, word):
    (one,) = group([row("unet", s, word=w) for s, w in enumerate(words)])
    assert (one.said, one.word) == (said, word)


def test_all_seeds_failed():
    (one,) = group([row("unet", s, status="failed") for s in range(3)])
    assert (one.said, one.word, one.runs, one.first) == ("failed 3 of 3", "failed", [], 0)


def test_an_architecture_at_two_sizes_is_two_groups():
    rows = [row("unet", s, num_train=n) for n in (100, 1000) for s in (0, 1)] + [row("mlp")]
    found = group(rows)
    assert [one.name for one in found] == ["unet, N = 100", "unet, N = 1,000", "mlp"]
    assert [one.numbers for one in found] == [(0, 1), (2, 3), (4,)]
    assert [one.short for one in found] == ["unet, N = 100", "unet, N = 1,000", "mlp"]


def test_labels_show_what_differs_from_the_first_of_their_kind():
    labels = [
        "unet:width=16",
        "unet:width=16,skips=false",
        "unet:width=8,norm=none",
        "unet:skips=false",  # lacks an option of the first: told by its whole label
        "mlp:width=400",
        "mlp:width=100",
        "paper_unet:per_level=vp_cosine:4",
    ]
    found = group([row(label) for label in labels])
    assert ["".join(text for text, _ in one.parts) for one in found] == labels
    assert [one.short for one in found] == [
        "unet:width=16",
        "skips=false",
        "width=8,norm=none",
        "unet:skips=false",
        "mlp:width=400",
        "width=100",
        "paper_unet:per_level=vp_cosine:4",
    ]
    assert found[1].parts == (("unet:", False), ("width=16,", False), ("skips=false", True))
    base = groups.compared_with(found)
    assert base is found[0]


def test_a_short_name_of_two_architectures_is_told_with_its_kind():
    labels = ["unet:norm=none", "unet:norm=none,width=8", "mlp:depth=2", "mlp:depth=2,width=8"]
    found = group([row(label) for label in labels])
    assert [one.short for one in found] == [
        "unet:norm=none",
        "unet:width=8",
        "mlp:depth=2",
        "mlp:width=8",
    ]
    # Where that is another's name too, by the whole label.
    labels = ["a:x=1", "a:x=1,y=2", "a:y=2", "b:x=1", "b:x=1,y=2"]
    short = [one.short for one in group([row(label) for label in labels])]
    assert len(set(short)) == len(labels)


def test_architectures_of_different_kinds_have_no_base():
    assert groups.compared_with(group([row("optimal"), row("unet"), row("mlp")])) is None
    assert groups.compared_with(group([row("optimal"), row("mlp"), row("mlp:width=8")])) is None


def test_ranges_that_lie_apart():
    base = Spread.of([1.0, 2.0, 3.0])
    assert groups.moved(Spread.of([3.5, 4.0, 5.0]), base) == "up"
    assert groups.moved(Spread.of([0.0, 0.5, 0.9]), base) == "down"
    assert groups.moved(Spread.of([0.0, 0.5, 1.0]), base) == ""  # they touch
    assert groups.moved(Spread.of([8.0, 9.0]), base) == ""  # too few seeds to say so


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_chance_of_ranges_apart_by_counting_all_orders(n):
    orders = list(itertools.combinations(range(2 * n), n))
    apart = [first for first in orders if max(first) == n - 1 or min(first) == n]
    assert groups.chance(n) == pytest.approx(len(apart) / len(orders))


def test_leaders_and_others_have_pictures(rng, make):
    rows = make.seeds(rng)
    rows[0] = Row({**rows[0].record, "status": "failed"})
    rows[5] = Row(rows[5].record)  # its pictures were not kept
    assert groups.leaders(rows) == [1, 3]
    assert groups.others(rows, 1) == [2]
    assert groups.others(rows, 3) == [4]
    assert groups.several(rows)
    assert not groups.several([rows[1], rows[4]])
