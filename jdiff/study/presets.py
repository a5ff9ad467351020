"""Named studies, for `jdiff study NAME`; every field can be overridden."""

from jdiff.study.config import Budget, Study

PRESETS: dict[str, Study] = {
    # The main job: two closed forms and two networks on scikit-learn's digits, in minutes.
    "demo": Study(name="demo", budget=Budget(1200, image_shape=(8, 8, 1))),
}
