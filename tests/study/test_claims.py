"""What the literature says, held against rows whose numbers are known."""

import itertools
import re
from typing import Any

import pytest

from jdiff.study import PRESETS, Architecture, Study, claims
from jdiff.training.rundir import describe_module


def refused(error, *words):
    """pytest.raises(error) whose message holds all words, in order."""
    return pytest.raises(error, match=".*".join(re.escape(word) for word in words))


def all_options(architecture):
    if architecture.closed_form:
        return None
    return describe_module(architecture.network((8, 8, 1)))["options"]


def record(label, seed=0, word="creates", status="ok", field=None, num_train=100, **values):
    """A row; two underscores in a measure's name stand for a space."""
    architecture = Architecture.parse(label)
    values = {"memorized_fraction": 0.0, "precision": 0.9, "frechet_distance": 0.1, **values}
    return {
        "label": label,
        "architecture": architecture.name,
        "options": dict(architecture.options),
        "all_options": all_options(architecture),
        "preconditioning": architecture.preconditioning,
        "num_train": num_train,
        "seed": seed,
        "status": status,
        "receptive_field": field,
        "verdict": {"word": word} if status == "ok" else None,
        "measures": {n.replace("__", " "): {"value": v} for n, v in values.items()},
    }


def seeds(label, distances, **fields):
    return [record(label, i, frechet_distance=d, **fields) for i, d in enumerate(distances)]


def worded(label, words):
    return [record(label, i, word) for i, word in enumerate(words)]


def one(name, records):
    (found,) = claims.of([name], records)
    return found["shown"], found["evidence"]


FIRST = seeds("unet", [0.20, 0.30, 0.25])


def test_a_change_counts_where_ranges_do_not_overlap():
    outside = seeds("unet:skips=false", [0.31, 0.50, 0.40])
    within = seeds("unet:width=4", [0.29, 0.50, 0.40])
    shown, evidence = one("differ", [*FIRST, *outside, *within])
    assert shown  # one of two is a half
    assert evidence == (
        "1 of 2 changes leave the range that the Fréchet distance of unet has over its seeds "
        "(0.2–0.3); by chance each would in 10% of cases. Outside: unet:skips=false (0.31–0.5). "
        "Within: unet:width=4 (0.29–0.5)."
    )
    assert one("differ", [*FIRST, *within])[0] is False
    assert one("differ", FIRST)[0] is None


def test_the_stated_chance_is_that_of_six_numbers_in_any_order():
    orders = list(itertools.permutations(range(6)))
    apart = sum(max(o[:3]) < min(o[3:]) or max(o[3:]) < min(o[:3]) for o in orders)
    assert apart / len(orders) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["differ", "unrealistic"])
def test_too_few_seeds_cannot_tell(name):
    two = seeds("unet:skips=false", [5.0, 6.0], word="unrealistic")
    assert one(name, [*FIRST, *two])[0] is None
    assert one(name, [*FIRST[:2], *seeds("unet:width=4", [5.0, 6.0, 7.0])])[0] is None


@pytest.mark.parametrize("name", ["differ", "unrealistic"])
def test_other_kinds_closed_forms_and_own_grids_are_no_changes(name):
    others = [
        *seeds("linear", [9.0]),
        *seeds("mlp", [9.0, 8.0, 7.0], word="unrealistic"),  # alone of its kind
        *seeds("unet:per_level=vp_cosine:4", [9.0, 8.0, 7.0], word="unrealistic"),
    ]
    same = seeds("unet:width=8", [0.2, 0.3, 0.25])
    shown, evidence = one(name, [*others[:1], *FIRST, *others[1:], *same])
    assert shown is False
    assert evidence.startswith("0 of 1 changes")


