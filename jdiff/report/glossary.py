"""The words of a report: what each verdict and measure means, and how it is printed.

Definitions follow the papers named with them. A measure that is not listed here is still shown,
under its own name: see `extra_measures`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jdiff.report import formats
from jdiff.report.rows import Row

PAPER = "https://arxiv.org/abs/2605.16415"

VERDICTS = {
    "memorizes": "Its samples are copies: most lie far closer to one training image than to any "
    "other, and clearly more of them do than of real images it has never seen.",
    "creates": "Its samples look like the data and are no closer to the training images than "
    "real held-out images are.",
    "unrealistic": "Its samples are not like the data: too few lie among real images, or their "
    "mean and covariance are far off.",
    "mixed": "In between: realistic, with more copies than real images show, but not mostly.",
}
VERBS = {
    "memorizes": ("memorizes", "memorize"),
    "creates": ("creates", "create"),
    "unrealistic": ("is unrealistic", "are unrealistic"),
    "mixed": ("is mixed", "are mixed"),
    "failed": ("failed to run", "failed to run"),
    "": ("has no verdict", "have no verdict"),
}


@dataclass(frozen=True)
class Measure:
    """How one measure is named, printed and explained."""

    title: str
    short: str
    form: Callable[[float | None], str]
    definition: str


MEASURES = {
    "memorized_fraction": Measure(
        "memorized fraction",
        "memorized",
        formats.proportion,
        "Share of samples whose nearest training image is far nearer than the second nearest: "
        "d₁/d₂ < c. Exact duplicates in the training set count once (Yoon et al. 2023; Gu et al. "
        "2023). 1: all copies.",
    ),
    "nearest_rms": Measure(
        "distance to the nearest training image",
        "nearest rms",
        formats.significant,
        "Mean of d₁/√d, d the number of values in an image: the root-mean-square difference per "
        "pixel on a scale where black is 0 and white is 1 (Gu et al. 2023). 0: exact copies.",
    ),
    "precision": Measure(
        "precision",
        "precision",
        formats.proportion,
        "Share of samples inside the union of balls around training images, each reaching to that "
        "image's k-th neighbour (Kynkäänniemi et al. 2019). High: samples lie among real images.",
    ),
    "frechet_distance": Measure(
        "Fréchet distance",
        "Fréchet",
        formats.significant,
        "|m₁ − m₂|² + Tr(S₁ + S₂ − 2(S₁S₂)^½) between means m and covariances S of samples and "
        "training images. Low: the two moments agree. It depends on n, so compare it with its "
        "control only.",
    ),
    "pearson_r_to_optimal": Measure(
        "agreement with the optimal denoiser",
        "r to optimal",
        formats.proportion,
        "Pearson correlation between a sample and the one that the Bayes-optimal denoiser of the "
        "training set makes from the same noise, each image's mean removed, averaged over samples. "
        "1: the architecture does what the optimal denoiser does.",
    ),
    "memorized_fraction_half": Measure(
        "memorized fraction, c = 1/2",
        "memorized, c = 1/2",
        formats.proportion,
        "The memorized fraction with the looser threshold d₁/d₂ < 1/2.",
    ),
}
MAIN = ("memorized_fraction", "nearest_rms", "precision", "frechet_distance")
SHOWN = (*MAIN, "pearson_r_to_optimal")  # the columns of the main table


@dataclass(frozen=True)
class Entry:
    """One entry of a record: its place, its heading, how it is printed, what it means."""

    path: tuple[str, ...]
    title: str
    form: Callable[[Any], str]
    definition: str = ""


COSTS = (
    Entry(
        ("num_params",),
        "parameters",
        formats.count,
        "Numbers that the denoiser holds: trained weights, or what a closed form keeps.",
    ),
    Entry(
        ("flops_per_image",),
        "FLOPs per\u00a0image",
        formats.count,
        "Floating-point operations of one denoiser evaluation of one image.",
    ),
    Entry(
        ("images_per_s", "train"),
        "training images/s",
        formats.significant,
        "Images that went through a training step each second, compilation not counted.",
    ),
    Entry(
        ("images_per_s", "sample"),
        "samples/s",
        formats.significant,
        "Finished samples each second, compilation not counted.",
    ),
    Entry(("nfe",), "NFE", formats.count, "Number of denoiser evaluations that make one sample."),
    Entry(
        ("seconds", "compile"),
        "compile (s)",
        formats.significant,
        "Seconds spent compiling, apart from all other times.",
    ),
)
SETTINGS = (
    Entry(("options",), "options", formats.plain),
    Entry(("preconditioning",), "preconditioning", formats.plain),
    Entry(("num_train",), "training images", formats.plain),
    Entry(("seed",), "seed", formats.plain),
    Entry(("budget", "steps"), "steps", formats.plain),
    Entry(("budget", "images"), "images seen", formats.count),
    Entry(("budget", "flops"), "training FLOPs", formats.count),
    Entry(("seconds", "train"), "training (s)", formats.significant),
    Entry(("seconds", "sample"), "sampling (s)", formats.significant),
    Entry(("samples",), "samples", formats.plain),
)


def measure(name: str) -> Measure:
    """Returns the entry of one measure; an unlisted one is named by its own name."""
    words = name.replace("_", " ")
    return MEASURES.get(name) or Measure(words, words, formats.significant, "")


def title(name: str, rows: Sequence[Row], *, short: bool = False) -> str:
    """A measure's printed name; a Fréchet distance carries the space it was taken in.

    Example:
      >>> row = Row({"label": "mlp", "status": "ok",
      ...            "measures": {"frechet_distance": {"value": 0.2, "features": "pixels"}}})
      >>> title("frechet_distance", [row])
      'pixel Fréchet distance'
    """
    entry = measure(name)
    words = entry.short if short else entry.title
    spaces = {row.measure(name).get("features") for row in rows} - {None, ""}
    if name != "frechet_distance" or not spaces:
        return words
    if spaces == {"pixels"}:
        return f"pixel {words}"
    return f"{words} ({', '.join(sorted(map(str, spaces)))})"


def main_measures(rows: Sequence[Row]) -> list[str]:
    """Names of the measures in the main table: the four of a verdict, others if measured."""
    return [name for name in SHOWN if name in MAIN or any(row.measure(name) for row in rows)]


def extra_measures(rows: Sequence[Row]) -> list[str]:
    """Names of the measures that the main table does not show, in the order they appear."""
    names = [name for row in rows for name in row.record.get("measures") or {}]
    return [name for name in dict.fromkeys(names) if name not in SHOWN]


def clauses(rows: Sequence[Row], names: Sequence[str]) -> list[tuple[str, list[str], str]]:
    """The verdicts in words: (verdict, the rows it holds for, verb), one entry a verdict.

    Example:
      >>> row = Row({"label": "mlp", "status": "ok", "verdict": {"word": "creates"}})
      >>> clauses([row, row], ["a", "b"])
      [('creates', ['a', 'b'], 'create')]
    """
    said = []
    words = ["failed" if row.failed else row.verdict.get("word") or "" for row in rows]
    for word in dict.fromkeys([*VERBS, *words]):
        holds = [name for name, other in zip(names, words, strict=True) if other == word]
        if holds:
            verbs = VERBS.get(word, (f"is {word}", f"are {word}"))
            said.append((word, holds, verbs[len(holds) > 1]))
    return said


def join(words: Sequence[str]) -> str:
    """Joins words as a sentence does: a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
