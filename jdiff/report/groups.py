"""Training seeds: the rows of one architecture and training size are a group.

    mean = sum of a number over runs / their count,      range = [its smallest, its largest]

over the runs that did not fail and have the number. An interval over samples says nothing about
training, and a range over seeds nothing about the samples of one run: both are shown, apart.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jdiff.report import formats, glossary
from jdiff.report.rows import Row

VARIES = "varies"  # the headline's word for an architecture whose seeds disagree
LEAST_SEEDS = 3  # of each of two groups before their ranges are compared


class Spread(NamedTuple):
    """A number over the runs of a group: all None where no run has it."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    count: int = 0

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Spread":
        """Of the values that are there.

        Example:
          >>> Spread.of([1.0, None, 4.0])
          Spread(mean=2.5, low=1.0, high=4.0, count=2)
        """
        known = [float(value) for value in values if not formats.missing(value)]
        if not known:
            return cls()
        # A mean of equal numbers is that number, which a sum of floats may miss by a digit.
        mean = known[0] if min(known) == max(known) else math.fsum(known) / len(known)
        return cls(mean, min(known), max(known), len(known))

    @property
    def ends(self) -> tuple[float, float] | None:
        """The range, None where fewer than two runs have the number."""
        if self.low is None or self.high is None or self.count < 2:
            return None
        return self.low, self.high


@dataclass(frozen=True, eq=False)
class Group:
    """All runs of one architecture on one training set.

    Attributes:
      name: its label, with the training size where labels repeat.
      numbers: which of all rows they are, in order.
      rows: the rows themselves.
      parts: the label in pieces, each with whether it differs from the first architecture of its
        kind: (("unet:", False), ("skips=false", True)). Joined they are the name.
      short: what figures call it: the pieces that differ.
    """

    name: str
    numbers: tuple[int, ...]
    rows: tuple[Row, ...]
    parts: tuple[tuple[str, bool], ...]
    short: str

    @property
    def runs(self) -> list[Row]:
        """Those that did not fail."""
        return [row for row in self.rows if not row.failed]

    @property
    def first(self) -> int:
        """The number of its first row that did not fail; of its first row if all failed."""
        whole = (i for i, row in zip(self.numbers, self.rows, strict=True) if not row.failed)
        return next(whole, self.numbers[0])

    def spread(self, *path: str) -> Spread:
        """An entry of the record, such as ("seconds", "train"), over the runs."""
        return Spread.of([_number(row.entry(*path)) for row in self.runs])

    @property
    def counts(self) -> list[tuple[str, int]]:
        """How many runs have each verdict, the most frequent first; "failed" is one too.

        Example:
          >>> records = [{"label": "mlp", "status": "ok", "seed": s, "verdict": {"word": w}}
          ...            for s, w in enumerate(("mixed", "unrealistic", "unrealistic"))]
          >>> group([Row(record) for record in records])[0].counts
          [('unrealistic', 2), ('mixed', 1)]
        """
        words = [_word(row) for row in self.rows]
        order = [*glossary.VERDICTS, *words]
        return sorted(
            ((word, words.count(word)) for word in dict.fromkeys(words)),
            key=lambda pair: (pair[0] == "failed", -pair[1], order.index(pair[0])),
        )

    @property
    def said(self) -> str:
        """The verdicts in words: "creates 3 of 3", "unrealistic 2, mixed 1"."""
        number = len(self.rows)
        if len(self.counts) > 1:
            return ", ".join(f"{word or 'no verdict'} {n}" for word, n in self.counts)
        word = self.counts[0][0] or formats.DASH
        return word if number == 1 else f"{word} {number} of {number}"

    @property
    def word(self) -> str:
        """The one verdict of all runs that did not fail, or `VARIES`; "failed" if all did."""
        words = dict.fromkeys(map(_word, self.runs))
        return VARIES if len(words) > 1 else next(iter(words), "failed")


