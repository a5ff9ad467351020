"""Closed forms at scale: the posterior mean over many images, affine filters, random features."""

from typing import Any

from benchmarks import linear_denoiser, optimal_denoiser
from benchmarks.suite import Case


def cases(size: str, options: Any) -> list[Case]:
    """Those of optimal_denoiser.py and linear_denoiser.py."""
    return [*optimal_denoiser.cases(size, options), *linear_denoiser.cases(size, options)]
