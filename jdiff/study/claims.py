"""What the literature says of architectures, held against the rows of a study.

Each claim is a sentence, whether the rows show it (True, False, or None where they cannot tell),
and the numbers it rests on. The architecture that a study names first is the one that the others
change. A difference counts where the ranges over training seeds do not overlap.

Sources: Levine and Weiss 2026, arXiv 2605.16415 (changes of a UNet, width of an MLP); Kamb and
Ganguli 2025, arXiv 2412.20292 (locality and equivariance).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jdiff import _check

# What two architectures are told apart by.
_MEASURES = ("memorized_fraction", "precision", "frechet_distance")


@dataclass(frozen=True)
class Group:
    """The finished runs of one architecture on one training set, one a seed."""

    records: tuple[Mapping[str, Any], ...]

    @property
    def label(self) -> str:
        """The architecture's name."""
        return self.records[0]["label"]

    def option(self, name: str) -> Any:
        """An option that the architecture's string gives, or None."""
        return self.records[0]["options"].get(name)

    def values(self, measure: str) -> np.ndarray:
        """One number a run; of a measure with one a noise level their mean."""
        found = [r["measures"][measure]["value"] for r in self.records if measure in r["measures"]]
        return np.array([np.mean(value) for value in found], np.float64)

    def share(self, word: str) -> float:
        """The share of runs with a verdict."""
        return float(np.mean([record["verdict"]["word"] == word for record in self.records]))

    def range(self, measure: str) -> str:
        """The range over seeds, printed."""
        values = self.values(measure)
        if not len(values):
            return "–"
        low, high = values.min(), values.max()
        return f"{low:.3g}" if low == high else f"{low:.3g}–{high:.3g}"


def of(names: Sequence[str], records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The claims of these names, held against the records of a study.

    Returns:
      Objects {"claim", "shown": true, false or null, "evidence"}, for results.json.

    Raises:
      ValueError: on a name that is not a key of `CLAIMS`.
    """
    groups = _groups(records)
    made = []
    for name in names:
        sentence, judge = CLAIMS[_check.choice("claim", name, CLAIMS)]
        shown, evidence = judge(groups)
        made.append({"claim": sentence, "shown": shown, "evidence": evidence})
    return made


def _groups(records: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Finished runs by architecture and training size, in the order of the records."""
    found: dict[tuple, list] = {}
    for record in records:
        if record["status"] == "ok":
            found.setdefault((record["label"], record["num_train"]), []).append(record)
    return [Group(tuple(same)) for same in found.values()]


Judged = tuple[bool | None, str]


def _differ(groups: list[Group]) -> Judged:
    if len(groups) < 2:
        return None, "The study has one architecture."
    first, others = groups[0], groups[1:]
    apart, alike = [], []
    for group in others:
        moved = [name for name in _MEASURES if _apart(group.values(name), first.values(name))]
        if moved:
            words = ", ".join(
                f"{name.replace('_', ' ')} {group.range(name)} against {first.range(name)}"
                for name in moved
            )
            apart.append(f"{group.label} ({words})")
        else:
            alike.append(group.label)
    evidence = f"{len(apart)} of {len(others)} changes leave the range of {first.label}"
    evidence += f": {'; '.join(apart)}." if apart else "."
    if alike:
        evidence += f" Within it: {', '.join(alike)}."
    return len(apart) * 2 >= len(others), evidence


def _unrealistic(groups: list[Group]) -> Judged:
    if len(groups) < 2:
        return None, "The study has one architecture."
    first, others = groups[0], groups[1:]
    bad = [group for group in others if group.share("unrealistic") > 0.5]
    named = ", ".join(f"{g.label} (precision {g.range('precision')})" for g in bad)
    evidence = f"{len(bad)} of {len(others)} changes are unrealistic in most of their runs"
    evidence += f": {named}. " if bad else ". "
    evidence += f"{first.label} is in {first.share('unrealistic'):.0%} of its runs"
    evidence += f" (precision {first.range('precision')})."
    if first.share("unrealistic") > 0.5:
        return None, evidence + " With an unrealistic start, changes say little."
    return len(bad) * 4 >= len(others), evidence


def _width(groups: list[Group]) -> Judged:
    sized = [(g.option("width"), g) for g in groups if isinstance(g.option("width"), int)]
    sized.sort(key=lambda pair: pair[0])
    if len(sized) < 2:
        return None, "The study has fewer than two widths."
    narrow = [width for width, g in sized if g.share("creates") > 0.5]
    wide = [width for width, g in sized if g.share("memorizes") > 0.5]
    table = ", ".join(f"{width}: {g.range('memorized_fraction')}" for width, g in sized)
    evidence = (
        f"Most runs create at widths {_list(narrow)} and memorize at {_list(wide)}. Memorized "
        f"fraction by width: {table}."
    )
    return bool(narrow and wide and max(narrow) < min(wide)), evidence


def _sight(groups: list[Group]) -> Judged:
    name = "explained_by samples of optimal pearson_r"
    pairs = [
        (record["receptive_field"], record["measures"][name]["value"])
        for group in groups
        for record in group.records
        if record.get("receptive_field") and name in record["measures"]
    ]
    if len({field for field, _ in pairs}) < 3:
        return None, "Fewer than three receptive fields were measured."
    from scipy.stats import spearmanr  # half a second to import

    found: Any = spearmanr(*np.array(pairs, np.float64).T)
    rho, p = float(found.statistic), float(found.pvalue)
    evidence = (
        f"Spearman's correlation of the receptive field with r between samples and those of the "
        f"optimal denoiser, over {len(pairs)} runs: {rho:.2f} (p = {p:.2g})."
    )
    return bool(rho > 0 and p < 0.05), evidence


def _padding(groups: list[Group]) -> Judged:
    name = "equivariance_error step 1"
    measured = [g for g in groups if len(g.values(name))]
    circular = [g for g in measured if g.option("padding") == "circular"]
    zeros = [g for g in measured if g.option("padding") in (None, "zeros")]
    if not circular or not zeros:
        return None, "The study has not both paddings."
    words = lambda some: ", ".join(f"{g.label} {g.range(name)}" for g in some)
    evidence = f"Equivariance error of one pixel: circular {words(circular)}; zeros {words(zeros)}."
    worst, best = (
        max(g.values(name).max() for g in circular),
        min(g.values(name).min() for g in zeros),
    )
    return bool(worst < best), evidence


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
    "width": ("Narrow networks create, wide ones memorize.", _width),
    "sight": (
        "The less far a network sees, the less its samples are those of the optimal denoiser.",
        _sight,
    ),
    "padding": (
        "Circular padding makes a network treat all places alike, zero padding does not.",
        _padding,
    ),
}
