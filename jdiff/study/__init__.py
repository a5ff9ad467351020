"""Studies: architectures compared on one data set, from one noise, with a report."""

from jdiff.study.config import Architecture, Budget, Study
from jdiff.study.files import rebuild_report
from jdiff.study.presets import PRESETS
from jdiff.study.run import run
from jdiff.study.saved import load, save

__all__ = ["PRESETS", "Architecture", "Budget", "Study", "load", "rebuild_report", "run", "save"]
