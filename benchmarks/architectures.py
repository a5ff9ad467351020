"""One row an architecture: size, FLOPs, training and sampling speed, and what it generates."""

import dataclasses
import tempfile
from typing import Any

import jdiff
from jdiff.study import PRESETS, Budget

SIZES = {
    "smoke": {"budget": Budget(150), "num_samples": 128, "sigmas": "karras:10"},
    "cpu": {},  # the demo itself
    "accelerator": {"data": "digits", "budget": Budget(6000), "num_samples": 360},
}


def run(size: str, options: Any) -> list[dict[str, Any]]:
    """Optimal, linear, UNet and MLP on digits: parameters, FLOPs, images/s, memorized fraction."""
    study = dataclasses.replace(PRESETS["demo"], **SIZES[size])
    with tempfile.TemporaryDirectory() as folder:
        rows = jdiff.study.run(study, folder, progress=options.progress)
    wanted = ("label", "status", "error", "num_params", "flops_per_image", "budget")
    return [
        {name: row.record.get(name) for name in wanted}
        | {
            "train_images_per_s": row.entry("images_per_s", "train"),
            "sample_images_per_s": row.entry("images_per_s", "sample"),
            "nfe": row.record.get("nfe"),
            "compile_seconds": row.entry("seconds", "compile"),
            "memorized_fraction": row.entry("measures", "memorized_fraction"),
            "verdict": row.verdict,
        }
        for row in rows
    ]
