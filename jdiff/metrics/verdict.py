"""One word for an architecture, from its measures and their controls; never without the numbers.

In this order: it *memorizes* if more of its samples than half, and than of held-out images, are
surely copies; is *unrealistic* if its precision is below half the control's, or its Fréchet
distance above four times the control's (both are needed: the mean image has precision 1, and
N(mean, covariance) the best Fréchet distance); *creates* if it copies no more than held-out images
do; else *mixed*.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jdiff.metrics.measure import Measure

MOSTLY_COPIES = 0.5  # memorized_fraction
LEAST_PRECISION = 0.5  # of the control's
MOST_FRECHET = 4.0  # times the control's

# What the rule reads of each measure.
_READS = {
    "memorized_fraction": ("value", "interval", "control", "control_interval"),
    "precision": ("value", "interval", "control"),
    "frechet_distance": ("value", "control"),
}


class Verdict(NamedTuple):
    """What an architecture does.

    Attributes:
      word: "memorizes", "unrealistic", "creates" or "mixed".
      reason: one sentence with the numbers that decided.
    """

    word: str
    reason: str


def verdict(measures: Mapping[str, Measure | Mapping[str, Any]]) -> Verdict:
    """Judges an architecture by its measures.

    Args:
      measures: by name, as `Measure` or as the dictionaries of results.json; memorized_fraction,
        precision and frechet_distance are needed, others are not read.

    Returns:
      Verdict.

    Raises:
      ValueError: if a measure is missing, or lacks a number that the rule reads.
    """
    missing = [name for name in _READS if name not in measures]
    if missing:
        raise ValueError(f"measures must hold {', '.join(_READS)}; missing: {', '.join(missing)}.")
    memorized, precise, frechet = (_read(measures[name], name) for name in _READS)
    low = memorized["interval"][0]
    control_high = memorized["control_interval"][1]
    copies = (
        f"{memorized['value']:.1%} of the samples (at least {low:.1%}) are copies, "
        f"against {memorized['control']:.1%} (at most {control_high:.1%}) of held-out images"
    )
    if low > max(MOSTLY_COPIES, control_high):
        return Verdict("memorizes", f"{_upper(copies)}.")

    precision_text = (
        f"precision is {precise['value']:.2f} (at most {precise['interval'][1]:.2f}), "
        f"against {precise['control']:.2f} for held-out images"
    )
    if precise["interval"][1] < LEAST_PRECISION * precise["control"]:
        return Verdict("unrealistic", f"{_upper(precision_text)}.")

    frechet_text = (
        f"the Fréchet distance is {frechet['value']:.3g}, "
        f"against {frechet['control']:.3g} for held-out images"
    )
    if frechet["value"] > MOST_FRECHET * frechet["control"]:
        return Verdict("unrealistic", f"{_upper(frechet_text)}.")

    realistic = f"{precision_text}, and {frechet_text}"
    if low <= control_high:
        return Verdict("creates", f"{_upper(copies)}; {realistic}.")
    return Verdict("mixed", f"{_upper(copies)}, yet not most are; {realistic}.")


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _read(entry: Measure | Mapping[str, Any], name: str) -> dict[str, Any]:
    numbers = entry.to_dict() if isinstance(entry, Measure) else dict(entry)
    for field in _READS[name]:
        value = numbers.get(field)
        # null is what a NaN became in results.json.
        if value is None or not np.all(np.isfinite(np.asarray(value, np.float64))):
            raise ValueError(f"measures[{name!r}] must have a finite {field}; got {value!r}.")
    return numbers
