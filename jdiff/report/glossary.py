"""The words of a report: what each verdict and measure means, and how it is printed.

Definitions follow the papers named with them. A measure that is not listed here is still shown,
under its own name: see `extra_measures`, and `GROUPS` for the page of one evaluation.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    "varies": ("differs from seed to seed", "differ from seed to seed"),
    "failed": ("failed to run", "failed to run"),
    "": ("has no verdict", "have no verdict"),
}


@dataclass(frozen=True)
class Measure:
    """How one measure is named, printed and explained.

    Attributes:
      title: its name in words.
      short: the same where there is little room.
      form: how its numbers are printed.
      definition: what it is, with its source.
      reading: one sentence: what a value says beside its control.
    """

    title: str
    short: str
    form: Callable[[float | None], str]
    definition: str
    reading: str = ""


MEASURES = {
    "memorized_fraction": Measure(
        "memorized fraction",
        "memorized",
        formats.proportion,
        "Share of samples whose nearest training image is far nearer than the second nearest: "
        "d₁/d₂ < c. Exact duplicates in the training set count once (Yoon et al. 2023; Gu et al. "
        "2023). 1: all copies.",
        "Where it is above the control, samples are copies of single training images.",
    ),
    "nearest_rms": Measure(
        "distance to the nearest training image",
        "nearest rms",
        formats.significant,
        "Mean of d₁/√d, d the number of values in an image: the root-mean-square difference per "
        "pixel on a scale where black is 0 and white is 1 (Gu et al. 2023). 0: exact copies.",
        "Where it is below the control, samples are nearer to training images than real images.",
    ),
    "precision": Measure(
        "precision",
        "precision",
        formats.proportion,
        "Share of samples inside the union of balls around training images, each reaching to that "
        "image's k-th neighbour (Kynkäänniemi et al. 2019). High: samples lie among real images, "
        "as images blurred towards the mean do too: read it beside the Fréchet distance.",
        "Where it is as high as the control, samples lie among real images.",
    ),
    "frechet_distance": Measure(
        "Fréchet distance",
        "Fréchet",
        formats.significant,
        "|m₁ − m₂|² + Tr(S₁ + S₂ − 2(S₁S₂)^½) between means m and covariances S of samples and "
        "training images. Low: the two moments agree. It depends on n, so compare it with its "
        "control only.",
        "Where it is as low as the control, mean and covariance are those of real images.",
    ),
    "pearson_r_to_optimal": Measure(
        "agreement with the optimal denoiser",
        "r to optimal",
        formats.proportion,
        "Pearson correlation between a sample and the one that the Bayes-optimal denoiser of the "
        "training set makes from the same noise, each image's mean removed, averaged over samples. "
        "1: the architecture does what the optimal denoiser does.",
        "1: the same images as the optimal denoiser makes, which are training images.",
    ),
    "memorized_fraction_half": Measure(
        "memorized fraction, c = 1/2",
        "memorized, c = 1/2",
        formats.proportion,
        "The memorized fraction with the looser threshold d₁/d₂ < 1/2.",
        "The same with a looser threshold.",
    ),
    "calibrated_distance": Measure(
        "copies by calibrated distance",
        "calibrated copies",
        formats.proportion,
        "Share of samples whose distance to the nearest training image is at most α times its mean "
        "distance to the n nearest (Carlini et al. 2023).",
        "Where it is above the control, there are copies, also of images that look alike.",
    ),
    "copy_rate": Measure(
        "copy rate",
        "copy rate",
        formats.proportion,
        "Share of samples whose largest cosine similarity to a training image exceeds τ (Somepalli "
        "et al. 2023). On pixels unrelated images are similar as well: read it beside its control.",
        "Above the control, samples repeat single images. A control of 1: it cannot tell here.",
    ),
    "authenticity": Measure(
        "authenticity",
        "authenticity",
        formats.proportion,
        "Share of samples that lie farther from their nearest training image than that image lies "
        "from its own nearest (Alaa et al. 2022). 0: all copies.",
        "Where it is below the control, samples crowd upon single training images.",
    ),
    "copying_z": Measure(
        "copying z (C_T)",
        "copying z",
        formats.significant,
        "Mann–Whitney z of distances to the nearest training image, samples against held-out "
        "images, averaged over cells of the training set (Meehan et al. 2020). The held-out images "
        "are in it: it is its own control.",
        "Far below 0: nearer to the training set than held-out images. Far above: off the data.",
    ),
    "effective_memorization": Measure(
        "effective memorization",
        "EMM",
        formats.count,
        "Largest training size tried at which the memorized fraction is at least 1 − ε (Gu et al. "
        "2023).",
        "The larger, the more images it can learn by heart.",
    ),
    "two_split_agreement": Measure(
        "agreement of two halves",
        "two halves",
        formats.proportion,
        "Mean Pearson correlation between samples that two networks, trained on disjoint halves of "
        "the data, make from the same noise (Kadkhodaie et al. 2024).",
        "Near 1: what is generated no longer depends on which images were seen.",
    ),
    "patch_sources": Measure(
        "sources of an image",
        "sources",
        formats.significant,
        "An image is cut into tiles; the source of a tile is the training image whose tile at the "
        "same place is most correlated with it. The number is the mean count of different sources "
        "in an image; constant tiles have none (Kadkhodaie et al. 2024).",
        "1: whole images are copied. As many as the control: put together as real images are.",
    ),
    "mosaic_consistency": Measure(
        "mosaic consistency",
        "mosaic",
        formats.proportion,
        "Share of pixels that equal, within ε on [0, 1], the centre of the training patch nearest "
        "to the patch around them (Kamb & Ganguli 2025, theorem 4.1).",
        "Where it is above the control, images are mosaics of training patches.",
    ),
    "vendi": Measure(
        "Vendi score",
        "Vendi",
        formats.significant,
        "Effective number of different samples: the exponential of the entropy of the eigenvalues "
        "of K/n, K the cosine similarities of n samples (Friedman & Dieng 2022). It grows with n.",
        "Where it is below the control, there is less variety than in real images.",
    ),
    "kernel_distance": Measure(
        "kernel distance",
        "kernel",
        formats.significant,
        "Unbiased squared maximum mean discrepancy of the kernel (x·y/d + 1)³, mean over random "
        "subsets (Bińkowski et al. 2018). About 0 for equal distributions; it may be negative.",
        "Where it is as near 0 as the control, three moments are those of real images.",
    ),
    "recall": Measure(
        "recall",
        "recall",
        formats.proportion,
        "Share of training images inside the union of balls around samples, each reaching to that "
        "sample's k-th neighbour (Kynkäänniemi et al. 2019).",
        "Where it is as high as the control, every kind of image is generated.",
    ),
    "density": Measure(
        "density",
        "density",
        formats.proportion,
        "Mean number of training images' balls that a sample lies in, divided by k (Naeem et al. "
        "2020). It may exceed 1.",
        "Where it is as high as the control, samples lie where real images are dense.",
    ),
    "coverage": Measure(
        "coverage",
        "coverage",
        formats.proportion,
        "Share of training images whose ball holds a sample (Naeem et al. 2020).",
        "Where it is as high as the control, samples reach all parts of the data.",
    ),
    "spectrum_distance": Measure(
        "spectrum distance",
        "spectrum",
        formats.significant,
        "Euclidean distance between the logarithms of the radial power spectra of samples and "
        "training images (Durall et al. 2020).",
        "Where it is as low as the control, there is as much fine detail as in real images.",
    ),
    "psnr_gap": Measure(
        "PSNR gap (dB)",
        "PSNR gap",
        formats.significant,
        "Mean peak signal-to-noise ratio of the denoised training images minus that of denoised "
        "held-out images, at each noise level σ (Kadkhodaie et al. 2024). The held-out images are "
        "in it: it is its own control.",
        "0: it denoises images it has never seen as well as its own. Above 0: it knows its own.",
    ),
    "locality_profile": Measure(
        "locality",
        "locality",
        formats.significant,
        "Side, in pixels, of the square around a pixel that holds a share q of how strongly the "
        "noisy image moves the denoiser's answer there, at each noise level σ (Niedoba et al. "
        "2024).",
        "Small: each pixel is decided by its surroundings. Large: by the whole image.",
    ),
    "equivariance_error": Measure(
        "equivariance error",
        "equivariance",
        formats.significant,
        "|D(shift y) − shift D(y)| / |D(y)| over circular shifts by a step, at each noise level σ. "
        "A network that halves its grid treats only multiples of 2^levels pixels alike, so such "
        "steps are told apart from steps of one pixel.",
        "0: it treats every place of the image alike.",
    ),
    "explained_by": Measure(
        "explained by",
        "explained by",
        formats.significant,
        "Agreement of the denoiser's answers with those of a closed form, on the same noisy "
        "images, at each noise level σ, and of its samples with those of the closed form from the "
        "same noise (Kamb & Ganguli 2025; Lukoianov et al. 2025). Five numbers "
        "that are often confused: Pearson r, its square, the coefficient of determination R², the "
        "cosine, and the mean squared error on [0, 1].",
        "Near 1 (error near 0): it does what that closed form does.",
    ),
    "pearson_r": Measure("Pearson r", "r", formats.proportion, ""),
    "r_squared": Measure("r squared", "r²", formats.proportion, ""),
    "determination": Measure("determination R²", "R²", formats.significant, ""),
    "cosine": Measure("cosine", "cosine", formats.proportion, ""),
    "mse": Measure("mean squared error", "MSE", formats.significant, ""),
}
MAIN = ("memorized_fraction", "nearest_rms", "precision", "frechet_distance")
SHOWN = (*MAIN, "pearson_r_to_optimal")  # the columns of the main table

# The five numbers that tell how alike images are.
STATISTICS = ("pearson_r", "r_squared", "determination", "cosine", "mse")
# How the page of `jdiff evaluate` groups measures; one of another name comes last.
GROUPS = {
    "Memorization": (
        *("memorized_fraction", "memorized_fraction_half", "nearest_rms", "calibrated_distance"),
        *("copy_rate", "authenticity", "copying_z", "effective_memorization"),
        "two_split_agreement",
    ),
    "Creativity": (
        *("patch_sources", "mosaic_consistency", "vendi", "pearson_r_to_optimal"),
        *STATISTICS,
    ),
    "Realism": (
        *("precision", "recall", "density", "coverage", "frechet_distance", "kernel_distance"),
        "spectrum_distance",
    ),
    "Denoiser": ("psnr_gap", "locality_profile", "equivariance_error", "explained_by"),
}


def measure(name: str) -> Measure:
    """Returns the entry of one measure; an unlisted one is named by its own name.

    A key that carries more than a measure's name, a share, a step, a feature space, or a closed
    form with the number that tells the agreement with it, has the entry of that name.

    Example:
      >>> measure("locality_profile 75%").title, measure("recall (PCA 64)").title
      ('locality, 75%', 'recall (PCA 64)')
    """
    words = name.replace("_", " ")
    if name in MEASURES:
        return MEASURES[name]
    kind, _, rest = name.partition(" ")
    if kind not in MEASURES:
        return Measure(words, words, formats.significant, "")
    known, last = MEASURES[kind], rest.split(" ")[-1]
    form = MEASURES[last].form if last in STATISTICS else known.form
    rest = (" " if rest.startswith("(") else ", ") + rest.replace("_", " ")
    return dataclasses.replace(known, title=known.title + rest, short=known.short + rest, form=form)


def of_denoiser(name: str) -> bool:
    """Whether a key is that of a measure of the denoiser, or of what explains it.

    Example:
      >>> of_denoiser("explained_by samples of linear mse"), of_denoiser("recall")
      (True, False)
    """
    return name.partition(" ")[0] in GROUPS["Denoiser"]


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
    """Names of the measures that no other table or figure shows, in the order they appear.

    Measures of the denoiser have a section of their own: see interpretation.py.
    """
    names = [name for row in rows for name in row.record.get("measures") or {}]
    shown = lambda name: name in SHOWN or of_denoiser(name)
    return [name for name in dict.fromkeys(names) if not shown(name)]


def clauses(rows: Sequence[Row], names: Sequence[str]) -> list[tuple[str, list[str], str]]:
    """The verdicts in words: (verdict, the rows it holds for, verb), one entry a verdict.

    Example:
      >>> row = Row({"label": "mlp", "status": "ok", "verdict": {"word": "creates"}})
      >>> clauses([row, row], ["a", "b"])
      [('creates', ['a', 'b'], 'create')]
    """
    return said(["failed" if row.failed else row.verdict.get("word") or "" for row in rows], names)


def said(words: Sequence[str], names: Sequence[str]) -> list[tuple[str, list[str], str]]:
    """Words for the names that each holds for, in the order of `VERBS`."""
    made = []
    for word in dict.fromkeys([*VERBS, *words]):
        holds = [name for name, other in zip(names, words, strict=True) if other == word]
        if holds:
            verbs = VERBS.get(word, (f"is {word}", f"are {word}"))
            made.append((word, holds, verbs[len(holds) > 1]))
    return made


def join(words: Sequence[str]) -> str:
    """Joins words as a sentence does: a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
