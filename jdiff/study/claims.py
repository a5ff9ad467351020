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

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jdiff import _check
from jdiff.report import Group, Row, group
from jdiff.report.groups import LEAST_SEEDS, chance
from jdiff.study.closed_forms import CLOSED_FORMS

# What two are told apart by: one measure, or chance finds a difference in one of many.
_TOLD_BY = "frechet_distance"
_FALSE_ALARM = 0.05  # of a correlation
_SIGHT = ("depth", "kernel_size", "levels")  # the options that say how far a network sees

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
    groups = _networks(records)
    made = []
    for name in names:
        sentence, judge = CLAIMS[_check.choice("claim", name, CLAIMS)]
        if len(sizes) > 1:
            shown, evidence = None, "The study has several training-set sizes."
        else:
            shown, evidence = judge(groups)
        lost = [
            f"{g.name} ({len(g.rows) - len(g.runs)} of {len(g.rows)})"
            for g in groups
            if len(g.runs) < len(g.rows)
        ]
        evidence += f" Failed runs are left out: {', '.join(lost)}." if lost else ""
        made.append({"claim": sentence, "shown": shown, "evidence": evidence})
    return made


def _networks(records: Sequence[Mapping[str, Any]]) -> list[Group]:
    """The networks that can be compared, in the order of the records, with their runs."""
    own_grid = lambda record: "per_level" in (record["options"] or {})
    return group(
        [
            Row(record)
            for record in records
            if record["architecture"] not in CLOSED_FORMS and not own_grid(record)
        ]
    )


def _kind(network: Group) -> str:
    return network.rows[0].record["architecture"]


def _options(network: Group) -> Mapping[str, Any]:
    return network.rows[0].record["options"] or {}


def _values(network: Group, measure: str) -> np.ndarray:
    """One number a finished run; of a measure with one a noise level their mean."""
    found = [row.measure(measure) for row in network.runs]
    return np.array([np.mean(entry["value"]) for entry in found if entry], np.float64)


def _range(network: Group, measure: str) -> str:
    """The range over seeds, printed."""
    values = _values(network, measure)
    if not len(values):
        return "–"
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low}–{high}"


def _mostly(network: Group, word: str) -> bool:
    """Whether more than half of the finished runs have a verdict."""
    words = [row.verdict.get("word") for row in network.runs]
    return 2 * words.count(word) > len(words)


def _changes(groups: list[Group]) -> tuple[Group | None, list[Group], str]:
    """The first network, those of its kind that change it, and why not, where it cannot be told."""
    if not groups:
        return None, [], "The study has no network."
    first = groups[0]
    others = [g for g in groups[1:] if _kind(g) == _kind(first) and g.runs]
    if len(first.runs) < LEAST_SEEDS:
        return None, [], f"{first.name} has fewer than {LEAST_SEEDS} finished seeds."
    others = [g for g in others if len(g.runs) >= LEAST_SEEDS]
    if not others:
        return None, [], f"No change of {first.name} has {LEAST_SEEDS} finished seeds."
    return first, others, ""


def _differ(groups: list[Group]) -> Judged:
    first, others, why = _changes(groups)
    if first is None:
        return None, why
    apart, alike = [], []
    for one in others:
        words = f"{one.name} ({_range(one, _TOLD_BY)})"
        (apart if _apart(_values(one, _TOLD_BY), _values(first, _TOLD_BY)) else alike).append(words)
    seeds = min(len(g.runs) for g in (first, *others))
    evidence = (
        f"{len(apart)} of {len(others)} changes leave the range that the Fréchet distance of "
        f"{first.name} has over its seeds ({_range(first, _TOLD_BY)}); by chance each would in "
        f"{chance(seeds):.0%} of cases."
    )
    evidence += f" Outside: {', '.join(apart)}." if apart else ""
    evidence += f" Within: {', '.join(alike)}." if alike else ""
    return 2 * len(apart) >= len(others), evidence


def _unrealistic(groups: list[Group]) -> Judged:
    first, others, why = _changes(groups)
    if first is None:
        return None, why
    bad = [g for g in others if _mostly(g, "unrealistic")]
    named = ", ".join(f"{g.name} (precision {_range(g, 'precision')})" for g in bad)
    evidence = f"{len(bad)} of {len(others)} changes are unrealistic in most of their runs"
    evidence += f": {named}. " if bad else ". "
    unchanged = "is unrealistic too" if _mostly(first, "unrealistic") else "is not"
    evidence += f"{first.name} {unchanged} (precision {_range(first, 'precision')})."
    if _mostly(first, "unrealistic"):
        return None, evidence
    return 4 * len(bad) >= len(others), evidence


def _width(groups: list[Group]) -> Judged:
    kinds = {_kind(g) for g in groups}
    sized = [(_options(g)["width"], g) for g in groups if "width" in _options(g) and g.runs]
    sized.sort(key=lambda pair: pair[0])
    if len(kinds) > 1 or len({width for width, _ in sized}) < max(3, len(sized)):
        return None, "The study is not one network at three or more widths."
    create = [width for width, g in sized if _mostly(g, "creates")]
    copy = [width for width, g in sized if _mostly(g, "memorizes")]
    words = ", ".join(
        f"{width}: {g.said} ({_range(g, 'memorized_fraction')})" for width, g in sized
    )
    evidence = (
        f"Most runs create at widths {_list(create)} and memorize at {_list(copy)}. By width, "
        f"verdicts and the memorized fraction: {words}."
    )
    return bool(create and copy and max(create) < min(copy)), evidence


def _sight(groups: list[Group]) -> Judged:
    from scipy.stats import spearmanr  # half a second to import

    name = "explained_by samples of optimal pearson_r"
    # Padding or normalisation change more than how far a network sees.
    rest = lambda g: (_kind(g), {k: v for k, v in _options(g).items() if k not in _SIGHT})
    pairs = [
        (g.runs[0].record["receptive_field"], _values(g, name).mean())
        for g in groups
        if g.runs and g.runs[0].record.get("receptive_field") and len(_values(g, name))
        if rest(g) == rest(groups[0])
    ]
    fields, agreement = np.array(pairs, np.float64).reshape(-1, 2).T
    if len(set(fields)) < 3 or len(set(agreement)) < 2:
        return None, "Fewer than three receptive fields were measured of networks alike else."
    found: Any = spearmanr(fields, agreement)
    rho, p = float(found.statistic), float(found.pvalue)
    evidence = (
        f"Spearman's correlation of the receptive field with r between samples and those of the "
        f"optimal denoiser, over the means of {len(pairs)} networks that differ in "
        f"{' or '.join(_SIGHT)} alone: {rho:.2f} (p = {p:.2g}). Those that see farther are also "
        "larger."
    )
    return bool(rho > 0 and p < _FALSE_ALARM), evidence


def _padding(groups: list[Group]) -> Judged:
    name = "equivariance_error step 1"
    pairs = [
        (circular, zeros)
        for circular in groups
        for zeros in groups
        if _options(circular).get("padding") == "circular"
        and _kind(zeros) == _kind(circular)
        and dict(_options(zeros), padding="circular") == dict(_options(circular))
        and _options(zeros).get("padding", "zeros") == "zeros"
        and len(_values(circular, name))
        and len(_values(zeros, name))
    ]
    if not pairs:
        return None, "No two measured networks differ in their padding alone."
    words = "; ".join(
        f"{circular.name} {_range(circular, name)} against {_range(zeros, name)}"
        for circular, zeros in pairs
    )
    shown = all(_values(c, name).max() < _values(z, name).min() for c, z in pairs)
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
