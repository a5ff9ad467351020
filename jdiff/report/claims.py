"""What the literature says, and whether a study shows it.

A study writes `results["claims"]`: sentences with "shown" (true, false, or null where it cannot be
told) and the numbers that say so. Nothing is judged here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jdiff.report import formats

# The most important first: what is not shown.
WORDS = {False: "not shown", None: "cannot be told", True: "shown"}


@dataclass(frozen=True)
class Claim:
    """One claim: a sentence, whether the study shows it, and the numbers."""

    claim: str
    shown: bool | None
    evidence: str = ""

    @property
    def word(self) -> str:
        """Shown, not shown, or cannot be told."""
        return WORDS[self.shown]


def read(claims: Sequence[Mapping[str, Any]] | None) -> list[Claim]:
    """The claims of a results.json, in order.

    Args:
      claims: results["claims"]; None or an empty list if there are none.

    Raises:
      ValueError: on a claim without a sentence, or whose "shown" is not true, false or null.

    Example:
      >>> read([{"claim": "Skips matter.", "shown": False, "evidence": "0.9 and 0.9."}])[0].word
      'not shown'
    """
    made = []
    for number, entry in enumerate(claims or ()):
        where = f"results['claims'][{number}]"
        given = dict(entry) if isinstance(entry, Mapping) else {}
        claim, shown = given.get("claim"), given.get("shown")
        if not isinstance(claim, str) or not claim:
            raise ValueError(f"{where} must hold a sentence as 'claim'; got {entry!r}.")
        if "shown" not in given or not (shown is None or isinstance(shown, bool)):
            raise ValueError(f"{where}['shown'] must be true, false or null; got {shown!r}.")
        made.append(Claim(claim, shown, str(given.get("evidence") or "")))
    return made


def counted(claims: Sequence[Claim]) -> list[tuple[str, int]]:
    """How many claims are not shown, cannot be told, are shown; none of a kind, no entry."""
    words = [claim.word for claim in claims]
    return [(word, words.count(word)) for word in WORDS.values() if word in words]


def text(claims: Sequence[Claim]) -> list[str]:
    """The claims as lines of text, for a terminal.

    Example:
      >>> text([Claim("Skips matter.", None, "One seed failed.")])
      ['cannot be told: Skips matter. One seed failed.']
    """
    width = max([0, *(len(claim.word) for claim in claims)])
    return [
        f"{claim.word + ':':<{width + 1}} {claim.claim} {claim.evidence or formats.DASH}"
        for claim in claims
    ]