def test_every_kind_is_judged_by_its_own_first():
    others = seeds("mlp", [9.0, 8.0, 7.0], word="unrealistic")
    others += seeds("mlp:width=8", [6.0, 5.0, 4.0], word="unrealistic")
    same = seeds("unet:width=8", [0.2, 0.3, 0.25])
    shown, evidence = one("differ", [*FIRST, *same, *others])
    assert shown  # one of two
    assert "0 of 1 changes leave the range that the Fréchet distance of unet has" in evidence
    assert "1 of 1 changes leave the range that the Fréchet distance of mlp has" in evidence
    # Changes of what is unrealistic itself do not count, neither way.
    shown, evidence = one("unrealistic", [*FIRST, *same, *others])
    assert shown is False
    assert evidence.endswith(
        "mlp is unrealistic too (precision 0.9), so that its changes do not count."
    )
    assert one("unrealistic", others)[0] is None


def test_a_first_network_that_failed_is_not_replaced():
    failed = [record("unet", i, status="failed") for i in range(3)]
    others = seeds("unet:width=4", [0.1, 0.2, 0.3]) + seeds("unet:width=8", [0.5, 0.6, 0.7])
    shown, evidence = one("differ", failed + others)
    assert shown is None
    assert evidence.endswith("Failed runs are left out: unet (3 of 3).")


def test_several_training_sizes_cannot_tell():
    larger = seeds("unet", [5.0, 6.0, 7.0], num_train=1000)
    assert one("differ", [*FIRST, *larger])[0] is None


def test_unrealistic_changes_are_counted_by_most_of_their_runs():
    first = worded("unet", ["creates"] * 3)
    bad = worded("unet:width=4", ["unrealistic", "unrealistic", "mixed"])
    good = worded("unet:width=8", ["unrealistic", "mixed", "mixed"])
    shown, evidence = one("unrealistic", [*first, *bad, *good])
    assert shown
    assert evidence.startswith(
        "1 of 2 changes are unrealistic in most of their runs: unet:width=4 (precision 0.9). unet "
    )
    assert one("unrealistic", [*first, *good])[0] is False
    # Where the start is unrealistic itself, nothing can be told.
    assert one("unrealistic", [*worded("unet", ["unrealistic"] * 3), *bad])[0] is None


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["unrealistic", "creates", "mixed", "memorizes"], True),
        (["creates", "creates", "creates", "mixed"], False),
        (["unrealistic", "mixed", "memorizes", "memorizes"], False),
        (["memorizes", "mixed", "mixed", "creates"], False),
        (["creates", "mixed", "memorizes", "unrealistic"], False),
    ],
    ids=["both", "no copies", "no creations", "reversed", "widest"],
)
def test_wide_memorizes_and_from_some_width_down_it_creates(words, shown):
    rows = [
        row
        for width, word in zip((8, 16, 32, 64), words, strict=True)
        for row in worded(f"mlp:width={width}", [word] * 3)
    ]
    # The order of the rows does not matter.
    assert one("width", rows)[0] is one("width", rows[::-1])[0] is shown
    assert one("width", rows[:6])[0] is None  # two widths
    assert one("width", [row for row in rows if row["seed"]])[0] is None  # two seeds
    assert one("width", [*rows, *worded("unet:width=4", [words[0]] * 3)])[0] is None  # two kinds
    # One that differs in more than its width, and one whose width is the class's own.
    deep = worded("mlp:width=128,depth=2", ["memorizes"] * 3)
    assert one("width", [*rows, *deep])[0] is None
    plain = worded("mlp", ["creates"] * 3)
    assert one("width", [*rows, *plain])[0] is False
    assert "creates 3 of 3" in one("width", [*rows, *plain])[1].split("200:")[1]
    # What a class has for images of this size: 24 channels.
    sized = [row for w in (8, 16) for row in worded(f"unet:width={w}", ["creates"] * 3)]
    shown, evidence = one("width", [*sized, *worded("unet", ["memorizes"] * 3)])
    assert shown
    assert "memorize at 24." in evidence


MEASURED = "explained_by__samples__of__optimal__pearson_r"


