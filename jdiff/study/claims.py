"""What the literature says of architectures, held against the rows of a study.

Each claim is a sentence, whether the rows show it (True, False, or None where they cannot tell),
and the numbers it rests on. Networks on one training set are judged; closed forms are not, nor are
networks that are sampled at a grid of their own, since more than the network differs there. The
first network is the one that the others change. Two differ where their ranges over at least three
training seeds do not overlap: of equal ones with three seeds each that happens in 10 % of cases by
chance, as 2 of the 20 ways to order six numbers do it.

Sources: Levine and Weiss 2026, arXiv 2605.16415 (changes of a UNet, width of an MLP); Kamb and
Ganguli 2025, arXiv 2412.20292 (locality and equivariance).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jdiff import _check
from jdiff.study.closed_forms import CLOSED_FORMS

LEAST_SEEDS = 3
# What two are told apart by: one measure, or chance finds a difference in one of many.
_TOLD_BY = "frechet_distance"
_FALSE_ALARM = 0.05  # of a correlation


@dataclass(frozen=True)
class Group:
    """The runs of one network on one training set, one a seed; failed ones are counted alone."""

    label: str
    name: str
    options: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...]
    failed: int

    def values(self, measure: str) -> np.ndarray:
        """One number a finished run; of a measure with one a noise level their mean."""
        found = [r["measures"][measure]["value"] for r in self.records if measure in r["measures"]]
        return np.array([np.mean(value) for value in found], np.float64)

    def mostly(self, word: str) -> bool:
        """Whether more than half of the finished runs have a verdict."""
        words = [record["verdict"]["word"] for record in self.records]
        return 2 * words.count(word) > len(words)

    def range(self, measure: str) -> str:
        """The range over seeds, printed."""
        values = self.values(measure)
        if not len(values):
            return "–"
        low, high = values.min(), values.max()
        return f"{low:.4g}" if low == high else f"{low:.4g}–{high:.4g}"


Judged = tuple[bool | None, str]


def of(names: Sequence[str], records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The claims of these names, held against the records of a study.

    Args:
      names: keys of `CLAIMS`.
      records: rows as results.json has them.

    Returns:
      Objects {"claim", "shown": true, false or null, "evidence"}, for results.json.

    Raises:
      ValueError: on a name that is not a key of `CLAIMS`.
    """
    sizes = {record["num_train"] for record in records}
    groups = _groups(records)
    made = []
    for name in names:
        sentence, judge = CLAIMS[_check.choice("claim", name, CLAIMS)]
        if len(sizes) > 1:
            shown, evidence = None, "The study has several training-set sizes."
        else:
            shown, evidence = judge(groups)
        lost = [
            f"{g.label} ({g.failed} of {g.failed + len(g.records)})" for g in groups if g.failed
        ]
        evidence += f" Failed runs are left out: {', '.join(lost)}." if lost else ""
        made.append({"claim": sentence, "shown": shown, "evidence": evidence})
    return made


def _groups(records: Sequence[Mapping[str, Any]]) -> list[Group]:
    """The networks, in the order of the records, with their runs."""
    found: dict[str, list] = {}
    for record in records:
        own_grid = "per_level" in (record["options"] or {})
        if record["architecture"] not in CLOSED_FORMS and not own_grid:
            found.setdefault(record["label"], []).append(record)
    return [
        Group(
            label,
            rows[0]["architecture"],
            rows[0]["options"] or {},
            tuple(row for row in rows if row["status"] == "ok"),
            sum(row["status"] != "ok" for row in rows),
        )
        for label, rows in found.items()
    ]


def _changes(groups: list[Group]) -> tuple[Group | None, list[Group], str]:
    """The first network, those of its kind that change it, and why not, where it cannot be told."""
    if not groups:
        return None, [], "The study has no network."
    first = groups[0]
    others = [g for g in groups[1:] if g.name == first.name and g.records]
    if len(first.records) < LEAST_SEEDS:
        return None, [], f"{first.label} has fewer than {LEAST_SEEDS} finished seeds."
    others = [g for g in others if len(g.records) >= LEAST_SEEDS]
    if not others:
        return None, [], f"No change of {first.label} has {LEAST_SEEDS} finished seeds."
    return first, others, ""


def _differ(groups: list[Group]) -> Judged:
    first, others, why = _changes(groups)
    if first is None:
        return None, why
    apart, alike = [], []
    for group in others:
        words = f"{group.label} ({group.range(_TOLD_BY)})"
        (apart if _apart(group.values(_TOLD_BY), first.values(_TOLD_BY)) else alike).append(words)
    seeds = min(len(g.records) for g in (first, *others))
    chance = 2 / math.comb(2 * seeds, seeds)
    evidence = (
        f"{len(apart)} of {len(others)} changes leave the range that the Fréchet distance of "
        f"{first.label} has over its seeds ({first.range(_TOLD_BY)}); by chance each would in "
        f"{chance:.0%} of cases."
    )
    evidence += f" Outside: {', '.join(apart)}." if apart else ""
    evidence += f" Within: {', '.join(alike)}." if alike else ""
    return 2 * len(apart) >= len(others), evidence


