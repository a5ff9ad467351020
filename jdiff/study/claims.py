"""What the literature says of architectures, held against the rows of a study.

Each claim is a sentence, whether the rows show it (True, False, or None where they cannot tell),
and the numbers it rests on. Networks on one training set are judged; closed forms are not, nor are
networks that are sampled at a grid of their own, since more than the network differs there. The
first network of a kind is the one that the others of that kind change. No network is judged by
fewer than three training seeds. Two differ where their ranges over seeds do not overlap: of equal
ones with three seeds each that happens in 10 % of cases by chance, as 2 of the 20 ways to order six
numbers do it.

Sources: Levine and Weiss 2026, arXiv 2605.16415 (changes of a UNet, width of an MLP); Kamb and
Ganguli 2025, arXiv 2412.20292 (locality and equivariance).
"""

import itertools
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
_ALIKE = 0.01  # an equivariance error up to here is rounding's, in 16 bits too
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
    """All options of a network, those too that its string leaves out."""
    record = network.rows[0].record
    return {**(record["all_options"] or {}), "preconditioning": record["preconditioning"]}


def _enough(network: Group, measure: str) -> bool:
    """Whether enough seeds have a measure."""
    return len(_values(network, measure)) >= LEAST_SEEDS


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


def _families(groups: list[Group]) -> tuple[list[tuple[Group, list[Group]]], str]:
    """The first network of every kind with those that change it, and why there is none."""
    if not groups:
        return [], "The study has no network."
    families, why = [], []
    for kind in dict.fromkeys(map(_kind, groups)):
        first, *others = (g for g in groups if _kind(g) == kind)
        others = [g for g in others if len(g.runs) >= LEAST_SEEDS]
        if len(first.runs) < LEAST_SEEDS:
            why.append(f"{first.name} has fewer than {LEAST_SEEDS} finished seeds.")
        elif not others:
            why.append(f"No change of {first.name} has {LEAST_SEEDS} finished seeds.")
        else:
            families.append((first, others))
    return families, " ".join(why)


def _differ(groups: list[Group]) -> Judged:
    families, why = _families(groups)
    if not families:
        return None, why
    count = total = 0
    evidence = []
    for first, others in families:
        apart, alike = [], []
        for one in others:
            differs = _apart(_values(one, _TOLD_BY), _values(first, _TOLD_BY))
            (apart if differs else alike).append(f"{one.name} ({_range(one, _TOLD_BY)})")
        seeds = min(len(g.runs) for g in (first, *others))
        said = (
            f"{len(apart)} of {len(others)} changes leave the range that the Fréchet distance of "
            f"{first.name} has over its seeds ({_range(first, _TOLD_BY)}); by chance each would in "
            f"{chance(seeds):.0%} of cases."
        )
        said += f" Outside: {', '.join(apart)}." if apart else ""
        said += f" Within: {', '.join(alike)}." if alike else ""
        evidence.append(said)
        count, total = count + len(apart), total + len(others)
    return 2 * count >= total, " ".join([*evidence, why]).strip()


def _unrealistic(groups: list[Group]) -> Judged:
    families, why = _families(groups)
    if not families:
        return None, why
    count = total = 0
    evidence = []
    for first, others in families:
        bad = [g for g in others if _mostly(g, "unrealistic")]
        named = ", ".join(f"{g.name} (precision {_range(g, 'precision')})" for g in bad)
        said = f"{len(bad)} of {len(others)} changes are unrealistic in most of their runs"
        said += f": {named}. " if bad else ". "
        from_bad = _mostly(first, "unrealistic")
        said += f"{first.name} {'is unrealistic too' if from_bad else 'is not'} "
        said += f"(precision {_range(first, 'precision')})"
        evidence.append(said + (", so that its changes do not count." if from_bad else "."))
        if not from_bad:
            count, total = count + len(bad), total + len(others)
    return (4 * count >= total if total else None), " ".join([*evidence, why]).strip()


