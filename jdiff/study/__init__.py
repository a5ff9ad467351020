"""Studies: architectures compared on one data set, from one noise, with a report."""

from jdiff.study import claims
from jdiff.study.config import Architecture, Budget, Study
from jdiff.study.evaluate import Evaluation, evaluate
from jdiff.study.evaluate_files import evaluate_from, evaluate_run, evaluate_samples
from jdiff.study.laws import LawStudy
from jdiff.study.presets import PRESETS
from jdiff.study.run import rebuild_report, run
from jdiff.study.saved import load, save

__all__ = [
    "PRESETS",
    "Architecture",
    "Budget",
    "Evaluation",
    "LawStudy",
    "Study",
    "claims",
    "evaluate",
    "evaluate_from",
    "evaluate_run",
    "evaluate_samples",
    "load",
    "rebuild_report",
    "run",
    "save",
]