def _unrealistic(groups: list[Group]) -> Judged:
    first, others, why = _changes(groups)
    if first is None:
        return None, why
    bad = [group for group in others if group.mostly("unrealistic")]
    named = ", ".join(f"{g.label} (precision {g.range('precision')})" for g in bad)
    evidence = f"{len(bad)} of {len(others)} changes are unrealistic in most of their runs"
    evidence += f": {named}. " if bad else ". "
    unchanged = "is unrealistic too" if first.mostly("unrealistic") else "is not"
    evidence += f"{first.label} {unchanged} (precision {first.range('precision')})."
    if first.mostly("unrealistic"):
        return None, evidence
    return 4 * len(bad) >= len(others), evidence


def _width(groups: list[Group]) -> Judged:
    kinds = {g.name for g in groups}
    sized = [(g.options["width"], g) for g in groups if "width" in g.options and g.records]
    sized.sort(key=lambda pair: pair[0])
    if len(kinds) > 1 or len({width for width, _ in sized}) < max(3, len(sized)):
        return None, "The study is not one network at three or more widths."
    create = [width for width, g in sized if g.mostly("creates")]
    copy = [width for width, g in sized if g.mostly("memorizes")]
    words = ", ".join(
        f"{width}: {g.records[0]['verdict']['word']} ({g.range('memorized_fraction')})"
        for width, g in sized
    )
    evidence = (
        f"Most runs create at widths {_list(create)} and memorize at {_list(copy)}. By width, the "
        f"first seed's verdict and the memorized fraction: {words}."
    )
    return bool(create and copy and max(create) < min(copy)), evidence


def _sight(groups: list[Group]) -> Judged:
    from scipy.stats import spearmanr  # half a second to import

    name = "explained_by samples of optimal pearson_r"
    pairs = [
        (group.records[0]["receptive_field"], group.values(name).mean())
        for group in groups
        if group.records and group.records[0].get("receptive_field") and len(group.values(name))
    ]
    fields, agreement = np.array(pairs, np.float64).reshape(-1, 2).T
    if len(set(fields)) < 3 or len(set(agreement)) < 2:
        return None, "Fewer than three receptive fields were measured."
    found: Any = spearmanr(fields, agreement)
    rho, p = float(found.statistic), float(found.pvalue)
    evidence = (
        f"Spearman's correlation of the receptive field with r between samples and those of the "
        f"optimal denoiser, over the means of {len(pairs)} networks: {rho:.2f} (p = {p:.2g}). "
        "Networks that see farther also have more layers or larger kernels here."
    )
    return bool(rho > 0 and p < _FALSE_ALARM), evidence


def _padding(groups: list[Group]) -> Judged:
    name = "equivariance_error step 1"
    pairs = [
        (circular, zeros)
        for circular in groups
        for zeros in groups
        if circular.options.get("padding") == "circular"
        and zeros.name == circular.name
        and dict(zeros.options, padding="circular") == dict(circular.options)
        and zeros.options.get("padding", "zeros") == "zeros"
        and len(circular.values(name))
        and len(zeros.values(name))
    ]
    if not pairs:
        return None, "No two measured networks differ in their padding alone."
    words = "; ".join(
        f"{circular.label} {circular.range(name)} against {zeros.range(name)}"
        for circular, zeros in pairs
    )
    shown = all(c.values(name).max() < z.values(name).min() for c, z in pairs)
    return shown, f"Equivariance error of one pixel, circular against zeros: {words}."


def _apart(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(len(a) and len(b) and (a.max() < b.min() or b.max() < a.min()))


def _list(values: Sequence[int]) -> str:
    return ", ".join(map(str, values)) if values else "none"


CLAIMS: dict[str, tuple[str, Callable[[list[Group]], Judged]]] = {
    "differ": (
        "Small changes of the network change what it generates (at least half of them leave the "
        "range of the unchanged network over its seeds).",
        _differ,
    ),
    "unrealistic": (
        "Small changes often make the samples unrealistic (at least a quarter of them).",
        _unrealistic,
    ),
    "width": ("Wide networks memorize, and from some width down they create.", _width),
    "sight": (
        "The less far a network sees, the less its samples are those of the optimal denoiser.",
        _sight,
    ),
    "padding": (
        "Circular padding makes a network treat all places alike, zero padding does not.",
        _padding,
    ),
}