def _width(groups: list[Group]) -> Judged:
    sized = [
        (_options(g)["width"], g)
        for g in groups
        if isinstance(_options(g).get("width"), int) and len(g.runs) >= LEAST_SEEDS
    ]
    sized.sort(key=lambda pair: pair[0])
    alike = {(_kind(g), _text(_options(g), "width")) for _, g in sized}
    if len(alike) != 1 or len({width for width, _ in sized}) < max(3, len(sized)):
        return None, (
            "The study is not one network at three or more widths, alike in all else, with "
            f"{LEAST_SEEDS} finished seeds each."
        )
    create = [width for width, g in sized if _mostly(g, "creates")]
    copy = [width for width, g in sized if _mostly(g, "memorizes")]
    words = ", ".join(
        f"{width}: {g.said} ({_range(g, 'memorized_fraction')})" for width, g in sized
    )
    evidence = (
        f"Most runs create at widths {_list(create)} and memorize at {_list(copy)}. By width, "
        f"verdicts and the memorized fraction: {words}."
    )
    shown = create and copy and max(create) < min(copy) and _mostly(sized[-1][1], "memorizes")
    return bool(shown), evidence


def _sight(groups: list[Group]) -> Judged:
    name = "explained_by samples of optimal pearson_r"
    # Padding or normalisation change more than how far a network sees.
    rest = lambda g: (_kind(g), _text(_options(g), *_SIGHT))
    pairs = [
        (g.runs[0].record["receptive_field"], _values(g, name).mean())
        for g in groups
        if _enough(g, name) and g.runs[0].record.get("receptive_field")
        if rest(g) == rest(groups[0])
    ]
    fields, agreement = np.array(pairs, np.float64).reshape(-1, 2).T
    # What the clearest order of as many networks would come to.
    if len(pairs) < 3 or _rising(np.sort(fields), np.arange(len(pairs)))[1] > _FALSE_ALARM:
        return None, (
            f"Too few receptive fields were measured, over {LEAST_SEEDS} seeds each, of networks "
            "alike in all else, for any order to differ from chance."
        )
    rho, p = _rising(fields, agreement)
    evidence = (
        f"Spearman's correlation of the receptive field with r between samples and those of the "
        f"optimal denoiser, over the means of {len(pairs)} networks that differ in "
        f"{' or '.join(_SIGHT)} alone: {rho:.2f} (one-sided p = {p:.2g}). Those that see "
        "farther are also larger."
    )
    return p < _FALSE_ALARM, evidence


def _rising(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Spearman's rho, and the share of the orders of y whose rho is as large; exact up to 8."""
    from scipy import stats  # half a second to import

    if len(set(x)) == 1 or len(set(y)) == 1:
        return 0.0, 1.0
    x, y = stats.rankdata(x), stats.rankdata(y)
    if len(x) > 8:
        found: Any = stats.spearmanr(x, y, alternative="greater")
        return float(found.statistic), float(found.pvalue)
    rho = float(np.corrcoef(x, y)[0, 1])
    orders = np.array(list(itertools.permutations(y)))
    # Ranks are halves of integers and their products exact.
    return rho, float(np.mean(orders @ x >= y @ x))


def _padding(groups: list[Group]) -> Judged:
    name = "equivariance_error step 1"
    of = lambda padding: [
        g for g in groups if _options(g).get("padding") == padding and _enough(g, name)
    ]
    pairs = [
        (circular, zeros)
        for circular in of("circular")
        for zeros in of("zeros")
        if _kind(zeros) == _kind(circular)
        and _text(_options(zeros), "padding") == _text(_options(circular), "padding")
    ]
    if not pairs:
        return None, (
            f"No two networks measured over {LEAST_SEEDS} seeds differ in their padding alone."
        )
    words = "; ".join(
        f"{circular.name} {_range(circular, name)} against {_range(zeros, name)}"
        for circular, zeros in pairs
    )
    shown = all(_values(c, name).max() <= _ALIKE < _values(z, name).min() for c, z in pairs)
    return shown, (
        f"Equivariance error of one pixel, circular against zeros: {words}. Up to {_ALIKE} is "
        "alike."
    )


def _text(options: Mapping[str, Any], *without: str) -> str:
    """Options but for some, to be compared."""
    return repr(sorted((name, value) for name, value in options.items() if name not in without))


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
