"""Named studies, for `jdiff study NAME`; every field can be overridden."""

from jdiff.study.config import Budget, Study
from jdiff.study.laws import LawStudy

PRESETS: dict[str, Study | LawStudy] = {
    # The main job: two closed forms and two networks on scikit-learn's digits, in minutes.
    "demo": Study(name="demo", budget=Budget(1200, image_shape=(8, 8, 1))),
    # The theory: every family against the distribution that its samples must have.
    "laws": LawStudy(),
}
