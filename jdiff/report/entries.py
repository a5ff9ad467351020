"""What a report shows of a record beside its measures: costs and settings.

An entry that old records lack is optional: its column is there only if a row has it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jdiff.report import formats
from jdiff.report.rows import Row


@dataclass(frozen=True)
class Entry:
    """One entry of a record.

    Attributes:
      path: its place, such as ("seconds", "train").
      title: its heading.
      form: how it is printed.
      definition: what it means.
      optional: whether it is left out where no row has it.
    """

    path: tuple[str, ...]
    title: str
    form: Callable[[Any], str]
    definition: str = ""
    optional: bool = False

    @property
    def name(self) -> str:
        """Its place as one word, such as "seconds.train"."""
        return ".".join(self.path)


COSTS = (
    Entry(
        ("num_params",),
        "parameters",
        formats.count,
        "Numbers that the denoiser holds: trained weights, or what a closed form keeps.",
    ),
    Entry(
        ("receptive_field",),
        "receptive field",
        formats.count,
        "Side, in pixels, of the square that an output pixel depends on, no more than the image's "
        "own side, which means the whole image. Group normalisation, attention and dense layers "
        "make every pixel depend on all of it.",
        optional=True,
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
TRAINING = Entry(
    ("seconds", "train"),
    "train (s)",
    formats.significant,
    "Seconds of training, compilation not counted.",
)
SETTINGS = (
    Entry(("options",), "options", formats.plain),
    Entry(("preconditioning",), "preconditioning", formats.plain),
    Entry(("num_train",), "training images", formats.plain),
    Entry(("seed",), "seed", formats.plain),
    Entry(("budget", "steps"), "steps", formats.plain),
    Entry(("budget", "networks"), "networks", formats.plain, optional=True),
    Entry(("budget", "images"), "images seen", formats.count),
    Entry(("budget", "flops"), "training FLOPs", formats.count),
    Entry(("seconds", "train"), "training (s)", formats.significant),
    Entry(("seconds", "sample"), "sampling (s)", formats.significant),
    Entry(("sigmas",), "sampled at", formats.plain, optional=True),
    Entry(("samples",), "samples", formats.plain),
)


def shown(entries: Sequence[Entry], rows: Sequence[Row]) -> list[Entry]:
    """Those of the entries that are not optional, or that a row has."""
    has = lambda entry: any(not formats.missing(row.entry(*entry.path)) for row in rows)
    return [entry for entry in entries if not entry.optional or has(entry)]