def group(rows: Sequence[Row]) -> list[Group]:
    """Puts the training seeds of an architecture together.

    Args:
      rows: of one study, as `jdiff.study.run` returns them.

    Returns:
      One group a label and training size, in the order in which these appear.

    Example:
      >>> records = [{"label": "mlp", "status": "ok", "seed": s, "nfe": 35} for s in (0, 1)]
      >>> [(one.name, one.spread("nfe").mean) for one in group([Row(r) for r in records])]
      [('mlp', 35.0)]
    """
    members: dict[tuple[str, Any], list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault((row.label, row.record.get("num_train")), []).append(i)
    labels = [label for label, _ in members]
    bases: dict[Any, dict[str, str]] = {}
    made = []
    for (label, num_train), numbers in members.items():
        kind, options = _pieces(label)
        base = bases.setdefault(kind, options)
        size = ""
        if labels.count(label) > 1:
            size = ", N = " + (formats.DASH if num_train is None else f"{num_train:,}")
        parts = _parts(label, base) + (((size, True),) if size else ())
        short = "".join(text for text, differs in parts if differs).rstrip(",")
        own = tuple(rows[i] for i in numbers)
        made.append(Group(label + size, tuple(numbers), own, parts, short))
    # A short name that two architectures share, such as width=8, is told with its kind.
    for longer in (lambda one: f"{one.parts[0][0]}{one.short}", lambda one: one.name):
        short = [one.short for one in made]
        made = [
            one if short.count(one.short) == 1 else dataclasses.replace(one, short=longer(one))
            for one in made
        ]
    return made


def several(rows: Sequence[Row]) -> bool:
    """Whether any architecture was run with more than one seed."""
    return any(len(one.rows) > 1 for one in group(rows))


def leaders(rows: Sequence[Row]) -> list[int]:
    """The row that stands for each architecture in figures: its first seed that has pictures."""
    with_pictures = [
        [i for i, row in zip(one.numbers, one.rows, strict=True) if row.pictures is not None]
        for one in group(rows)
    ]
    return [numbers[0] for numbers in with_pictures if numbers]


def others(rows: Sequence[Row], leader: int) -> list[int]:
    """The other rows with pictures of the architecture of row `leader`."""
    (own,) = (one for one in group(rows) if leader in one.numbers)
    return [i for i in own.numbers if i != leader and rows[i].pictures is not None]


def compared_with(groups: Sequence[Group]) -> Group | None:
    """The first architecture, if others are of its kind and differ from it in options."""
    if not groups:
        return None
    followers = [one for one in groups[1:] if not all(differs for _, differs in one.parts)]
    kind = _pieces(groups[0].rows[0].label)[0]
    same = [one for one in followers if _pieces(one.rows[0].label)[0] == kind]
    return groups[0] if same else None


def moved(own: Spread, base: Spread) -> str:
    """Tells "up" or "down" if the range lies wholly above or below the base's, else ""."""
    if own.ends is None or base.ends is None or min(own.count, base.count) < LEAST_SEEDS:
        return ""
    if own.ends[0] > base.ends[1]:
        return "up"
    return "down" if own.ends[1] < base.ends[0] else ""


def chance(number: int) -> float:
    """How often the ranges of two times `number` equally distributed runs lie apart by chance.

    2 / binomial(2 n, n): all of one before all of the other, in either order.

    Example:
      >>> chance(3)
      0.1
    """
    return 2 / math.comb(2 * number, number)


def clauses(groups: Sequence[Group]) -> list[tuple[str, list[str], str]]:
    """The verdicts in words, as `glossary.clauses` gives them, for architectures."""
    return glossary.said([one.word for one in groups], [one.name for one in groups])


def _word(row: Row) -> str:
    return "failed" if row.failed else row.verdict.get("word") or ""


def _number(value: Any) -> Any:
    """A number, or None for what has one value a noise level or is none."""
    return None if isinstance(value, str) or np.ndim(value) > 0 else value


def _pieces(label: str) -> tuple[str, dict[str, str]]:
    """The architecture's name, and its options as they are spelled, by name."""
    kind, _, rest = label.partition(":")
    return kind, {pair.partition("=")[0]: pair for pair in filter(None, rest.split(","))}


def _parts(label: str, base: dict[str, str]) -> tuple[tuple[str, bool], ...]:
    kind, options = _pieces(label)
    differ = {name for name, pair in options.items() if base.get(name) != pair}
    # One that lacks an option of the base, or is the base, is told by its whole label.
    if not differ or set(base) - set(options):
        differ, whole = set(options), True
    else:
        whole = False
    parts = [(kind + (":" if options else ""), whole)]
    for place, (name, pair) in enumerate(options.items(), 1):
        parts.append((pair + ("," if place < len(options) else ""), name in differ))
    return tuple(parts)
