"""What is asked of the figures, and whether a row reached it.

Asked of a machine with two CPU cores, at size cpu; the loop's cost and accuracies of any device.
"""

from typing import Any, NamedTuple


class Asked(NamedTuple):
    """`value >= limit` if `least`, else `value <= limit`."""

    least: bool
    limit: float
    on_any_device: bool = False

    def __str__(self) -> str:
        """For example "at least 2"."""
        limit = f"{self.limit:,.0f}" if self.limit >= 1000 else f"{self.limit:.3g}"
        return f"at {'least' if self.least else 'most'} {limit}"

    def answer(self, value: float, spread: dict[str, Any] | None = None) -> str:
        """For example "reached", and whether the spread holds the limit too."""
        reached = value >= self.limit if self.least else value <= self.limit
        unsure = spread is not None and spread["p10"] <= self.limit <= spread["p90"]
        return ("reached" if reached else "missed") + (", within the noise" if unsure else "")


# (case, field): "ratio" is that of seconds, the alternative's over jdiff's.
ASKED = {
    # A step of the loop costs at most 1.05 times the bare step.
    ("bare step over loop", "ratio"): Asked(True, 1 / 1.05, on_any_device=True),
    ("transcription, train", "ratio"): Asked(True, 3),
    ("diffusers_unet default, train", "ratio"): Asked(True, 1),
    ("diffusers_unet tuned and jdiff tuned, train", "ratio"): Asked(True, 1),
    ("optimal, against a matmul", "ratio"): Asked(True, 0.5),
    ("optimal, peak memory", "peak_mb"): Asked(False, 300),
    ("optimal, accuracy", "image_error_of_range"): Asked(False, 1e-4, on_any_device=True),
    ("optimal, accuracy", "weight_error"): Asked(False, 1e-4, on_any_device=True),
    ("linear, sampling", "ratio"): Asked(True, 20),
    ("linear, sampling in one batch", "ratio"): Asked(True, 20),
    ("nearest, faiss-cpu", "ratio"): Asked(True, 1),
    ("nearest, scikit-learn", "ratio"): Asked(True, 2),
    ("nearest, memory with images", "peak_mb"): Asked(False, 400),
    ("nearest, memory with features", "peak_mb"): Asked(False, 400),
    ("prdc", "ratio"): Asked(True, 2),
    ("all measures", "all_seconds"): Asked(False, 60),
    ("demo", "study_seconds"): Asked(False, 4 * 60),
    ("laws", "study_seconds"): Asked(False, 5 * 60),
    **{
        (name, "study_seconds"): Asked(False, 25 * 60)
        for name in ("mlp-width", "unet-changes", "preconditioning", "locality")
    },
}


def of(result: dict[str, Any], row: dict[str, Any], field: str) -> Asked | None:
    """What was asked of this value of a row; None if nothing was."""
    asked = ASKED.get((row["case"], field))
    if asked is None or row.get(field) is None or result["size"] == "smoke":
        return None
    two_cores = result["size"] == "cpu" and ", 2 cores)" in result["device"]
    if any((result.get("settings") or {}).values()) or not (two_cores or asked.on_any_device):
        return None
    return asked
