"""What every row has that is whole: a run of which one lacks something ends with status 1."""

from typing import Any

from benchmarks import tables

# Of a row of an architecture, by suite.
OF_ARCHITECTURES = {
    "training": (
        *("images_per_s", "step_seconds", "model_flops_per_s", "mfu", "compile_seconds"),
        *("num_params", "flops_per_image", "peak_mb"),
    ),
    "sampling": (
        *("images_per_s", "nfe", "evaluations_per_s", "solver", "compile_seconds", "peak_mb"),
    ),
    "frontier": (
        *("memorized_fraction", "novelty", "realism", "verdicts", "agreement_with_optimal"),
        *("frechet_distance", "train_images_per_s", "sample_images_per_s", "nfe", "seeds"),
        *("budget", "num_params", "flops_per_image", "compile_seconds"),
    ),
}
# Any other row answers its question by one of these.
ANSWERS = (
    *("ratio", "exponent", "seconds", "flops_per_s", "peak_mb", "peak_mb_beyond_data"),
    *("image_error_of_range", "fit_seconds", "all_seconds", "study_seconds"),
)


def lacks(result: dict[str, Any]) -> list[str]:
    """A line for every row of a results file that says it is whole and lacks something."""
    found = []
    for row in result["rows"]:
        if row["status"] != "ok":
            continue
        of_architecture = "architecture" in row and "ratio" not in row
        if of_architecture and result["suite"] in OF_ARCHITECTURES:
            missing = [name for name in OF_ARCHITECTURES[result["suite"]] if name not in row]
        else:
            missing = [] if any(name in row for name in ANSWERS) else ["an answer"]
        if missing:
            found.append(f"{tables.name(row)} lacks {', '.join(missing)}")
    return found
