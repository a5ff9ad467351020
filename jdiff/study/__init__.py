"""Studies: architectures compared on one data set, from one noise, with a report."""

from jdiff.study.config import Architecture, Budget, Study
from jdiff.study.laws import LawStudy
from jdiff.study.presets import PRESETS
from jdiff.study.run import rebuild_report, run
from jdiff.study.saved import load, save

__all__ = [
    "PRESETS",
    "Architecture",
    "Budget",
    "LawStudy",
    "Study",
    "load",
    "rebuild_report",
    "run",
    "save",
]