def test_sight_is_a_correlation_over_networks():
    def rows(values, fields=(3, 5, 7, 9, 11, 13)):
        return [
            record(
                f"resnet:depth={i + 1}",
                seed,
                field=field,
                **{MEASURED: value + 0.001 * seed},
            )
            for i, (field, value) in enumerate(zip(fields, values, strict=False))
            for seed in range(3)
        ]

    rising = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    shown, evidence = one("sight", rows(rising))
    assert shown
    # Seeds of one network are one point: 18 runs would make chance look small.
    assert (
        "over the means of 6 networks that differ in depth or kernel_size or levels alone: 1.00"
        in evidence
    )
    # What differs in more than sight is no evidence, whatever it says.
    zero: dict[str, Any] = {MEASURED: 0.0}
    round_ = [
        record(f"resnet:depth={i},padding=circular", 0, field=20 + i, **zero) for i in range(1, 9)
    ]
    assert one("sight", rows(rising) + round_)[1] == evidence
    assert one("sight", rows(rising[::-1]))[0] is False
    assert one("sight", rows(rising[:2]))[0] is None
    # Three in order are one of six orders; four, of which two see equally far, two of 24.
    assert one("sight", rows(rising[:3]))[0] is None
    assert one("sight", rows(rising[:4], (3, 5, 5, 7)))[0] is None
    assert one("sight", rows(rising[:4]))[0] is True
    assert "p = 0.042" in one("sight", rows(rising[:4]))[1]
    assert one("sight", rows([0.1, 0.3, 0.2, 0.4]))[0] is False
    assert one("sight", [row for row in rows(rising) if row["seed"]])[0] is None
    assert one("sight", rows([0.5] * 6))[0] is False  # no order among equals
    assert one("sight", [record("resnet", i, field=3) for i in range(4)])[0] is None


def error(label, values):
    return [record(label, i, equivariance_error__step__1=v) for i, v in enumerate(values)]


def test_padding_compares_networks_that_differ_in_it_alone():
    circular = error("resnet:depth=2,padding=circular", [[0.0, 2e-6], [0.0, 1e-6], [0.0, 0.0]])
    zeros = error("resnet:depth=2", [[0.1, 0.3], [0.2, 0.2], [0.1, 0.1]])
    # 1x1 convolutions see no edge, whatever the padding: they are no pair of the others.
    points = error("resnet:depth=2,kernel_size=1", [[0.0, 0.0]] * 3)
    assert one("padding", [*circular, *zeros, *points])[0] is True
    spelled = error("resnet:padding=zeros,depth=2", [0.1, 0.1, 0.1])
    assert one("padding", [*circular, *spelled])[0] is True
    assert one("padding", [*circular[:2], *zeros])[0] is None  # two seeds
    worse = error("resnet:depth=4,padding=circular", [0.4, 0.5, 0.6])
    assert (
        one("padding", [*circular, *zeros, *worse, *error("resnet:depth=4", [0.1] * 3)])[0] is False
    )
    # Smaller than with zeros is not alike, and zeros that are alike are no evidence either.
    less = error("resnet:depth=4,padding=circular", [0.04, 0.05, 0.06])
    assert one("padding", [*less, *error("resnet:depth=4", [0.1] * 3)])[0] is False
    assert one("padding", [*circular, *error("resnet:depth=2", [1e-4] * 3)])[0] is False
    assert one("padding", [*circular, *points])[0] is None


@pytest.mark.parametrize("size", ["", "-28"])
@pytest.mark.parametrize("name", ["unet-changes", "mlp-width", "preconditioning", "locality"])
def test_claims_of_a_preset_can_be_told_from_its_rows(name, size):
    study = PRESETS[name + size]
    assert isinstance(study, Study)
    rows = [
        record(
            label,
            seed,
            field=3 + 2 * place,
            equivariance_error__step__1=float("circular" not in label),
            explained_by__samples__of__optimal__pearson_r=0.1 * place,
        )
        for place, label in enumerate(study.architectures)
        for seed in study.seeds
    ]
    assert all(found["shown"] is not None for found in claims.of(study.claims, rows))


def test_an_unknown_claim_is_refused():
    with refused(ValueError, "claim is 'widht'. Did you mean 'width'"):
        claims.of(["widht"], [])
